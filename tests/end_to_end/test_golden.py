"""Golden runs: three published runs made again. They clear a change of code that leaves every number as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import registry
from bench.machine.provenance import environment
from bench.spec import Spec
from bench.storage.records import Store
from tests.support.runs import made

pytestmark = pytest.mark.slow

# Cheap ones: a shared-bottom and an mmoe on simulated news, and one on real data.
GOLDEN = ("3d98e74c5d30e41c", "1782b49a2c61d001", "c3547e76fafe8409")
# Another processor rounds otherwise, and another epoch may be best: .0025 was measured between two kinds.
ROUNDING = 1e-2
SAME_BITS = ("python", "torch", "numpy", "system", "device", "hardware", "instructions")


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Any]]:
    store: Store = Store(registry.ROOT / "results" / "reference")
    return {record["key"]: record for record in store.records() if record["key"] in GOLDEN}


@pytest.mark.parametrize("key", GOLDEN)
def test_a_published_run_again(published: dict[str, dict[str, Any]], key: str) -> None:
    """To the bit where processor, instructions and packages are the same, else within ``ROUNDING``. Older records name
    no instructions."""
    stored, spec = published[key], Spec(**published[key]["spec"])
    assert spec.key == key
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        record, _ = made(spec)
    finally:
        torch.set_num_threads(threads)
    assert record["status"] == stored["status"] == "ok", record["error"]
    assert record["data"] == stored["data"]
    here = environment(torch.device("cpu"))
    if all(here[name] == stored["env"].get(name) for name in SAME_BITS):
        assert record["metrics"] == stored["metrics"]
        return
    for part in ("valid", "test"):
        for task, values in stored["metrics"][part].items():
            for name, value in values.items():
                assert record["metrics"][part][task][name] == pytest.approx(value, abs=ROUNDING), (part, task, name)
