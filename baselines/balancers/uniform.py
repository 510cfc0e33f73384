"""Uniform scalarisation: the plain sum of the task losses."""

from __future__ import annotations

from bench.api import Balancer


class Uniform(Balancer):
    """L = sum_t L_t."""
