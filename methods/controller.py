"""Learning rates, task weights and optimiser that follow each task's metric on meta-validation (of this project)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import Tensor, nn

from bench.api import Batch, Method, Schema
from bench.nn import Architecture, MakeInputs, MakeTrunk
from methods._weighted import Weighted

CONTROLS = ("metrics", "random", "replay")
SLOWER, FASTER = 0.5, 1.5
LOWEST, HIGHEST = 1 / 64, 4.0  # of every rate and weight, relative to its start
SGD = partial(torch.optim.SGD, momentum=0.9)
SGD_RATE = 10.0  # SGD's rate relative to that of AdamW, whose steps do not shrink with the gradient
PLATEAU = 2  # epochs
PILOTS = 2
LANGUAGE_MODEL, TRUNK = "rate of language model", "rate of trunk"


@dataclass(frozen=True)
class Action:
    """What one epoch changes: factors of rates and weights; back to the best weights; the other optimiser."""

    factors: dict[str, float] = field(default_factory=dict)
    back: bool = False
    switch: bool = False
    why: str = "no rule applies"


class Controller(Weighted):
    """After each epoch with gains g_t = skill_t - (skill_t of the best epoch so far; at the start that of chance):

    * mean g < -tolerance: back to the weights of the best epoch, every rate / 2. So it is, at once, in a batch with a
      loss that is not finite;
    * else, some g_t < -tolerance: head t's rate / 2, weight t * 1.5 (then all weights to a mean of 1), and where others
      gained more than the tolerance the rate of the language model, which all share, / 2;
    * all g_t > tolerance twice in a row: rates of language model and trunk * 1.5;
    * mean g <= tolerance for the second epoch in a row: from AdamW to SGD with momentum, or back.

    Rates and weights stay in [1/64, 4] of their start. Skill is (value - chance) / (perfect - chance) of the primary
    metric on the latest tenth of the training groups, which are not trained on.
    control: ``metrics``, or what shows whether reading them matters. ``random``: each epoch repeats what the controller
        did in an epoch drawn from two first trainings (by other orders of batches). ``replay``: the mean rates and
        weights of these two, epoch by epoch, whatever the metrics are; it never goes back.
    """

    space = {
        **Weighted.space,
        "control": CategoricalDistribution(CONTROLS),
        "tolerance": FloatDistribution(1e-4, 0.1, log=True),
    }

    def __init__(
        self,
        schema: Schema,
        inputs: MakeInputs,
        trunk: MakeTrunk,
        *,
        control: str = "metrics",
        tolerance: float = 0.005,
        **settings: Any,
    ) -> None:
        if control not in CONTROLS:
            raise ValueError(f"control '{control}': choose {', '.join(CONTROLS)}")
        if tolerance < 0:
            raise ValueError(f"tolerance {tolerance}: it must not be negative")
        super().__init__(schema, inputs, trunk, **settings)
        self.control, self.tolerance = control, tolerance
        self._begin()

    def _begin(self) -> None:
        names = [t.name for t in self.tasks]
        self.rate_names = [LANGUAGE_MODEL, TRUNK, *map(_head, names)]
        self.weight_names = [*map(_weight, names)]
        self.levels = dict.fromkeys([*self.rate_names, *self.weight_names], 1.0)  # relative to the start
        self.actions: list[Action] = []
        self.history: list[tuple[dict[str, float], bool]] = []  # after each epoch: levels, and whether SGD is at work
        self.pool: list[Action] = []
        self.schedule: list[tuple[dict[str, float], bool]] = []
        self.best = dict.fromkeys(names, 0.0)
        self.best_epoch = self.epoch = self.rising = self.calm = 0
        self.kept: dict[str, Tensor] = {}
        self.forget = False  # what the optimiser knows is of weights that are gone

    def on_start(self, train: Any) -> None:
        """The weights to go back to."""
        super().on_start(train)
        self._keep()

    def on_resume(self) -> None:
        """The optimiser that was at work."""
        self.optimizer = SGD if self.history and self.history[-1][1] else torch.optim.AdamW

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """Each group's rate times its level."""
        base = SGD_RATE if self.optimizer is SGD else 1.0
        level = {name: base * self.levels[name] for name in self.rate_names}
        heads = [(m.towers[t.name], t.name) for m in self.modules() if isinstance(m, Architecture) for t in m.tasks]
        return [
            (self.model, lr * level[TRUNK]),
            *((module, own * level[TRUNK]) for module, own in self.model.rates(lr)),
            *((module, lr * level[_head(name)]) for module, name in heads),
            *((tower.network, self.lm_lr * level[LANGUAGE_MODEL]) for tower in self.towers()),
        ]

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """An update; after a loss that is not finite another one from the best weights, at half the rates."""
        if self.forget:
            optimizer.state.clear()
            self.forget = False
        losses = super().step(batch, optimizer)
        if self.control != "metrics" or not self.kept or losses.isfinite().all() or self.levels[TRUNK] <= LOWEST:
            return losses
        before = dict(self.levels)
        for name in self.rate_names:
            self.levels[name] = max(LOWEST, SLOWER * self.levels[name])
        for group in optimizer.param_groups:
            group["initial_lr"], group["lr"] = SLOWER * group["initial_lr"], SLOWER * group["lr"]
        self.load_state_dict(self.kept)
        optimizer.state.clear()
        self._log(self.epoch + 1, {}, before, [self._went_back()], "a loss is not finite")
        return super().step(batch, optimizer)

    def on_meta(self, epoch: int, metrics: Mapping[str, float], skills: Mapping[str, float]) -> None:
        """Decides which levels change, from the metrics on meta-validation."""
        self.epoch, before, sgd = epoch, dict(self.levels), self.optimizer is SGD
        others: list[dict[str, Any]] = []
        read: Mapping[str, float] = {}
        if self.control == "replay":
            why = "the mean of the first trainings in this epoch"
            if self.schedule:
                self.levels, sgd = self.schedule[min(epoch, len(self.schedule)) - 1]
        else:
            read = metrics
            gains = {name: value - self.best[name] for name, value in skills.items()}
            action = self.judge(gains) if self.control == "metrics" else self.draw()
            self.actions.append(action)
            why, sgd = action.why, sgd != action.switch
            self.levels = self._moved(action.factors)
            if _mean(gains.values()) > 0:
                self.best |= skills
                self.best_epoch = epoch
                self._keep()
            if action.back:
                self.load_state_dict(self.kept)
                self.forget = True
                others.append(self._went_back())
        if sgd != (self.optimizer is SGD):
            names = ("AdamW", "SGD with momentum")
            others.append({"what": "optimizer", "from": names[not sgd], "to": names[sgd]})
            self.optimizer = SGD if sgd else torch.optim.AdamW
        self.get_buffer("weights").copy_(torch.tensor([self.levels[name] for name in self.weight_names]))
        self.history.append((dict(self.levels), sgd))
        self._log(epoch, read, before, others, why)

    def judge(self, gains: Mapping[str, float]) -> Action:
        """The rules, given each task's gain in skill over the best epoch so far."""
        mean = _mean(gains.values())
        if mean < -self.tolerance:
            self.rising = 0
            reason = f"mean skill is {-mean:.4f} below that of epoch {self.best_epoch}"
            return Action(dict.fromkeys(self.rate_names, SLOWER), back=True, why=reason)
        fallen = [name for name, gain in gains.items() if gain < -self.tolerance]
        risen = [name for name, gain in gains.items() if gain > self.tolerance]
        self.rising = self.rising + 1 if risen and len(risen) == len(gains) else 0
        self.calm = self.calm + 1 if mean <= self.tolerance else 0
        factors: dict[str, float] = {}
        why: list[str] = []
        if fallen:
            factors |= {_head(name): SLOWER for name in fallen} | {_weight(name): FASTER for name in fallen}
            why.append(f"skill of {', '.join(fallen)} fell")
        if fallen and risen:
            factors[LANGUAGE_MODEL] = SLOWER
            why.append(f"that of {', '.join(risen)} rose: they pull apart what they share")
        if self.rising >= 2:
            factors |= {LANGUAGE_MODEL: FASTER, TRUNK: FASTER}
            why.append(f"all skills rose {self.rising} times in a row")
        switch = self.calm >= PLATEAU
        if switch:
            why.append(f"mean skill has not risen for {self.calm} epochs")
            self.calm = 0
        return Action(factors, switch=switch, why="; ".join(why) or Action.why)

    def draw(self) -> Action:
        """What the controller did in one epoch of the first trainings, any of them with the same probability."""
        if not self.pool:
            return Action(why="there was no first training to draw from")
        drawn = self.pool[int(torch.randint(len(self.pool), ()))]
        return Action(drawn.factors, drawn.back, drawn.switch, f"drawn from {len(self.pool)} epochs")

    def pilots(self) -> Sequence[Method]:
        """For a control: copies with the controller at work."""
        if self.control == "metrics":
            return ()
        shared = {id(tower.states): tower.states for tower in self.towers()}  # read only, large
        copies = [copy.deepcopy(self, dict(shared)) for _ in range(PILOTS)]
        for copied in copies:
            copied.control = "metrics"
        return copies

    def on_pilots(self, trained: Sequence[Method]) -> None:
        """What they did, and the mean of their levels in each epoch; one that had stopped counts with its last."""
        first = cast(Sequence[Controller], trained)
        self.pool = [action for one in first for action in one.actions]
        for epoch in range(max(len(one.history) for one in first)):
            then = [one.history[min(epoch, len(one.history) - 1)] for one in first]
            levels = {name: math.exp(_mean(math.log(level[name]) for level, _ in then)) for name in self.levels}
            self.schedule.append((levels, _mean(sgd for _, sgd in then) > 0.5))

    def _moved(self, factors: Mapping[str, float]) -> dict[str, float]:
        levels = {k: min(HIGHEST, max(LOWEST, v * factors.get(k, 1.0))) for k, v in self.levels.items()}
        mean = _mean(levels[name] for name in self.weight_names)
        return {k: v / mean if k in self.weight_names else v for k, v in levels.items()}

    def _keep(self) -> None:
        self.kept = {k: v.detach().clone() for k, v in self.state_dict().items()}

    def _went_back(self) -> dict[str, Any]:
        return {"what": "model", "from": "the present weights", "to": f"those of epoch {self.best_epoch}"}

    def _log(
        self,
        epoch: int,
        read: Mapping[str, float],
        before: Mapping[str, float],
        others: Sequence[dict[str, Any]],
        why: str,
    ) -> None:
        moved = [
            {"what": name, "from": before[name], "to": level}
            for name, level in self.levels.items()
            if level != before[name]
        ]
        self.decisions.append({"epoch": epoch, "metrics": dict(read), "changes": [*moved, *others], "why": why})


def _head(task: str) -> str:
    return f"rate of head {task}"


def _weight(task: str) -> str:
    return f"weight of {task}"


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
