"""Which part of the stored results a leaderboard shows: data sets, methods, budgets, protocol and tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError
from bench.leaderboard.terms import BASELINE
from bench.spec.names import listed

if TYPE_CHECKING:
    from bench.leaderboard.grouping import Configuration, Group

FAMILIES = ("baselines", "methods", "references")
CLEAN = "clean-*"


@dataclass(frozen=True)
class Filter:
    """Patterns of names such as ``shared_*``, of which one must fit; what is not given lets everything pass.

    text: whether there is a language model. family: the folder of a method's file, or ``references`` for yardsticks;
    a file elsewhere is one of the ``methods``. budget: entries that it must have. protocol: ``clean-*`` if not given.
    """

    datasets: Sequence[str] = ()
    methods: Sequence[str] = ()
    family: str | None = None
    text: bool | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    tasks: Sequence[str] = ()

    def __str__(self) -> str:
        """What is asked for, in words; empty if nothing is."""
        words = {
            "data set": " or ".join(self.datasets),
            "method": " or ".join(self.methods),
            "family": self.family or "",
            "text": "" if self.text is None else "yes" if self.text else "no",
            "budget": listed(self.budget),
            "protocol": self.protocol or "",
            "task": " or ".join(self.tasks),
        }
        return "; ".join(f"{name} {word}" for name, word in words.items() if word)

    def chosen(self, groups: Sequence[Group]) -> list[Group]:
        """What passes. Raises BenchError, with what there is, if nothing does."""
        found = self.passing(groups)
        if found:
            return found
        if not self.protocol and not any(fnmatchcase(group.key["protocol"], CLEAN) for group in groups):
            others = f" ({', '.join(sorted({group.key['protocol'] for group in groups}))} only)" if groups else ""
            raise BenchError(f"no final records of a clean protocol{others}; run `bench run --suite quick` first")
        raise BenchError(f"no result fits {self}; there are {_there(groups)}")

    def passing(self, groups: Sequence[Group]) -> list[Group]:
        """The groups, rows and tasks that pass. Rows of the baseline stay in their groups, to compare with."""
        found = []
        for group in groups:
            families = _families([group])
            rows = {key for key, own in group.configurations.items() if self._takes(own, families[own.method])}
            tasks = not self.tasks or any(_fits(task.name, self.tasks) for task in group.tasks)
            if rows and tasks and self._of(group):
                kept = {k: own for k, own in group.configurations.items() if k in rows or own.method == BASELINE}
                found.append(replace(group, configurations=kept, only=tuple(self.tasks)))
        return found

    def _of(self, group: Group) -> bool:
        key = group.key
        clean = fnmatchcase(key["protocol"], self.protocol or CLEAN)
        return clean and _fits(key["dataset"], self.datasets) and self.budget.items() <= key["budget"].items()

    def _takes(self, own: Configuration, family: str) -> bool:
        text = own.settings["lm"] is not None
        return _fits(own.method, self.methods) and self.family in (None, family) and self.text in (None, text)


EVERYTHING = Filter()


def _fits(name: str, patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _families(groups: Iterable[Group]) -> dict[str, str]:
    """The family of each method."""
    baselines = registry.entries("baselines")
    return {
        own.method: "references" if own.reference else "baselines" if own.method in baselines else "methods"
        for group in groups
        for own in group.configurations.values()
    }


def _there(groups: Sequence[Group]) -> str:
    facts = {
        "data sets": {group.key["dataset"] for group in groups},
        "methods": {own.method for group in groups for own in group.configurations.values()},
        "families": set(_families(groups).values()),
        "budgets": {listed(group.key["budget"]) for group in groups},
        "protocols": {group.key["protocol"] for group in groups},
        "tasks": {task.name for group in groups for run in group.runs for task in run.tasks},
    }
    return "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in facts.items())
