"""What methods share that train the language model: the tower under an architecture, and a rate of its own."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from bench.api import Schema
from bench.nn import USER_ENCODERS, MakeInputs, MakeTrunk, OnTrunk
from bench.text.inputs import TextInputs
from bench.text.tower import POOLINGS, Tower


class Tuned(OnTrunk):
    """The architecture ``trunk`` over features and the text vectors of a language model that is trained with it.

    A subclass says in ``adapt`` what of the language model is trained. layers, texts and pooling: ``top``, ``most`` and
    ``pooling`` of ``bench.text.tower.Tower``. lm_lr: learning rate of what is trained in the language model. user: what
    pools the history, of ``bench.nn.history.USER_ENCODERS``.
    """

    space: ClassVar[dict[str, BaseDistribution]] = {
        "text_width": IntDistribution(16, 128, step=16),
        "layers": IntDistribution(0, 6),
        "texts": IntDistribution(0, 256, step=32),
        "pooling": CategoricalDistribution(POOLINGS),
        "lm_lr": FloatDistribution(1e-6, 1e-2, log=True),
        "user": CategoricalDistribution(tuple(USER_ENCODERS)),
    }
    later: ClassVar[tuple[str, ...]] = ("user",)
    trunk = "shared_bottom"

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        lm: str = "all-MiniLM-L6-v2",
        text_width: int = 64,
        layers: int = 2,
        texts: int = 64,
        pooling: str = "mean",
        lm_lr: float = 1e-3,
        user: str = "additive",
    ) -> None:
        self.lm_lr = lm_lr
        tower = partial(Tower, schema.texts, lm, self.adapt, top=layers, most=texts, pooling=pooling)
        read = partial(TextInputs, features=inputs, tower=tower, width=text_width, user=user)
        super().__init__(schema, read, trunk)

    def adapt(self, net: nn.Module) -> nn.Module:
        """Takes the frozen network and returns what is trained, itself or another one around it."""
        raise NotImplementedError

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """The language model has a learning rate of its own."""
        return [*super().rates(lr), *((tower.network, self.lm_lr) for tower in self.towers())]

    def towers(self) -> list[Tower]:
        """The language models, one for each input layer of the architecture."""
        return [m for m in self.modules() if isinstance(m, Tower)]
