"""Methods of which `make slow` alone shows what their like shows at every commit."""

from __future__ import annotations

# They differ from LoRA in what they adapt alone: all that trains and keeps them is its.
LIKE_LORA = frozenset({"bitfit", "dora", "ia3", "ln_tuning", "prefix", "prompt", "vera"})
