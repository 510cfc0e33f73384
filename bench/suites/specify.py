"""From what a user says to the full spec of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import registry
from bench.data.prepare import configured
from bench.spec import Spec, config

BUDGET = {"epochs": 20, "patience": 3}


def specify(
    dataset: str,
    method: str,
    *,
    given: Mapping[str, Any] | None = None,
    knobs: Mapping[str, Any] | None = None,
    seed: int = 0,
    budget: Mapping[str, int] | None = None,
) -> Spec:
    """The full spec of a run from what a user says. Raises BenchError for unknown names and bad values."""
    from bench.text.models import identity

    data, resolved_knobs = configured(dataset, knobs or {})
    cls = registry.load_method(method)
    resolved, parts = config.resolve(method, given or {})
    for key in resolved.keys() & {"lm", "teacher.lm"}:
        resolved[key] = identity(resolved[key])
    return Spec(
        dataset=dataset,
        dataset_version=data.version,
        dataset_config=resolved_knobs,
        method=method,
        method_version=cls.version,
        parts=parts,
        config=resolved,
        lm=resolved.get("lm"),
        seed=seed,
        budget={**BUDGET, **(budget or {})},
    )
