"""ESMM: the conversion rate learned over all rows as a factor of click-and-conversion (Ma et al., SIGIR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, Schema, Task, task_loss
from bench.nn import MakeInputs, base_rate, mlp


@dataclass(frozen=True)
class Funnel:
    """Click and conversion of a row. ``ctcvr``: P(click and conversion), over all rows; ``cvr``: P(conversion | click),
    over the clicked ones. A data set has at least one of the two; the label of the other one follows from it.
    """

    click: Task
    ctcvr: Task | None
    cvr: Task | None

    @property
    def steps(self) -> tuple[Task, ...]:
        """The tasks that there are, in causal order."""
        return tuple(t for t in (self.click, self.ctcvr, self.cvr) if t is not None)

    def ctcvr_label(self, labels: Mapping[str, Tensor]) -> Tensor:
        """[B], NaN where undefined: click * conversion."""
        if self.ctcvr is not None:
            return labels[self.ctcvr.name]
        click = labels[self.click.name]
        return torch.where(click == 1, labels[cast(Task, self.cvr).name], click)

    def cvr_label(self, labels: Mapping[str, Tensor]) -> Tensor:
        """[B], NaN where undefined: the conversion of a clicked row."""
        if self.cvr is not None:
            return labels[self.cvr.name]
        click = labels[self.click.name]
        return torch.where(click == 1, labels[cast(Task, self.ctcvr).name], torch.nan)


def find_funnel(schema: Schema) -> Funnel | None:
    """The funnel among the binary pair-scope tasks, by role and space; None if there is none.

    The click task has role ``ctr`` and the CTCVR task role ``conversion``, both over all rows. The CVR task is the
    first one over fewer rows whose role begins with ``conversion``.
    """
    binary = [t for t in schema.tasks if t.traits.marks and not t.traits.grouped and t.scope == "pair"]
    everywhere = {t.role: t for t in reversed(binary) if t.space == Task.space}
    parts = [t for t in binary if t.space != Task.space and t.role.startswith("conversion")]
    click, ctcvr, cvr = everywhere.get("ctr"), everywhere.get("conversion"), parts[0] if parts else None
    return Funnel(click, ctcvr, cvr) if click is not None and (ctcvr or cvr) is not None else None


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of sigmoid(a) * sigmoid(b), in log space throughout."""
    product = F.logsigmoid(a) + F.logsigmoid(b)
    return product - torch.logaddexp(F.logsigmoid(-a), F.logsigmoid(a) + F.logsigmoid(-b))


def network(width_in: int, width: int, depth: int, tower: int, outputs: int, dropout: float) -> nn.Sequential:
    """A bottom, a tower and an output for one task alone."""
    return nn.Sequential(mlp(width_in, width, depth, dropout), mlp(width, tower, 1, dropout), nn.Linear(tower, outputs))


class Esmm(Method):
    """pCTCVR = pCTR * pCVR; L = BCE(click, pCTR) + BCE(click * conversion, pCTCVR) over all rows.

    Every task has a network of its own on the shared input layer. pCVR learns through the product only: the loss of
    the CVR task is 0, or BCE(click * conversion, pCTR * pCVR) where the data set has no CTCVR task. Other tasks keep
    their usual loss.
    """

    data_parallel = True
    space = {
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
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(schema)
        found = find_funnel(schema)
        if found is None:
            raise ValueError(self.declines(schema))
        self.funnel = found
        self.conversion = found.cvr or cast(Task, found.ctcvr)  # the task that names the network of pCVR
        self.inputs = inputs(schema)
        self.networks = nn.ModuleDict(
            {
                t.name: network(self.inputs.width, width, depth, tower, t.outputs, dropout)
                for t in self.tasks
                if t == self.conversion or t != found.ctcvr
            }
        )

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """Without a funnel there is no product to learn."""
        wanted = "a click task (role ctr) and a conversion task, both binary and of pair scope"
        return "" if find_funnel(schema) else f"no funnel: it needs {wanted}"

    @torch.no_grad()
    def on_start(self, train: Any) -> None:
        """Output biases start at the training part's base rates, that of pCVR at the rate among clicked rows."""
        labels = {**train.labels, self.conversion.name: self.funnel.cvr_label(train.labels)}
        for task in self.tasks:
            prior = base_rate(task, labels[task.name])
            if prior is not None and task.name in self.networks:
                cast(nn.Linear, cast(nn.Sequential, self.networks[task.name])[-1]).bias.copy_(prior)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the raw outputs of all tasks; the output of the CTCVR task is the logit of pCTR * pCVR."""
        x = dict(zip(("pair", "user"), self.inputs(batch), strict=True))
        self.shared = [side for scope, side in x.items() if any(t.scope == scope for t in self.tasks)]
        outputs: dict[str, Tensor] = {}
        for task in self.tasks:
            if task.name in self.networks:
                output = self.networks[task.name](x[task.scope])
                outputs[task.name] = task.traits.shaped(output)
        if self.funnel.ctcvr is not None:
            both = product_logit(outputs[self.funnel.click.name], outputs[self.conversion.name])
            outputs[self.funnel.ctcvr.name] = both
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """One mean loss for each task [T]."""
        return torch.stack([self.loss(t, outputs, batch) for t in self.tasks])

    def loss(self, task: Task, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss of one task."""
        if task != self.funnel.cvr:
            return task_loss(task, outputs[task.name], batch)
        if self.funnel.ctcvr is not None:
            return (outputs[task.name] * 0).sum()
        return self.ctcvr_loss(task, outputs, batch)

    def ctcvr_loss(self, cvr: Task, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The CTCVR loss where only click and CVR are tasks of the data set."""
        both = product_logit(outputs[self.funnel.click.name], outputs[cvr.name])
        return task_loss(cvr, both, replace(batch, labels={cvr.name: self.funnel.ctcvr_label(batch.labels)}))
