"""run(spec, data) -> record. An exception becomes a record with its status; it is never a number and never missing."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from bench.data.load import Data
from bench.errors import BenchError
from bench.execution.record import fault, times, without_result
from bench.machine.device import peak_mb, reset_peak
from bench.machine.processes import lost
from bench.nn import Gate
from bench.spec import Spec
from bench.training.build import declines
from bench.training.checkpoint import Checkpointer
from bench.training.loop import EachEpoch, Report
from bench.training.predict import predict
from bench.training.score import everything, score, whole
from bench.training.session import PROTOCOLS, trained


def run(
    spec: Spec,
    data: Data,
    *,
    device: torch.device,
    report: Report = lambda line: None,
    checkpoint: float = 0.0,
    each_epoch: EachEpoch = lambda entry, skill: None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains and evaluates. Returns the record, and the test predictions (empty unless the status is ok, and of a large
    test part).

    data: what the spec's data set was prepared to. checkpoint: minutes between two, 0 for none; to be removed by
    ``bench.training.checkpoint.discard`` when the record is stored. each_epoch: see ``trained``. Raises BenchError for
    what the user must mend; anything the method does wrong becomes the record's status.
    """
    start = datetime.now(UTC)
    reset_peak(device)
    record = without_result(spec, data, device)
    predictions: dict[str, np.ndarray] = {}
    belongs = {"data": data.meta["sha256"], "code": record["code"]["method_digest"], "device": device.type}
    checkpointer = Checkpointer(spec.key, checkpoint, belongs) if checkpoint else None
    try:
        reason = declines(spec.method, spec.config, data.schema)
        if reason:
            record |= {"status": "declined", "error": reason}
        else:
            done, predictions = _train(spec, data, device, report, checkpointer, each_epoch)
            record |= {"status": "ok", **done}
    except BenchError:  # a configuration that cannot be: the user's to mend, no result of the method
        raise
    except Exception as error:
        if lost(error):
            raise
        # Whatever a method does wrong must neither stop the suite nor go missing: it becomes the record's reason.
        record["status"], record["error"] = fault(error)
    return record | times(start), predictions


def stopped(
    spec: Spec, data: Data, status: str, error: str, start: datetime, *, device: torch.device
) -> dict[str, Any]:
    """The record of a run that was stopped from outside, at ``start`` begun, and could not write its own."""
    return without_result(spec, data, device) | {"status": status, "error": error} | times(start)


def _train(
    spec: Spec,
    data: Data,
    device: torch.device,
    report: Report,
    checkpointer: Checkpointer | None,
    each_epoch: EachEpoch,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    seen = PROTOCOLS[spec.protocol](data)
    method, result = trained(spec, seen, device, report, each_epoch=each_epoch, checkpointer=checkpointer)
    begin = time.perf_counter()
    predictions = predict(method, data.test)
    measured = everything(data.test, predictions)
    for part in data.extra:
        measured["slices"][part.name] = whole(part, predict(method, part))
    gates = {name: m for name, m in method.named_modules() if isinstance(m, Gate)}
    for gate in gates.values():
        gate.get_buffer("usage").zero_()  # what is recorded is of the validation part alone
    valid = score(data.valid, predict(method, data.valid))
    seconds = time.perf_counter() - begin
    parameters = list(method.parameters())
    cost = {
        "fit_s": round(result.seconds, 3),
        "eval_s": round(seconds, 3),
        "params": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "peak_mb": peak_mb(device),
        "rows_per_s": round(result.rows / result.seconds) if result.rows else None,
        "texts_encoded": sum(getattr(m, "texts_encoded", 0) for m in method.modules()),
        "tuning_trials": 0,
        "tuning_s": 0.0,
    }
    done = {
        "metrics": {"valid": valid, "test": measured["test"], "slices": measured["slices"]},
        "curve": result.curve,
        "best_epoch": result.best_epoch,
        "gates": {name: found for name, gate in gates.items() if (found := gate.utilisation())},
        "decisions": getattr(method, "decisions", []),
        "cost": cost,
    }
    return done, {name: values for name, values in predictions.items() if isinstance(values, np.ndarray)}
