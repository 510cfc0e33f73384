"""How the tasks of a trained method work on one another: measured in training and on validation rows, never on test."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api import Method
from bench.data.load import Data
from bench.data.tensors import Split
from bench.errors import BenchError, Diverged
from bench.explain.attribute import CHANGED, Masked, deletion, integrated_gradients, masked, rank_correlation, shuffled
from bench.explain.outputs import consistency, transparent
from bench.explain.watch import Watch, watched
from bench.nn import Gate
from bench.spec import Spec, derive_seed
from bench.training.build import declines
from bench.training.loop import Report
from bench.training.predict import evaluate
from bench.training.score import score
from bench.training.session import TrainingView, trained

ROWS = 128  # validation rows whose outputs are attributed
SHUFFLES = 3  # over which the check with shuffled weights is averaged


def explain(spec: Spec, data: Data, *, device: torch.device, report: Report = lambda line: None) -> dict[str, Any]:
    """Trains a run again, bit for bit, with measurements, and explains the model. Returns JSON-able data.

    data: what the spec's data set was prepared to. Raises BenchError where the method cannot work on it or diverges.
    """
    torch.set_num_threads(1)  # as every run has
    reason = declines(spec.method, spec.config, data.schema)
    if reason:
        raise BenchError(f"method '{spec.method}' cannot work on '{spec.dataset}': {reason}")
    watch = Watch()
    try:
        method, _ = trained(spec, TrainingView.of(data), device, report, partial(watched, watch=watch))
        report("explaining predictions on the validation part")
        found = on_validation(method, data.train, data.valid, spec.seed)
    except Diverged as error:
        raise BenchError(f"{spec.method} on {spec.dataset}, seed {spec.seed}: {error}; try a lower lr") from error
    tasks = [{"name": t.name, "kind": t.kind, "scope": t.scope, "space": t.space} for t in method.tasks]
    return {"key": spec.key, "spec": spec.to_dict(), "tasks": tasks, "training": watch.summary(), **found}


def on_validation(method: Method, train: Split, valid: Split, seed: int) -> dict[str, Any]:
    """All that is measured after training. ``train`` is read for the rules that its labels keep."""
    gates = {name: m for name, m in method.named_modules() if isinstance(m, Gate)}
    for gate in gates.values():
        gate.get_buffer("usage").zero_()
    predictions = evaluate(method, valid)
    return {
        "metrics": score(valid, predictions),
        "gates": {name: _mixture(gate) for name, gate in gates.items() if gate.utilisation()},
        "transparent": transparent(valid, predictions),
        "consistency": consistency(train, valid, predictions),
        "attribution": attributions(method, valid, seed),
    }


def _mixture(gate: Gate) -> dict[str, Any]:
    """``Gate.utilisation`` and the entropy of the mean weights, relative to that of equal weights (0 to 1)."""
    found = gate.utilisation()
    share = np.array(found["usage"])
    entropy = -np.sum(share * np.log(share, out=np.zeros_like(share), where=share > 0))
    return {**found, "entropy": float(entropy / np.log(len(share))) if len(share) > 1 else None}


def attributions(method: Method, valid: Split, seed: int) -> dict[str, Any] | None:
    """Integrated gradients of each task on ``ROWS`` rows, their agreement, and whether two sanity checks are passed.

    None where the method has no input layer that can be masked.
    """
    rng = np.random.default_rng(derive_seed("explain", seed))
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    chosen = np.sort(rng.choice(valid.rows, min(ROWS, valid.rows), replace=False))
    rows = torch.as_tensor(chosen, device=device)
    with masked(method, valid.to(device)) as model:
        if not model.names:
            return None
        found, gaps = _attributed(model, rows)
        tests = {t.name: deletion(model.output(t), rows, found[t.name], model.seen[t.name], rng) for t in method.tasks}
        random = []
        for i in range(SHUFFLES):
            with shuffled(method, torch.Generator().manual_seed(derive_seed("shuffled", seed, i))):
                random.append(_attributed(model, rows)[0])
        seen = model.seen
    tasks = {}
    for name, values in found.items():
        size = np.abs(values).mean(axis=0)
        pairs = (rank_correlation(values[:, seen[name]], other[name][:, seen[name]]) for other in random)
        same = [c for c in pairs if c is not None]
        mean = float(np.mean(same)) if same else None
        tasks[name] = {
            "share": (size / size.sum() if size.sum() > 0 else size).tolist(),
            "signed": values.mean(axis=0).tolist(),
            "gap": gaps[name],
            "deletion": tests[name],
            "shuffled": {"correlation": mean, "passed": None if mean is None else mean < CHANGED},
        }
    agreement = []
    for a, b in combinations(found, 2):
        both = seen[a] & seen[b]
        sizes = (np.abs(found[name][:, both]) for name in (a, b))
        agreement.append({"tasks": [a, b], "correlation": rank_correlation(*sizes)})
    return {"rows": len(rows), "inputs": model.names, "tasks": tasks, "agreement": agreement}


def _attributed(model: Masked, rows: Tensor) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    found = {t.name: integrated_gradients(model.output(t), rows, len(model.names)) for t in model.method.tasks}
    return {k: v for k, (v, _) in found.items()}, {k: gap for k, (_, gap) in found.items()}
