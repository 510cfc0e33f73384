"""What decides the numbers of a run, its content key, and the seeds derived from named parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

CLEAN = "clean-1"  # the validation part chooses
PAPER = "paper-1"  # the test part chooses, as in some publications: for reproduction only, never on the leaderboard


def rounded(value: Any) -> Any:
    """The value with every float at 4 significant digits, so that tuned values have one spelling."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return value


_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces. Raises ValueError on NaN and infinities."""
    return _encoder.encode(value)


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hex digits of the sha256 of the value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def derive_seed(*parts: str | int) -> int:
    """A seed below 2^63 from named parts; other parts give unrelated seeds."""
    return int(digest(list(parts), 16), 16) >> 1


@dataclass(frozen=True)
class Spec:
    """All that decides a run's numbers and nothing about where they were made: no path, host, device or date."""

    dataset: str
    dataset_version: int
    dataset_config: dict[str, Any]
    method: str
    method_version: int
    parts: dict[str, int]  # versions of the components the config names, such as {"balancer": 1}
    config: dict[str, Any]
    lm: str | None
    seed: int
    budget: dict[str, int]
    protocol: str = CLEAN

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-able data, floats rounded."""
        return dict(rounded(asdict(self)))

    @property
    def key(self) -> str:
        """Content key, 16 hex digits: equal specs, and only those, share it."""
        return digest(self.to_dict())
