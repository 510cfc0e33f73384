"""Predictions of a method on a split; it is given no labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bench.api import Method
from bench.data.tensors import Split
from bench.nn.norms import FusedLayer
from bench.storage.spill import Spilled
from bench.training.score import Predictions

EVALUATION_ROWS = 16384

# What such a batch has in the layers of a wide network is more than a processor's cache holds. For the other norms the
# number stays what it was at the first records: a product of another number of rows may round in another way.
FUSED_ROWS = 2048


def evaluate(method: Method, split: Split) -> dict[str, np.ndarray]:
    """Predictions of every task on a split: probabilities, values or scores. The method is given no labels."""
    collected: dict[str, list[Tensor]] = {t.name: [] for t in method.tasks}
    for predicted in _predicted(method, split):
        for name, values in predicted.items():
            collected[name].append(values)
    return {name: torch.cat(chunks).cpu().numpy() for name, chunks in collected.items()}  # a GPU is waited for once


def predict(method: Method, split: Split) -> Predictions:
    """Returns predictions to be scored: those of a large split are in files, which go with what is returned."""
    if not split.large:
        return evaluate(method, split)
    spilled = {t.name: Spilled() for t in method.tasks}
    for predicted in _predicted(method, split):
        for name, values in predicted.items():
            spilled[name].append(values.cpu().numpy())
    return spilled


@torch.inference_mode()
def _predicted(method: Method, split: Split) -> Iterator[dict[str, Tensor]]:
    method.eval()
    device = next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))
    fused = device.type == "cpu" and any(isinstance(m, FusedLayer) for m in method.modules())
    for batch in split.to(device).inputs(FUSED_ROWS if fused else EVALUATION_ROWS):
        outputs = method(batch)
        yield {t.name: t.traits.prediction(outputs[t.name]).float() for t in method.tasks}
