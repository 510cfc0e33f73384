"""Trackers hear what the record holds, change no number, and never stop a run; read back with each package's reader."""

from __future__ import annotations

import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.execution import trackers
from tests.support.command import SMALL, Bench

NAMES = trackers.NAMES
ALL = [word for name in NAMES for word in ("--tracker", name)]
RUN = ("run", "-d", "sim-news", "-m", "shared_bottom", *SMALL, "-s", "balancer=dwa", "--epochs", 2)


@pytest.fixture(scope="module", autouse=True)
def local() -> Iterator[None]:
    """Trackers write to folders alone, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        for key in [k for k in os.environ if k.startswith(("WANDB_", "MLFLOW_"))]:
            patch.delenv(key)
        patch.setenv("WANDB_MODE", "offline")
        for key, value in trackers.QUIET.items():
            patch.setenv(key, value)
        yield


@pytest.fixture(scope="module")
def tracked(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The record of a run with all trackers, and the folder that they wrote to."""
    results = tmp_path_factory.mktemp("tracked")
    done = bench(*RUN, *ALL, "--workers", 1, "--results", results, "--json")
    assert "tracker" not in done.stderr
    (record,) = json.loads(done.stdout)
    return record, results / "trackers"


def series_of(record: dict[str, Any]) -> dict[str, list[float]]:
    """What each tracker should have for each epoch, from the record's curve."""
    return {
        f"{part}/{task}": [entry[part][task] for entry in record["curve"]]
        for part in ("loss", "valid", "weights")
        for task, first in record["curve"][0][part].items()
        if first is not None
    }


def ends_of(record: dict[str, Any]) -> dict[str, float]:
    test = {
        f"test/{task}/{metric.replace('@', '_at_')}": value
        for task, found in record["metrics"]["test"].items()
        for metric, value in found.items()
    }
    cost = {f"cost/{key}": value for key, value in record["cost"].items()}
    return {k: v for k, v in (test | cost).items() if v is not None} | {"ok": 1.0}


def test_trackers_change_no_number(
    bench: Bench, tracked: tuple[dict[str, Any], Path], tmp_path: Path, records: Callable[[Path], dict[str, Any]]
) -> None:
    bench(*RUN, "--workers", 1, "--results", tmp_path)
    assert records(tmp_path) == records(tracked[1].parent)
    assert not (tmp_path / "trackers").exists()


def test_tensorboard(tracked: tuple[dict[str, Any], Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, folder = tracked
    run = folder / "tensorboard" / "sim-news" / "shared_bottom" / f"0-{record['key']}"
    read = EventAccumulator(str(run)).Reload()
    for name, values in series_of(record).items():
        events = read.Scalars(name)
        assert [e.step for e in events] == [1, 2]
        assert [e.value for e in events] == pytest.approx(values, rel=1e-6)
    assert [e.step for e in read.Scalars("skill")] == [1, 2]
    for name, value in ends_of(record).items():
        (event,) = read.Scalars(name)
        assert event.value == pytest.approx(value, rel=1e-6)
    (settings,) = run.glob("*/hparams.yml")
    assert f"key: {record['key']}\n" in settings.read_text() and "config.balancer: dwa\n" in settings.read_text()


def test_mlflow(tracked: tuple[dict[str, Any], Path]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy")  # of SQLAlchemy, about MLflow's tables
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tracked[1] / 'mlflow.db'}")
        (project,) = client.search_experiments(filter_string=f"name = '{trackers.PROJECT}'")
        (run,) = client.search_runs([project.experiment_id])
        record = tracked[0]
        assert run.info.run_name == f"sim-news/shared_bottom/0-{record['key']}" and run.info.status == "FINISHED"
        assert run.data.params["config.balancer"] == "dwa"
        assert float(run.data.params["config.lr"]) == record["spec"]["config"]["lr"]
        for name, values in series_of(record).items():
            history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)
            assert [(m.step, m.value) for m in history] == list(enumerate(values, 1))
        assert {name: run.data.metrics[name] for name in ends_of(record)} == ends_of(record)


def offline(data: bytes) -> Iterator[bytes]:
    """What an offline run's file holds: after 7 bytes, LevelDB's log format, whose blocks of 32 KiB count from 0."""
    assert data.startswith(b":W&B")
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits there
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)  # checksum, bytes, 1 whole or 2 first, 3 middle, 4 last
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb(tracked: tuple[dict[str, Any], Path]) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    record, folder = tracked
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    history, settings, name = [], {}, ""
    for data in offline(path.read_bytes()):
        item = Record.FromString(data)
        if item.HasField("run"):
            name = item.run.display_name
        if item.HasField("run") or item.HasField("config"):
            updates = [*item.run.config.update, *item.config.update]
            settings |= {u.key or ".".join(u.nested_key): json.loads(u.value_json) for u in updates}
        if item.HasField("history"):
            history.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in item.history.item})
    assert name == f"sim-news/shared_bottom/0-{record['key']}"
    assert settings["key"] == record["key"] and settings["config.balancer"] == "dwa"
    assert [h["_step"] for h in history] == [1, 2]
    for key, values in series_of(record).items():
        assert [h[key] for h in history] == values
    assert {key: history[-1][key] for key in ends_of(record)} == ends_of(record)  # the end is in the last epoch's row


ONE_WORKER = ("--workers", 1, "--time-limit", 600)  # a process of its own, since it may have to be stopped


def test_in_a_worker(bench: Bench, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("run", "-d", "sim-news", "-m", "mf", "-m", "popularity", *SMALL, "--epochs", 1)
    found = json.loads(bench(*words, "--tracker", "tensorboard", *ONE_WORKER, "--results", tmp_path, "--json").stdout)
    for record in found:
        method, key = record["spec"]["method"], record["key"]
        read = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / "sim-news" / method / f"0-{key}")).Reload()
        assert {name: read.Scalars(name)[0].value for name in ends_of(record)} == pytest.approx(ends_of(record))
        assert [e.step for e in read.Scalars("skill")] == [1] if record["curve"] else "skill" not in read.Tags()


def test_a_failing_tracker_is_told_once_and_stops_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.tracking import TensorBoardTracker

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk\nfull")

    monkeypatch.setattr(TensorBoardTracker, "log", fail)
    monkeypatch.setattr(trackers, "_reported", set())
    words = (*RUN[:-1], 1, "--seeds", 2, "--tracker", "tensorboard", "--workers", 1, "--results", tmp_path)
    done = bench(*words, "--json")
    assert [r["status"] for r in json.loads(done.stdout)] == ["ok", "ok"]
    said = [line for line in done.stderr.splitlines() if "tracker" in line]
    assert said == ["bench: tracker tensorboard failed, runs go on without it: OSError: disk full"]


def test_a_run_without_result(bench: Bench, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("run", "-d", "sim-news", "-m", "esmm", *SMALL, "--tracker", "tensorboard", "--workers", 1)
    (record,) = json.loads(bench(*words, "--results", tmp_path, "--json").stdout)
    assert record["status"] == "declined"
    (path,) = (tmp_path / "trackers" / "tensorboard" / "sim-news" / "esmm").iterdir()
    read = EventAccumulator(str(path)).Reload()
    assert read.Tags()["scalars"] == ["ok"] and read.Scalars("ok")[0].value == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_told_before_any_run(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    said = refused(*RUN, "--tracker", name, "--results", tmp_path)
    assert said == f"the package of --tracker {name} is not installed; pip install 'mlm-mtl-bench[trackers]' adds it"
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_mlflow_that_cannot_be_set_up(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    said = refused(*RUN, "--tracker", "mlflow", "--results", tmp_path)
    assert said.startswith("--tracker mlflow: cannot be set up: ")
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_an_unknown_tracker(bench: Bench) -> None:
    assert "'tensorboard', 'wandb', 'mlflow'" in bench(*RUN, "--tracker", "comet", code=2).stderr
