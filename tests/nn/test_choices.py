"""The names of the settings are those that the blocks know."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.nn import augment
from bench.nn.features import INTERACTIONS
from bench.nn.norms import NORMS
from bench.spec import config

KNOWN = {
    "features": ("concat", *INTERACTIONS),
    "norm": ("none", *NORMS, "batch_fused"),
    "augment": ("none", *augment.HISTORY, "mixup", *augment.TEXT),
}


@pytest.mark.parametrize("setting", KNOWN)
def test_settings_name_what_there_is(setting: str) -> None:
    for name in KNOWN[setting]:
        assert config.resolve("shared_bottom", {setting: name})[0].get(setting, "none") == name
    with pytest.raises(BenchError, match=f"unknown value of '{setting}'") as caught:
        config.resolve("shared_bottom", {setting: "zzz"})
    assert str(caught.value).endswith(f"known: {', '.join(sorted(KNOWN[setting]))}")
