"""MTL-LoRA: low-rank updates with a transformation and a mixture for each task (Yang et al., AAAI 2025)."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.per_task import PerTask
from methods._conditioned import Conditioned


class TaskLora(PerTask):
    """W x + (alpha / rank) sum_i softmax(w_t / tau)_i B^i Lambda_t A x of a linear layer W, for the task t at work.

    A [rank, in] and B [n, out, rank] are shared, Lambda_t [rank, rank] and w_t [n] are the task's own.
    """

    def __init__(self, layer: nn.Linear, tasks: int, *, rank: int, alpha: int, ups: int, temperature: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale, self.temperature = alpha / rank, temperature
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.up = nn.Parameter(torch.zeros(ups, layer.out_features, rank))
        self.between = nn.ParameterList(torch.eye(rank) for _ in range(tasks))
        # Not all alike: with equal weights in all tasks, the B^i would stay equal to each other.
        self.weights = nn.ParameterList((2 * torch.rand(ups) - 1) / math.sqrt(ups) for _ in range(tasks))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        mixture = torch.softmax(self.weights[self.task] / self.temperature, dim=0)
        up = torch.tensordot(mixture, self.up, dims=1) @ self.between[self.task]
        added = F.linear(F.linear(x, self.down), up)
        plain: Tensor = self.layer(x)
        return plain + self.scale * added


class MtlLora(Conditioned):
    """W x + (alpha / rank) sum_i softmax(w_t / tau)_i B^i Lambda_t A x for task t, of the attention's query and value.

    A and the ``ups`` matrices B^i are shared by all tasks; Lambda_t and w_t are task t's own. B^i = 0, Lambda_t = I and
    w_t random at the start. tau: ``temperature``.
    """

    space = {
        **Conditioned.space,
        "rank": IntDistribution(1, 64, log=True),
        "alpha": IntDistribution(1, 64, log=True),
        "ups": IntDistribution(1, 8),
        "temperature": FloatDistribution(0.05, 2.0, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        rank: int = 8,
        alpha: int = 16,
        ups: int = 3,
        temperature: float = 0.1,
        **settings: Any,
    ) -> None:
        if rank < 1 or ups < 1:
            raise ValueError(f"rank {rank}, ups {ups}: each is at least 1")
        if not temperature > 0:
            raise ValueError(f"temperature {temperature}: it is above 0")
        self.own: dict[str, Any] = {"rank": rank, "alpha": alpha, "ups": ups, "temperature": temperature}
        super().__init__(schema, inputs, trunk, **settings)

    def adapt(self, net: nn.Module, *, tasks: int = 1) -> nn.Module:
        """Gives the frozen network's query and value layers their matrices for so many tasks; returns it."""
        for name, layer in query_and_value(net).items():
            net.set_submodule(name, TaskLora(layer, tasks, **self.own))
        return net


def query_and_value(net: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name that ``peft`` tunes in a model of this type. Raises ValueError if it knows of none."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    kind = cast(Any, net).config.model_type
    wanted = KNOWN.get(kind, ())
    found = {
        name: m for name, m in net.named_modules() if name.rpartition(".")[2] in wanted and isinstance(m, nn.Linear)
    }
    if not found:
        raise ValueError(f"lm: no linear query and value are known of the model type '{kind}'; choose another model")
    return found
