"""CGC: one level of PLE, shared and own experts a task (Tang et al., Progressive Layered Extraction, RecSys 2020)."""

from __future__ import annotations

from baselines.ple import Ple
from bench.api import Schema
from bench.nn import MakeInputs


class Cgc(Ple):
    """h_t = sum_k softmax(W_t x)_k E_k(x) over the shared experts and the task's own; y_t = tower_t(h_t).

    The PLE paper's customised gate control. Published sizes: see ``Ple``.
    """

    space = {name: values for name, values in Ple.space.items() if name != "levels"}

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        *,
        shared_experts: int = 2,
        task_experts: int = 1,
        width: int = 64,
        depth: int = 1,
        tower: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            schema,
            inputs,
            levels=1,
            shared_experts=shared_experts,
            task_experts=task_experts,
            width=width,
            depth=depth,
            tower=tower,
            dropout=dropout,
        )
