"""Where a training step's time goes: the engine's own loop on a part of the data, under torch.profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as profiler

from bench.api import Batch, Method
from bench.data.load import Data
from bench.data.tensors import Split
from bench.spec import Spec
from bench.training.build import declines
from bench.training.session import TrainingView, trained

STEPS, OPERATORS = 20, 15
OPTIMIZER = "Optimizer.step"
PHASES = ("batch", "forward", "losses", "backward", "optimizer", "evaluation")


def profile(spec: Spec, data: Data, device: torch.device, trace: Path | None = None) -> str:
    """Trains afresh on the first groups, about ``STEPS`` batches, twice over: once to warm up, once measured, with the
    evaluation after it. Returns tables by phase and by operator; keeps nothing. trace: where to write a Chrome trace.
    """
    title = f"{spec.method} on {spec.dataset}"
    if reason := declines(spec.method, spec.config, data.schema):
        return f"{title}: declined, {reason}"
    torch.set_num_threads(1)
    rows = min(STEPS * spec.config["batch_size"], data.train.rows)
    train = data.train.cut(int(torch.searchsorted(data.train.start, rows)))[0]
    # Another checksum, so that a teacher trained on the part is not taken for one trained on all.
    seen = TrainingView(
        data.schema, _Named.of(train), _Named.of(data.valid), {"sha256": f"{data.meta['sha256']} profiled"}
    )
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    measured = profiler(activities=activities, acc_events=True)
    clock: list[float] = []

    def each_epoch(entry: Mapping[str, Any], _: float) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock.append(perf_counter())
        if entry["epoch"] == 1:
            measured.start()
            clock[0] = perf_counter()
        else:
            measured.stop()

    short = replace(spec, budget={"epochs": 2, "patience": 2})
    trained(short, seen, device, watch=_watch, each_epoch=each_epoch)
    if not clock:
        return f"{title}: nothing is trained step by step"
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        measured.export_chrome_trace(str(trace))
    return f"{title}: {_tables(measured, 1e6 * (clock[1] - clock[0]), spec.config['batch_size'], data.valid.rows)}"


class _Named(Split):
    """A split that says when it makes a batch."""

    @classmethod
    def of(cls, split: Split) -> _Named:
        return cls(**{f.name: getattr(split, f.name) for f in fields(split)})

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        return _each("batch", super().batches(size, generator))

    def inputs(self, size: int) -> Iterator[Batch]:
        return _each("evaluation", super().inputs(size))


def _each(name: str, batches: Iterator[Batch]) -> Iterator[Batch]:
    while True:
        with record_function(name):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _watch(method: Method) -> AbstractContextManager[None]:
    """From now on the method says which of its verbs is at work; its copies do, too."""
    cls = type(method)

    def named(verb: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(self: Method, *args: Any) -> Any:
            with record_function(name if self.training else "evaluation"):
                return verb(self, *args)

        return call

    members: dict[str, Any] = {name: named(getattr(cls, name), name) for name in ("forward", "losses", "backward")}
    members |= {"__module__": cls.__module__, "data_parallel": cls.data_parallel}
    method.__class__ = cast(Any, type(cls.__name__, (cls,), members))
    return nullcontext()


def _tables(measured: profiler, window: float, batch_size: int, evaluated: int) -> str:
    """window: microseconds from start to stop."""
    phases: defaultdict[str, float] = defaultdict(float)
    on_device: defaultdict[str, float] = defaultdict(float)
    batches = 0
    operators: list[tuple[str, float, int]] = []
    for event in measured.key_averages():
        name = "optimizer" if event.key.startswith(OPTIMIZER) else event.key
        if name in PHASES:
            phases[name] += event.cpu_time_total
            batches += event.count if name == "batch" else 0
        elif event.self_cpu_time_total > 0:
            operators.append((event.key, event.self_cpu_time_total, event.count))
        if event.self_device_time_total > 0 and name not in PHASES:
            on_device[event.key] += event.self_device_time_total
    steps = max(1, batches - 1)  # the last call finds that there is none
    phases["everything else"] = max(0.0, window - sum(phases.values()))
    lines = [
        f"{steps} steps of about {batch_size} rows, then evaluation of {evaluated}; {window / 1e3:.1f} ms, profiled",
        "",
        f"{'phase':<40}{'ms a step':>12}{'share':>9}",
        *(_row(name, phases[name], steps, window) for name in (*PHASES, "everything else")),
        "",
        f"{'operator, without those within':<40}{'ms a step':>12}{'share':>9}{'calls a step':>14}",
    ]
    operators.sort(key=lambda o: -o[1])
    lines += [f"{_row(n, t, steps, window)}{count / steps:>14.1f}" for n, t, count in operators[:OPERATORS]]
    if on_device:
        lines += ["", f"{'on the GPU':<40}{'ms a step':>12}{'share':>9}"]
        lines += [
            _row(name, t, steps, window) for name, t in sorted(on_device.items(), key=lambda k: -k[1])[:OPERATORS]
        ]
    return "\n".join(lines)


def _row(name: str, time: float, steps: int, window: float) -> str:
    return f"{name[:39]:<40}{time / steps / 1e3:>12.3f}{time / window:>9.1%}"
