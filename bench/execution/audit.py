"""The audit of code: records whose numbers came from other code than is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.nn import features
from bench.spec import digest
from bench.storage.records import Store
from bench.training import loop


def method_digest(method: str, resolved: Mapping[str, Any]) -> str:
    """Digest of the code that a method's numbers come from. It audits; the declared versions decide."""
    files = {*registry.source_files(method), Path(loop.__file__), Path(features.__file__)}
    for key in resolved.keys() & {"balancer", "balancer.of"}:
        files |= {*registry.source_files(resolved[key], "balancer")}
    for key in resolved.keys() & {"trunk", "teacher", "teacher.trunk"}:
        files |= {*registry.source_files(resolved[key])}
    return digest(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


def stale_records(store: Store) -> Iterator[str]:
    """Records whose method's code has changed since, under an unchanged version: run again, or bump the version."""
    known = registry.methods()
    for record in store.records():
        spec = record["spec"]
        name, version = spec["method"], spec["method_version"]
        if name not in known or version != registry.load_method(name).version:
            continue
        if record["code"]["method_digest"] != method_digest(name, spec["config"]):
            yield f"{store.place(spec, record['key'])}: {name} version {version} had other code"
