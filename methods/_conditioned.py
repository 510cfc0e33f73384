"""What methods share that tune one language model for several tasks at once, each with text vectors of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from bench.api import Batch, Inputs, Schema
from bench.nn import MakeInputs, MakeTrunk
from bench.text.per_task import TaskTower
from bench.text.tower import Tower
from methods._tuned import Tuned


class Conditioned(Tuned):
    """y_t = trunk(features, v_t)_t: the architecture reads the text vectors v_t of each task t in a pass of its own, of
    which that task's output is taken. Its weights are the same in all passes.

    An input layer that an architecture makes for one task, as ``single_task`` does, has a language model for that task
    alone. ``shared`` has the representations of every pass, each read by one task. So a balancer's gradients at the
    representations have lengths to balance and no conflict; those at the parameters (``at``) have both.
    """

    def __init__(self, schema: Schema, inputs: MakeInputs, trunk: MakeTrunk, **settings: Any) -> None:
        super().__init__(schema, inputs, lambda whole, read: trunk(whole, per_task(read)), **settings)
        if getattr(self.model, "imputation", None) is not None:  # the architecture escm2 keeps them for its losses
            raise ValueError("trunk.estimator 'dr': imputed errors belong to one pass, and there is one a task")

    def adapt(self, net: nn.Module, *, tasks: int = 1) -> nn.Module:
        """Takes the frozen network, which so many tasks share, and returns what is trained."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A pass of the architecture for each task, or one where no two tasks share a language model."""
        towers = [tower for tower in self.towers() if isinstance(tower, TaskTower)]
        if all(len(tower.tasks) == 1 for tower in towers):
            return super().forward(batch)
        outputs: dict[str, Tensor] = {}
        self.shared = []
        for task in self.tasks:
            for tower in towers:
                tower.turn_to(task.name)
            outputs[task.name] = self.model(batch)[task.name]
            self.shared += read_by(outputs[task.name], self.model.shared)
        return outputs


def per_task(read: MakeInputs) -> MakeInputs:
    """The input layers of ``Tuned``, with a tower for the tasks of the schema that one is made for."""
    layer = cast("partial[Inputs]", read)
    tower = cast("partial[Tower]", layer.keywords["tower"])

    def make(schema: Schema) -> Inputs:
        names = [t.name for t in schema.tasks]
        return layer(schema, tower=partial(TaskTower, names, *tower.args, **tower.keywords))

    return make


def read_by(output: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """Those of ``states`` from which an output was computed, without passing through another of them."""
    todo, seen = [output.grad_fn], {state.grad_fn for state in states}
    met: set[tuple[Any, int]] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        edges = [edge for edge in node.next_functions if edge[0] is not None]
        met.update(edges)
        todo += [below for below, _ in edges]
    return [state for state in states if (state.grad_fn, state.output_nr) in met]
