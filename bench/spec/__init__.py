"""What decides the numbers of a run: its spec, content key and seeds."""

from bench.spec.key import CLEAN, PAPER, Spec, canonical, derive_seed, digest, rounded
