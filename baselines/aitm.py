"""AITM: what the click tower knows is passed on to the conversion tower by attention (Xi et al., KDD 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.esmm import find_funnel
from bench.api import Batch, Schema, Task
from bench.nn import Architecture, MakeInputs, mlp


class Transfer(nn.Module):
    """z = sum over u in {p, q} of w_u h3(u), with w = softmax over u of <h1(u), h2(u)> / sqrt(k)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.h1, self.h2, self.h3 = (nn.Linear(width, width) for _ in range(3))

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        """p, q [N, width] -> [N, width]."""
        u = torch.stack([p, q], dim=1)
        score = (self.h1(u) * self.h2(u)).sum(dim=2, keepdim=True) / u.shape[2] ** 0.5
        mixed: Tensor = (torch.softmax(score, dim=1) * self.h3(u)).sum(dim=1)
        return mixed


class Aitm(Architecture):
    """q_t = MLP_t(x); z_click = q_click, z_conversion = AIT(relu(W z_click + b), q_conversion); y_t = tower_t(z_t).

    The conversion loss adds calibrator * mean(max(pCTCVR - pCTR, 0)). Other tasks read their own q_t.
    """

    space = {
        "calibrator": FloatDistribution(0.0, 2.0),
        "width": IntDistribution(16, 128, step=16),
        "depth": IntDistribution(1, 3),
        "tower": IntDistribution(16, 64, step=16),
        "dropout": FloatDistribution(0.0, 0.5),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        calibrator: float = 0.6,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        found = find_funnel(schema)
        if found is None or found.ctcvr is None:
            raise ValueError(self.declines(schema))
        super().__init__(schema, inputs, width=width, tower=tower, dropout=dropout)
        self.click, self.conversion = found.click, found.ctcvr
        self.calibrator = calibrator
        self.bottoms = nn.ModuleDict({t.name: mlp(self.inputs.width, width, depth, dropout) for t in self.tasks})
        self.information = mlp(width, width, 1, dropout)
        self.transfer = Transfer(width)

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """Both steps must be defined on the same rows."""
        found = find_funnel(schema)
        wanted = "a click task (role ctr) and a conversion task over all rows, both binary and of pair scope"
        return "" if found is not None and found.ctcvr is not None else f"no funnel: it needs {wanted}"

    def represent(self, x: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Each task has a bottom of its own; the conversion task also reads the click task's."""
        self.shared.append(x)
        states = {t.name: self.bottoms[t.name](x) for t in tasks}
        if self.conversion in tasks:
            passed_on = self.information(states[self.click.name])
            states[self.conversion.name] = self.transfer(passed_on, states[self.conversion.name])
        return states

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The usual ones; the calibrator counts as a part of the conversion loss."""
        excess = F.relu(outputs[self.conversion.name].sigmoid() - outputs[self.click.name].sigmoid()).mean()
        usual = super().losses(outputs, batch)
        return usual + self.calibrator * excess * usual.new_tensor([float(t == self.conversion) for t in self.tasks])
