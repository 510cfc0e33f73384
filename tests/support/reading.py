"""Language models are read from their files once a test file, not by each method that is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from transformers import AutoModel

from bench.text.tokens import Tokens, tokenise


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Who loads a model gets a copy of it; who tokenises the same texts again, the same tokens."""
    load: Callable[..., Any] = cache(AutoModel.from_pretrained)
    tokens = cache(tokenise)

    def loaded(*args: Any, **kwargs: Any) -> Any:
        return copy.deepcopy(load(*args, **kwargs))

    def tokenised(texts: Sequence[str], model: str) -> Tokens:
        return tokens(tuple(texts), model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoModel, "from_pretrained", loaded)
        patch.setattr("bench.text.tower.tokenise", tokenised)
        yield
