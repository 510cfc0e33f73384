"""Computes learning-rate schedules."""

from __future__ import annotations

import math


def rate(schedule: str, warmup: float, steps: int, step: int) -> float:
    """Returns the factor of the learning rate in batch ``step`` (0, 1, ...) of about ``steps``, if no epoch is saved.

    It rises in equal steps to 1 over the share ``warmup``; then it stays there (constant), falls to 0 in equal steps
    (linear) or along half a cosine (Loshchilov and Hutter, SGDR, ICLR 2017).
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    done = min((step - rising) / (steps - rising), 1.0)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]
