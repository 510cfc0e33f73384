"""How a method is trained: the budget, the seed, and those of the common settings that training uses."""

from __future__ import annotations

from dataclasses import dataclass, fields

from bench.spec import Spec


@dataclass(frozen=True)
class Recipe:
    """How a method is trained; what a field means, ``docs/protocol.md`` and ``docs/tuning.md`` say.

    epochs, patience: at most so many epochs, and so many without improvement. schedule, warmup: see
    ``bench.nn.schedule.rate``. grad_clip: the largest norm of the gradient of each part that trains independently, at
    every update that the method makes; 0 for none. augment, augment_rate: see ``bench.nn.augment``.
    """

    lr: float
    weight_decay: float
    batch_size: int
    epochs: int
    patience: int
    seed: int = 0
    schedule: str = "constant"
    warmup: float = 0.0
    grad_clip: float = 0.0
    decay_embeddings: bool = False
    augment: str = "none"
    augment_rate: float = 0.0

    @classmethod
    def of(cls, spec: Spec) -> Recipe:
        """The recipe of a run: the fields that its configuration and its budget have, and its seed."""
        known = {field.name for field in fields(cls)}
        return cls(**{**{k: v for k, v in spec.config.items() if k in known}, **spec.budget, "seed": spec.seed})
