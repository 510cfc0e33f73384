"""The contract refuses nonsense where it is written, and says what would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.api import Field, Task, Temporal
from bench.errors import BenchError

ANY: Any = str  # the type checker would refuse these, too


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task("x", "binaryy"), "task 'x': unknown kind 'binaryy'; did you mean 'binary'?"),
        (lambda: Task("x", "zz"), "task 'x': unknown kind 'zz'; known: binary, multiclass, regression, softmax"),
        (lambda: Task("x", "binary", scope=ANY("users")), "task 'x': unknown scope 'users'; did you mean 'user'?"),
        (
            lambda: Task("x", "regression", metric="rsme"),
            "task 'x': unknown metric of a regression task 'rsme'; did you mean 'rmse'?",
        ),
        (
            lambda: Task("x", "multiclass", metric="auc"),
            "unknown metric of a multiclass task 'auc'; known: log_loss",
        ),
        (lambda: Task("x", "binary", classes=("a", "b")), "task 'x': a binary task has no classes; leave them out"),
        (lambda: Task("x", "softmax", scope="user"), "task 'x': a softmax task compares rows; its scope can only be"),
        (lambda: Field("f", ANY("users")), "field 'f': unknown side 'users'; did you mean 'user'?"),
        (
            lambda: Field("f", "item", ANY("text")),
            "field 'f': unknown kind 'text'; known: categorical, id, numerical",
        ),
        (
            lambda: Temporal(0.5, 0.5),
            "temporal split: the shares valid 0.5 and test 0.5 must be above 0",
        ),
        (lambda: Temporal(0.1, 0.0), "temporal split: the shares valid 0.1 and test 0 must be above 0"),
        (lambda: Temporal(5, 5), "temporal split: the shares valid 5 and test 5"),
        (lambda: Temporal(5, 5, absolute=True), "temporal split: the test part starts at 5, not after valid \\(5\\)"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BenchError, match=message.replace("?", "\\?")):
        make()


def test_what_can_be_is_let_through() -> None:
    assert Task("x", "multiclass", scope="user").outputs == 0  # its classes may come from the files
    assert Task("x", "regression", metric="ndcg@10").metrics == ("ndcg@10", "rmse", "mae", "xauc")
    assert Temporal(0.2, 0.3) and Temporal(1, 2, absolute=True) and Field("f", "pair", "numerical")
