"""ESCM2: ESMM with a counterfactual loss of the conversion rate, IPS or DR (Wang et al., SIGIR 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import Tensor
from torch.nn import functional as F

from baselines.esmm import Esmm, find_funnel, network
from bench.api import Batch, Schema, Task, batch_mean
from bench.nn import MakeInputs


class Escm2(Esmm):
    """L = L_CTR + lam_c L_CVR + lam_g L_CTCVR, with pCTCVR = pCTR * pCVR and L_CVR a mean over all rows.

    With o the click, delta the conversion's cross-entropy and w = min(1 / pCTR, clip), pCTR detached:
    ips: L_CVR = mean(o w delta);
    dr: L_CVR = mean(d + o w (delta - d)) + mean(o w (delta - d)^2), d >= 0 an imputation network's guess at delta.
    L_CVR is the loss of the CVR task, plus lam_g L_CTCVR where the data set has no CTCVR task.
    """

    space = {
        "estimator": CategoricalDistribution(["ips", "dr"]),
        "clip": FloatDistribution(2.0, 100.0, log=True),
        "lam_c": FloatDistribution(0.01, 10.0, log=True),
        "lam_g": FloatDistribution(0.01, 10.0, log=True),
        **Esmm.space,
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        estimator: str = "ips",
        clip: float = 15.0,
        lam_c: float = 0.1,
        lam_g: float = 1.0,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        if self.declines(schema):
            raise ValueError(self.declines(schema))
        if estimator not in ("ips", "dr"):
            raise ValueError(f"estimator is ips or dr, got '{estimator}'")
        if not clip >= 1:
            raise ValueError(f"clip bounds an inverse probability, so it is at least 1, got {clip}")
        super().__init__(schema, inputs, width=width, depth=depth, tower=tower, dropout=dropout)
        self.clip, self.lam_c, self.lam_g = clip, lam_c, lam_g
        self.imputation = network(self.inputs.width, width, depth, tower, 1, dropout) if estimator == "dr" else None
        self.imputed: Tensor | None = None

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """What it corrects is the selection of the rows that a CVR task is defined on."""
        found = find_funnel(schema)
        wanted = "a click task (role ctr) and a conversion task over the clicked rows, both binary and of pair scope"
        return "" if found is not None and found.cvr is not None else f"no funnel: it needs {wanted}"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the raw outputs of all tasks, and keeps the imputed losses [B]."""
        outputs = super().forward(batch)
        if self.imputation is not None:
            self.imputed = F.softplus(self.imputation(self.shared[0])).squeeze(1)
        return outputs

    def loss(self, task: Task, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss of one task."""
        if task == self.funnel.cvr:
            loss = self.lam_c * self.cvr_loss(task, outputs, batch)
            return loss if self.funnel.ctcvr else loss + self.lam_g * self.ctcvr_loss(task, outputs, batch)
        loss = super().loss(task, outputs, batch)
        return self.lam_g * loss if task == self.funnel.ctcvr else loss

    def cvr_loss(self, cvr: Task, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """L_CVR: the mean over all rows of known click of what the estimator makes of the clicked ones."""
        click, label = batch.labels[self.funnel.click.name], batch.labels[cvr.name]
        clicked = (click == 1) & ~label.isnan()
        target = torch.where(clicked, label, torch.zeros_like(label))
        delta = F.binary_cross_entropy_with_logits(outputs[cvr.name], target, reduction="none")
        propensity = outputs[self.funnel.click.name].detach().sigmoid()
        weight = clicked * propensity.reciprocal().clamp(max=self.clip)
        if self.imputed is None:
            risk = weight * delta
        else:
            error = delta - self.imputed
            risk = self.imputed + weight * (error + error.square())
        known = ~click.isnan()
        return batch_mean((risk * known).sum(), known.sum())
