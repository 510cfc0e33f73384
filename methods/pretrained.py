"""Pretrain, then tune: masked tokens and context of the training part's texts first (Gururangan et al., ACL 2020)."""

from __future__ import annotations

from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.objectives import OBJECTIVES
from bench.text.pretrain import cached, check_settings
from methods.lora import Lora


class Pretrained(Lora):
    """LoRA, W x + (alpha / rank) B A x, on weights W that went on pretraining on the texts of the training part.

    objective, tokens, pretrain_lr: see ``bench.text.pretrain.pretrain``. The pretrained model is cached by all that
    decides it; runs that share data, these settings and the seed share it.
    """

    space = {
        **Lora.space,
        "objective": CategoricalDistribution(OBJECTIVES),
        "tokens": IntDistribution(50_000, 5_000_000, log=True),
        "pretrain_lr": FloatDistribution(1e-6, 2e-4, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        objective: str = "both",
        tokens: int = 200_000,
        pretrain_lr: float = 5e-5,
        **settings: Any,
    ) -> None:
        check_settings(objective, tokens, pretrain_lr)
        self.objective, self.tokens, self.pretrain_lr = objective, tokens, pretrain_lr
        super().__init__(schema, inputs, trunk, **settings)
        self.base = self.towers()[0].lm

    def on_start(self, train: Any) -> None:
        """Pretrains, and starts the towers over from the result."""
        self._restart(
            cached(
                train,
                self.base,
                objective=self.objective,
                tokens=self.tokens,
                lr=self.pretrain_lr,
                # The seed itself, not a number drawn: what was drawn before, for another trunk, say, must not matter.
                seed=torch.initial_seed(),
                device=self.towers()[0].get_buffer("store").device,
            )
        )
        super().on_start(train)

    def get_extra_state(self) -> Tensor:
        """Which language model the towers stand on: a part of the state, as their cached states come from it."""
        return torch.tensor(list(self.towers()[0].lm.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Called before the parameters are loaded."""
        self._restart(bytes(state.tolist()).decode())

    def _restart(self, lm: str) -> None:
        for tower in self.towers():
            if tower.lm != lm:
                tower.restart(lm)
