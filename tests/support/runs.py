"""Runs made in the process of a test."""

from __future__ import annotations

from typing import Any

import torch

from bench.data.load import Data, load
from bench.data.prepare import prepare
from bench.execution.job import Outcome
from bench.execution.run import run
from bench.spec import Spec


def data_of(spec: Spec) -> Data:
    """The prepared data of a spec."""
    return load(prepare(spec.dataset, spec.dataset_config))


def made(spec: Spec, **options: Any) -> Outcome:
    """The record of a run on the CPU, and its predictions."""
    return run(spec, data_of(spec), device=torch.device("cpu"), **options)
