"""From tables to splits: the split rule, encoders fitted on train only, layout, batches, leak checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data import describe, prepare
from bench.data.encode import Encoded, check, encode
from bench.data.load import Data, load
from bench.data.split import assign
from bench.errors import BenchError
from bench.storage import cache


class Toy(Dataset):
    """Ten groups at times 0..9, two rows each."""

    tasks = (
        Task("click", "binary"),
        Task("time", "regression", space="clicked rows"),
        Task("topic", "multiclass", scope="user", classes=("a", "b")),
    )
    fields = (
        Field("user", "user", "id"),
        Field("age", "user", "numerical"),
        Field("item", "item", "id"),
        Field("brand", "item"),
        Field("price", "item", "numerical"),
        Field("slot", "pair"),
    )
    forbidden = ("time",)
    history = 3
    split = Temporal(0.2, 0.2)


def tables() -> Tables:
    n = 10
    groups = pl.DataFrame(
        {
            "group": range(n),
            "user": [f"u{i % 4}" if i < 8 else f"new{i}" for i in range(n)],
            "time": range(n),
            "history": [[f"i{j}" for j in range(i)] for i in range(n)],
            "history_time": [None, *range(n - 1)],
            "topic": ["a", "b"] * 4 + ["a", None],
        }
    )
    rows = pl.DataFrame(
        {
            "group": [g for g in range(n) for _ in range(2)],
            "item": [f"i{(g + k) % 9}" if g < 8 else f"i{9 + k}" for g in range(n) for k in range(2)],
            "slot": [k for _ in range(n) for k in range(2)],
            "click": [1.0, 0.0] * n,
            "time": [2.0, None] * n,
        }
    )
    items = pl.DataFrame(
        {
            "item": [f"i{i}" for i in range(11)],
            "brand": ["x", "y"] * 5 + ["z"],
            "price": [float(i) for i in range(11)],
            "text": ["t"] * 10 + [None],
        }
    )
    users = pl.DataFrame({"user": ["u0", "u1", "u2", "u3", "new8", "new9"], "age": [1.0, 2.0, 3.0, None, 50.0, 60.0]})
    return Tables(groups, rows, items, users)


@pytest.fixture(scope="module")
def toy() -> Encoded:
    return encode(Toy(), tables())


def test_parts_follow_time(toy: Encoded) -> None:
    assert {name: part["groups"] for name, part in toy.parts.items()} == {"train": 6, "valid": 2, "test": 2}
    assert toy.purged == 0


def test_codes_know_only_the_training_part(toy: Encoded) -> None:
    assert toy.cardinality == {"user": 5, "item": 8, "brand": 3, "slot": 3}  # i0..i6 were shown or in a history
    assert toy.arrays["train/user_cat"][:, 0].tolist() == [1, 2, 3, 4, 1, 2]
    assert toy.arrays["test/user_cat"][:, 0].tolist() == [0, 0]
    assert toy.arrays["items/cat"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0]
    assert toy.arrays["items/cat"][11, 1] == 0  # brand z is on an unseen item only
    assert toy.arrays["items/cat"][10, 1] == 2  # an unseen item keeps a brand that is known
    assert toy.arrays["test/cold_item"].all() and not toy.arrays["train/cold_item"].any()
    assert toy.arrays["test/cold_user"].all() and not toy.arrays["valid/cold_user"].any()


def test_scalers_know_only_the_training_part(toy: Encoded) -> None:
    age = np.array([1.0, 2.0, 3.0, 1.0, 2.0])  # the users of groups 0..5 whose age is known
    wanted = (np.array([1, 2, 3, age.mean(), 1, 2]) - age.mean()) / age.std()
    np.testing.assert_allclose(toy.arrays["train/user_num"][:, 0], wanted, rtol=1e-6)
    price = np.arange(7.0)
    np.testing.assert_allclose(toy.arrays["items/num"][1:, 0], (np.arange(11) - price.mean()) / price.std(), rtol=1e-6)


def test_labels_are_nan_where_undefined(toy: Encoded) -> None:
    np.testing.assert_array_equal(toy.arrays["valid/label/time"], [2.0, np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(toy.arrays["test/label/topic"], [0.0, np.nan])


def test_histories_are_the_latest_padded_in_front(toy: Encoded) -> None:
    assert toy.arrays["train/history"].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_items_that_the_table_lacks_survive_in_histories_as_unknown() -> None:
    given_ = tables()
    history = [["gone", "i0"] if i == 3 else h for i, h in enumerate(given_.groups["history"].to_list())]
    given_.groups = given_.groups.with_columns(pl.Series("history", history))
    assert encode(Toy(), given_).arrays["train/history"][3].tolist() == [0, 0, 1]


def test_outcomes_known_too_late_are_purged() -> None:
    given_ = tables()
    given_.groups = given_.groups.with_columns((pl.col("time") + 1.5).alias("known"))
    encoded = encode(Toy(), given_)
    assert {name: part["groups"] for name, part in encoded.parts.items()} == {"train": 5, "valid": 1, "test": 2}
    assert encoded.purged == 4


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=12, max_size=60),
    st.sampled_from([0.1, 0.2, 0.3]),
)
def test_the_split_never_divides_a_moment(moments: list[tuple[int, int]], share: float) -> None:
    groups = pl.DataFrame({"time": [float(t) for t, _ in moments]})
    sizes = np.array([s for _, s in moments])
    try:
        part = assign(groups, sizes, Temporal(share, share))
    except BenchError:
        return  # too few different times for three parts
    times = {name: groups["time"].filter(part == name) for name in ("train", "valid", "test")}
    assert times["train"].max() < times["valid"].min() <= times["valid"].max() < times["test"].min()


def test_too_few_moments_say_so() -> None:
    with pytest.raises(BenchError, match="leaves no"):
        assign(pl.DataFrame({"time": [1.0, 1.0]}), np.array([1, 1]), Temporal())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: setattr(t, "rows", t.rows.drop("click")), "label column 'click' is missing from the rows table"),
        (lambda t: setattr(t, "items", t.items.drop("brand")), "item-side field 'brand' is in no table"),
        (lambda t: setattr(t, "items", pl.concat([t.items, t.items])), "items table: column 'item' has duplicates"),
        (lambda t: setattr(t, "items", t.items.head(3)), "is not in the items table"),
        (lambda t: setattr(t, "users", t.users.head(2)), "is not in the users table"),
        (lambda t: setattr(t, "groups", t.groups.with_columns(history_time="time")), "reach the group's own time"),
        (lambda t: setattr(t, "groups", t.groups.with_columns(topic=pl.lit("c"))), "'c' is not among its classes"),
    ],
)  # fmt: skip
def test_tables_out_of_form(change: object, message: str) -> None:
    given_ = tables()
    change(given_)
    with pytest.raises(BenchError, match=message):
        encode(Toy(), given_)


def test_an_outcome_may_not_be_a_field() -> None:
    class Leaky(Toy):
        fields = (*Toy.fields, Field("time", "pair", "numerical"))

    with pytest.raises(BenchError, match="'time' is an outcome"):
        check(Leaky(), tables())


@pytest.fixture(scope="module")
def loaded() -> Data:
    return load(prepare.prepare("sim-news", {"users": 60, "items": 100, "groups": 300}))


def test_an_epoch_has_every_row_once_in_whole_groups(loaded: Data) -> None:
    train = loaded.train
    rows, groups = [], 0
    for batch in train.batches(64, torch.Generator().manual_seed(3)):
        assert 64 - 10 < len(batch.item) < 64 + 10 or groups + len(batch.user_cat) == train.groups
        assert batch.group.tolist() == sorted(batch.group.tolist())
        assert int(batch.group[-1]) + 1 == len(batch.user_cat) == len(batch.labels["interest"])
        for g in range(len(batch.user_cat)):  # the rows of a group come with their own group's history
            mine = batch.group == g
            rows.append((batch.history[g].tolist(), batch.item[mine].tolist(), batch.labels["click"][mine].tolist()))
        groups += len(batch.user_cat)
    stored = [
        (train.history[g].tolist(), train.item[a:b].tolist(), train.labels["click"][a:b].tolist())
        for g, (a, b) in enumerate(zip(train.start[:-1].tolist(), train.start[1:].tolist(), strict=True))
    ]
    assert sorted(rows) == sorted(stored)


def test_batches_are_a_function_of_the_generator(loaded: Data) -> None:
    def order(seed: int) -> list[int]:
        return [i for b in loaded.train.batches(64, torch.Generator().manual_seed(seed)) for i in b.item.tolist()]

    assert order(1) == order(1) != order(2)


def test_evaluation_batches_have_no_labels_and_copy_nothing(loaded: Data) -> None:
    batches = list(loaded.test.inputs(70))
    assert all(not b.labels for b in batches)
    assert torch.equal(torch.cat([b.item for b in batches]), loaded.test.item)
    assert batches[1].item.untyped_storage().data_ptr() == loaded.test.item.untyped_storage().data_ptr()
    assert not hasattr(batches[0], "truth")


def test_preparing_twice_finds_the_first(loaded: Data) -> None:
    again = prepare.prepare("sim-news", {"users": 60, "items": 100, "groups": 300})
    assert again == loaded.folder
    other = prepare.prepare("sim-news", {"users": 60, "items": 100, "groups": 300, "seed": 1})
    assert other != loaded.folder
    assert load(other).meta["sha256"] != loaded.meta["sha256"]


def test_verify_finds_nothing_wrong_with_good_data(loaded: Data) -> None:
    dataset, _ = prepare.configured("sim-news", {})
    assert [problem for _, problem in describe.verify(dataset, loaded) if problem] == []


def test_verify_sees_a_label_among_the_inputs(loaded: Data) -> None:
    dataset, _ = prepare.configured("sim-news", {})
    leaky = loaded.train.labels["click"].reshape(-1, 1) * 2.0 - 0.3
    train = replace(loaded.train, pair_num=leaky)
    found = [p for _, p in describe.verify(dataset, replace(loaded, train=train)) if p]
    assert len(found) == 1
    assert "pair field 0 ranks 'click' with AUC 1.0000" in found[0]


def test_verify_sees_codes_that_training_lacks(loaded: Data) -> None:
    dataset, _ = prepare.configured("sim-news", {})
    test = replace(loaded.test, user_cat=loaded.test.user_cat + 1000)
    found = [p for _, p in describe.verify(dataset, replace(loaded, test=test)) if p]
    assert any("test has codes in user_cat" in p for p in found)


def test_an_interrupted_folder_never_appears(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(KeyboardInterrupt), cache.new_folder(target) as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with cache.new_folder(target) as folder:
        (folder / "whole").write_text("x")
    with cache.new_folder(target) as folder:  # somebody else was faster: theirs stays
        (folder / "late").write_text("x")
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_a_damaged_array_is_named(loaded: Data) -> None:
    path = loaded.folder / "arrays" / "test" / "item.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    load.cache_clear()
    with pytest.raises(BenchError, match=r"item\.npy is damaged .* prepare the data set again"):
        load(loaded.folder)
    path.write_bytes(whole)
    load(loaded.folder)


def test_domains_train_on_some_and_test_on_others() -> None:
    class ByAge(Toy):
        domain_field = "age"
        domains: ClassVar = {"train": ["1.0", "2.0", "3.0"], "test": ["50.0"]}

    encoded = encode(ByAge(), tables())
    assert encoded.arrays["train/user_cat"][:, 0].tolist() == [1, 2, 3, 1, 2]  # u3's age is unknown
    assert {name: part["groups"] for name, part in encoded.parts.items()} == {"train": 5, "valid": 1, "test": 1}
    ByAge.domains = {"train": ["1.0", "3.0"], "test": ["51.0"]}
    with pytest.raises(BenchError, match=r"unknown age '51\.0'; did you mean"):
        encode(ByAge(), tables())
    ByAge.domains = {"train": ["50.0"], "test": ["60.0"]}
    with pytest.raises(BenchError, match="no train rows in the wanted domains of age"):
        encode(ByAge(), tables())


def test_a_data_set_without_domains_says_so() -> None:
    with pytest.raises(BenchError, match="has no domains"):
        prepare.configured("movielens-100k", {"domains": {"train": ["a"], "test": ["b"]}})
    dataset, knobs = prepare.configured("sim-news", {"domains": {"train": ["phone"], "test": ["tablet"]}})
    assert dataset.domains == knobs["domains"]
