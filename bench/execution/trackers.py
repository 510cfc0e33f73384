"""Runs in TensorBoard, Weights & Biases and MLflow while they train, through the trackers of accelerate."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, extra, in_one_line, missing
from bench.spec import Spec, canonical

if TYPE_CHECKING:
    import numpy as np
    from accelerate.tracking import GeneralTracker

    from bench.data.load import Data

PROJECT = "mlm-mtl-bench"
NAMES = ("tensorboard", "wandb", "mlflow")  # those of the packages too
# What the packages tell their makers on their own account.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
_reported: set[str] = set()


@dataclass(frozen=True)
class Tracking:
    """Which trackers hear of runs, and the folder they write to. Pickles, so that workers can have it."""

    names: tuple[str, ...] = ()
    folder: Path = Path("results/trackers")

    def check(self) -> None:
        """Sets up what runs then share. Raises BenchError if a package is missing or its tracker cannot be set up."""
        for name in self.names:
            if importlib.util.find_spec(name) is None:
                raise missing(f"the package of --tracker {name}", "trackers")
        if "mlflow" in self.names:  # else the first runs of several workers would all make the same tables
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    _mlflow_project(self.folder.resolve())
            except Exception as error:
                raise BenchError(f"--tracker mlflow: cannot be set up: {in_one_line(error)}") from error

    def run(self, spec: Spec, data: Data, **options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """``bench.execution.run.run``, which takes the options; the trackers are told its epochs and its result."""
        from bench.execution.run import run

        with ExitStack() as stack:
            logs = [stack.enter_context(_Log(name, self.folder.resolve(), spec)) for name in self.names]

            def each_epoch(entry: dict[str, Any], skill: float) -> None:
                series = {key: value for key, value in entry.items() if key != "epoch"}
                for log in logs:
                    log.write({**series, "skill": skill}, entry["epoch"])

            record, predictions = run(spec, data, **options, each_epoch=each_epoch)
            test = record["metrics"]["test"] if record["metrics"] else {}
            for log in logs:
                log.write({"test": test, "cost": record["cost"], "ok": int(record["status"] == "ok")}, None)
        return record, predictions


NO_TRACKERS = Tracking()


class _Log:
    """One run in one tracker. A tracker's error ends the log, not the run, and is told once a process."""

    def __init__(self, name: str, folder: Path, spec: Spec) -> None:
        self.name, self.folder, self.spec = name, folder, spec
        self.tracker: GeneralTracker | None = None

    def __enter__(self) -> _Log:
        self._try(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        if self.tracker is not None:
            self._try(self.tracker.finish)

    def write(self, values: Mapping[str, Any], step: int | None) -> None:
        """Logs the numbers in nested mappings, each under its path."""
        if self.tracker is not None:
            self._try(self.tracker.log, numbers(values), step)

    def _start(self) -> None:
        from accelerate import PartialState

        PartialState()  # accelerate's trackers ask it whether this process is the one that logs
        spec = self.spec
        self.tracker = _tracker(self.name, self.folder, f"{spec.dataset}/{spec.method}/{spec.seed}-{spec.key}")
        self.tracker.start()
        self.tracker.store_init_configuration(described(spec))

    def _try(self, do: Callable[..., object], *arguments: object) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the packages' about their own insides
                do(*arguments)
        except Exception as error:
            tracker, self.tracker = self.tracker, None
            if tracker is not None:
                with suppress(Exception):  # a run that is left open would be in the way of the next
                    tracker.finish()
            if self.name not in _reported:
                _reported.add(self.name)
                said = f"bench: tracker {self.name} failed, runs go on without it: {in_one_line(error)}"
                print(said, file=sys.stderr, flush=True)


def numbers(values: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """The numbers in nested mappings by path: ``test/click/auc``; no name has an @, which MLflow does not take."""
    found: dict[str, float] = {}
    for key, value in values.items():
        name = f"{path}{key}".replace("@", "_at_")
        if isinstance(value, Mapping):
            found |= numbers(value, f"{name}/")
        elif value is not None:
            found[name] = value
    return found


def described(spec: Spec) -> dict[str, bool | int | float | str]:
    """The spec as flat settings, such as ``config.lr``, with its key; lists, mappings and null as JSON."""
    found: dict[str, Any] = {"key": spec.key}
    for name, value in spec.to_dict().items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return {k: v if isinstance(v, (bool, int, float, str)) else canonical(v) for k, v in found.items()}


def _tracker(name: str, folder: Path, run: str) -> GeneralTracker:
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if name == "tensorboard":
        return TensorBoardTracker(run, folder / "tensorboard")
    if name == "wandb":
        with extra("trackers"):
            import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(console="off", silent=True, reinit="finish_previous")
        mode = os.environ.get("WANDB_MODE", "offline")
        return WandBTracker(PROJECT, name=run, dir=str(folder), mode=mode, settings=settings)
    _mlflow_project(folder)
    return MLflowTracker(PROJECT, run_name=run)


def _mlflow_project(folder: Path) -> None:
    """Where MLflow writes, unless the environment says: a database in the folder; made if it isn't there."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    with extra("trackers"):
        import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    elsewhere, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
    if elsewhere is not None:
        mlflow.set_tracking_uri(elsewhere)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # just set by MLflow: the next folder would be taken for the user's
        artifacts = (folder / "mlflow").as_uri()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=artifacts)
