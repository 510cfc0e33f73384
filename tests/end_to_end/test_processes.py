"""One run on two processes (gloo): what it trains and predicts is what one process does; how it ends if one fails."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.shared_bottom import SharedBottom
from bench import registry
from bench.api import Batch, Method
from bench.data.load import Data
from bench.errors import BenchError
from bench.execution.children import start_child
from bench.machine.processes import check, joined, rank, share
from bench.training.contract import make, small, tiny_language_model
from bench.training.loop import fit
from bench.training.predict import evaluate
from bench.training.recipe import Recipe
from bench.training.score import everything
from tests.support.command import SMALL, Bench

LIMIT = 300  # seconds; far from what it takes

# Nothing random. With plain SGD rounding stays rounding: Adam would make a step of full size of it.
SURE = {"id_dropout": 0.0}
TEXT = {**SURE, "layers": 1, "texts": 0, "lm_lr": 1.0, "trunk.dropout": 0.0}
WEIGHTS = {"click": 2.0, "rec": 0.5}
TRAINED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora": ("sim-news", "lora", {**TEXT, "balancer": "static", "balancer.weights": WEIGHTS}),
    "full": ("sim-news", "full", {**TEXT, "grad_clip": 0.5}),
    "mtl_lora": ("sim-news", "mtl_lora", TEXT),
    "lp_ft": ("sim-news", "lp_ft", {**TEXT, "probe": 1}),  # first epoch: frozen, but not computed beforehand
    "mmoe": ("sim-news", "mmoe", {**SURE, "dropout": 0.0, "balancer": "uncertainty"}),
    "shared_bottom": ("sim-news", "shared_bottom", {**SURE, "dropout": 0.0, "balancer": "famo"}),
    "escm2": ("sim-shop", "escm2", {**SURE, "dropout": 0.0}),
    "single groups": ("sim-news", "mmoe", {**SURE, "dropout": 0.0}),  # one process has nothing of a batch
}
TOLERANCE = 1e-6  # of a weight; measured: at most 5e-7

REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "method 'distill'": ("sim-news", "distill", {}),
    "method 'metaheac'": ("sim-news", "lora", {"trunk": "metaheac"}),
    "balancer 'pcgrad'": ("sim-news", "lora", {"balancer": "pcgrad"}),
    "balancer 'rlw'": ("sim-news", "frozen", {"balancer": "frozen_average", "balancer.of": "rlw"}),
    "BatchNorm": ("sim-news", "mmoe", {"norm": "batch"}),
}


def launched(*words: str) -> subprocess.CompletedProcess[str]:
    """Two processes, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    env = {**os.environ, "PYTHONPATH": str(registry.ROOT)}
    return subprocess.run(
        command, cwd=registry.ROOT, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def built(dataset: str, name: str, given: dict[str, Any]) -> tuple[Data, Method]:
    data = small(dataset)
    return data, make(name, data.schema, **given)


def trained(case: str) -> dict[str, Any]:
    """Two epochs: all weights, the curve, and predictions of the test part."""
    dataset, name, given = TRAINED[case]
    data, method = built(dataset, name, given)
    method.optimizer = torch.optim.SGD
    groups, batch_size = (8, 1) if case == "single groups" else (120, 150)
    train, _ = data.train.cut(groups)
    method.on_start(train)  # as fit does, once more: output biases are set, not learned
    start = {k: v.detach().clone() for k, v in method.named_parameters()}
    recipe = Recipe(0.2, 0.0, batch_size, epochs=2, patience=2, grad_clip=given.get("grad_clip", 0.0))
    result = fit(method, train, data.valid, recipe)
    return {
        "start": start,
        "weights": {k: v.detach() for k, v in method.named_parameters()},
        "curve": result.curve,
        "predictions": evaluate(method, data.test),
    }


def evaluated() -> dict[str, Any]:
    """Predictions and metrics of the same weights, and the number of texts that went through the language model."""
    data, method = built("sim-news", "full", TEXT)
    predictions = evaluate(method, data.test)
    (tower,) = (m for m in method.modules() if hasattr(m, "texts_encoded"))
    return {"predictions": predictions, "metrics": everything(data.test, predictions), "texts": tower.texts_encoded}


def refusals() -> dict[str, str]:
    found = {}
    for title, (dataset, name, given) in REFUSED.items():
        try:
            check(built(dataset, name, given)[1])
        except BenchError as error:
            found[title] = str(error)
    return found


def shares() -> dict[str, list[int]]:
    """Rows with a label in this process's part of each batch, by task."""
    data = small("sim-news")
    parts = [share(batch, data.schema.tasks) for batch in data.train.batches(150, torch.Generator().manual_seed(0))]
    return {t.name: [int((~p.labels[t.name].isnan()).sum()) for p in parts] for t in data.schema.tasks}


TEXTS = [case for case, (*_, given) in TRAINED.items() if given.keys() >= TEXT.keys()]


def work(folder: Path, place: dict[str, str], texts: bool) -> None:
    """What each of the two processes does, told by torchrun's variables which it is."""
    os.environ.update(place)
    os.dup2(os.open(folder / f"{place['RANK']}.out", os.O_WRONLY | os.O_CREAT), 1)
    torch.use_deterministic_algorithms(True)
    with joined(torch.device("cpu")):
        found: dict[str, Any] = {"trained": {case: trained(case) for case in TRAINED if (case in TEXTS) == texts}}
        found |= {"evaluated": evaluated(), "refused": refusals()} if texts else {"shares": shares()}
        torch.save(found, folder / f"{rank()}.pt")
        print("heard", flush=True)


def together(folder: Path, texts: bool) -> list[dict[str, Any]]:
    """What the two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    places = [{**group, "RANK": str(i), "LOCAL_RANK": str(i), "LOCAL_WORLD_SIZE": "2"} for i in range(2)]
    processes = [start_child(work, folder, place, texts) for place in places]
    for process in processes:
        process.join(LIMIT)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [(folder / f"{i}.out").read_text() for i in range(2)] == ["heard\n", ""]  # the other one is silent
    return [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(2)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Without a language model."""
    return together(tmp_path_factory.mktemp("both"), texts=False)


@pytest.fixture(scope="module")
def both_with_texts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """With one."""
    tiny_language_model()
    return together(tmp_path_factory.mktemp("both-with-texts"), texts=True)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in TEXTS)) for c in TRAINED])
def test_training_is_that_of_one_process(request: pytest.FixtureRequest, case: str) -> None:
    """The same global batches: all weights agree to rounding, and those of the two processes to the bit."""
    both: list[dict[str, Any]] = request.getfixturevalue("both_with_texts" if case in TEXTS else "both")
    torch.use_deterministic_algorithms(True)
    alone, (first, second) = trained(case), [found["trained"][case] for found in both]
    assert first["curve"] == second["curve"]
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
        assert torch.equal(first["start"][name], alone["start"][name]), name
    for name, value in alone["weights"].items():
        apart = (first["weights"][name] - value).abs()
        # Where rounding decides whether a ReLU opens for a row, that row's part of one unit's gradient is there or not.
        assert (apart > TOLERANCE).double().mean() < 0.01, name
        assert apart.max() < 10 * TOLERANCE, name
    moved = {n: (v - alone["start"][n]).abs().max().item() for n, v in alone["weights"].items()}
    assert max(moved.values()) > 10_000 * TOLERANCE
    assert max([v for n, v in moved.items() if ".tower.network." in n], default=1) > 200 * TOLERANCE
    for ours, theirs in zip(first["curve"], alone["curve"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5, abs=1e-6)
        assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-5)


def test_processes_have_unequal_numbers_of_labels(both: list[dict[str, Any]]) -> None:
    """So that a mean of means would be wrong; together they have all of each batch."""
    data, first, second = small("sim-news"), both[0]["shares"], both[1]["shares"]
    for name in ("read_time", "rec"):
        assert sum(a != b for a, b in zip(first[name], second[name], strict=True)) >= 5
    batches = [*data.train.batches(150, torch.Generator().manual_seed(0))]
    for name in first:
        known = [int((~b.labels[name].isnan()).sum()) for b in batches]
        assert [a + b for a, b in zip(first[name], second[name], strict=True)] == known


@pytest.mark.slow
def test_evaluation_is_that_of_one_process_to_the_bit(both_with_texts: list[dict[str, Any]]) -> None:
    """Of the same weights; the language model's work is shared out."""
    alone, found = evaluated(), [b["evaluated"] for b in both_with_texts]
    for one in found:
        assert one["metrics"] == alone["metrics"]
        for name, values in alone["predictions"].items():
            assert (one["predictions"][name] == values).all(), name
        assert 0 < one["texts"] < alone["texts"]
    assert sum(one["texts"] for one in found) == alone["texts"]


@pytest.mark.slow
def test_what_needs_whole_batches_is_refused(both_with_texts: list[dict[str, Any]]) -> None:
    for title in REFUSED:
        wanted = f"{title} needs whole batches, which several processes do not have: run it without torchrun, or choose"
        assert all(found["refused"][title].startswith(wanted) for found in both_with_texts), title
    assert refusals() == {}  # one process does


def test_who_declares_it() -> None:
    """An objective or update of one's own is refused unless it says that it may; docs/devices.md lists them."""

    class Own(SharedBottom):
        def losses(self, outputs: Any, batch: Batch) -> torch.Tensor:
            return super().losses(outputs, batch)

    class Below(Own):
        pass

    class Sure(Own):
        data_parallel = True

    assert [c.data_parallel for c in (SharedBottom, Own, Below, Sure)] == [True, False, False, True]
    text = (registry.ROOT / "docs" / "devices.md").read_text("utf-8")
    listed = set(re.findall(r"`([a-z_0-9]+)`", text.partition("## What is refused")[2].partition("\n## ")[0]))
    known = {"method": registry.methods(), "balancer": registry.entries("balancers")}
    classes = {n: registry.load_method(n) for n in known["method"]} | {
        n: registry.load_balancer(n) for n in known["balancer"]
    }
    refused = {name for name, cls in classes.items() if not cls.data_parallel}
    assert refused >= (listed & classes.keys()) - {"home"} and "home" in listed  # home has batch norms


@pytest.mark.slow
def test_from_the_command_line(bench: Bench, tmp_path: Path) -> None:
    """Two runs, the second one with an exception in one process: a record of each, an error, and no process left."""
    plugin = tmp_path / "breaks.py"
    plugin.write_text(
        "import torch\nfrom methods.lora import Lora\n\nclass Breaks(Lora):\n    def forward(self, batch):\n"
        "        if self.training and torch.distributed.get_rank() == 1:\n            raise RuntimeError('not today')\n"
        "        return super().forward(batch)\n"
    )
    given = [f"{k}={v}" for k, v in {**TEXT, "lm": cache_folder(), "batch_size": 150, "lr": 1e-3}.items()]
    words = ["run", "-d", "sim-news", *SMALL, "--epochs", "2", "--device", "cpu", "-m", "lora"]
    words += [w for pair in given for w in ("-s", pair)]
    bench(*words, "--workers", 1, "--results", tmp_path / "alone")
    more = ["--plugin", str(plugin), "-m", "breaks", "--results", str(tmp_path / "both")]
    done = launched("-m", "bench.cli", *words, *more)
    assert done.returncode != 0 and done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith(("[", "bench:"))]
    assert len([line for line in said if "sim-news lora seed 0: ok" in line]) == 1
    assert any("breaks seed 0: process 2 of 2 failed: RuntimeError: not today" in line for line in said), done.stderr

    def records(folder: str) -> dict[str, Any]:
        found = [json.loads(p.read_text("utf-8")) for p in (tmp_path / folder / "runs").glob("*/*/*.json")]
        return {r["spec"]["method"]: r for r in found}

    (alone,), found = records("alone").values(), records("both")
    assert found.keys() == {"lora", "breaks"} and found["breaks"]["status"] == "failed"
    assert "not today" in found["breaks"]["error"]
    ours = found["lora"]
    assert ours["key"] == alone["key"] and ours["env"]["processes"] == 2 and "processes" not in alone["env"]
    for a, b in zip(ours["curve"], alone["curve"], strict=True):  # by Adam
        assert a["loss"] == pytest.approx(b["loss"], rel=5e-3)
    for task, values in alone["metrics"]["test"].items():
        for name in ("rmse", "log_loss", "log_loss_multiclass"):
            if name in values:
                assert ours["metrics"]["test"][task][name] == pytest.approx(values[name], rel=5e-3), (task, name)


def cache_folder() -> Path:
    """The folder of the tiny language model."""
    from bench.text.models import locate

    return Path(locate(tiny_language_model()))
