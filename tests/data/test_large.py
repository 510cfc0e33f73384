"""Splits that are too large to be used as a whole: windows, pieces, columns in files. What is large is made small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bench import metrics
from bench.api import Batch
from bench.data import tensors
from bench.data.load import Data
from bench.data.mapped import in_memory, mapped
from bench.data.tensors import Split
from bench.metrics.streaming import HALF, IN_PIECES, Auc
from bench.nn import base_rate, base_rate_of
from bench.spec import config
from bench.storage.spill import Spilled
from bench.suites.specify import specify
from bench.training.build import build
from bench.training.contract import SMALL, small, tiny_language_model
from bench.training.predict import predict
from bench.training.score import Scores, chance, everything, score
from tests.support.runs import made

SIZE = 64
CPU = torch.device("cpu")


@pytest.fixture
def data() -> Data:
    return small("sim-news")


@pytest.fixture
def large(data: Data, monkeypatch: pytest.MonkeyPatch) -> Split:
    """The training part, in many windows of a few blocks each."""
    monkeypatch.setattr(tensors, "LARGE", 50)
    monkeypatch.setattr(tensors, "WINDOW", 200)
    monkeypatch.setattr(tensors, "PIECE", 100)
    monkeypatch.setattr(tensors, "BLOCK", 25)
    assert data.train.large and not any(piece.rows > 400 for piece in data.train.pieces())
    return data.train


def numbered(split: Split) -> Split:
    """The split with the number of each row in place of its item, and of each group in place of its user's codes."""
    return replace(
        split,
        item=torch.arange(split.rows, dtype=torch.int32),
        user_cat=torch.arange(split.groups, dtype=torch.int32).unsqueeze(1),
    )


def epoch(split: Split, seed: int) -> list[Batch]:
    return list(split.batches(SIZE, torch.Generator().manual_seed(seed)))


def rows_of(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.item for batch in batches]).tolist()


# Order


def test_a_small_split_keeps_its_order(data: Data) -> None:
    """As published records have it: one permutation of the groups, and nothing else drawn."""
    split = numbered(data.train)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(split.groups, generator=generator)
    drawn = torch.Generator().manual_seed(5)
    batches = list(split.batches(SIZE, drawn))
    assert torch.cat([batch.user_cat for batch in batches]).flatten().tolist() == order.tolist()
    expected = [row for g in order.tolist() for row in range(int(split.start[g]), int(split.start[g + 1]))]
    assert rows_of(batches) == expected
    assert torch.equal(generator.get_state(), drawn.get_state())


def test_every_row_once_an_epoch_and_groups_whole(large: Split) -> None:
    split = numbered(large)
    batches = epoch(split, 0)
    assert sorted(rows_of(batches)) == list(range(split.rows))
    assert sorted(torch.cat([b.user_cat for b in batches]).flatten().tolist()) == list(range(split.groups))
    for batch in batches:
        assert len(batch.item) <= SIZE + int(split.sizes.max())
        for place, group in enumerate(batch.user_cat.flatten().tolist()):
            mine = batch.item[batch.group == place].tolist()
            assert mine == list(range(int(split.start[group]), int(split.start[group + 1])))


def test_labels_belong_to_their_rows_and_groups(large: Split) -> None:
    split = numbered(large)
    undefined = 0
    for batch in epoch(split, 1):
        for task in split.schema.tasks:
            index = batch.user_cat.flatten() if task.scope == "user" else batch.item
            expected = split.labels[task.name][index.long()]
            torch.testing.assert_close(batch.labels[task.name], expected, rtol=0, atol=0, equal_nan=True)
            undefined += int(expected.isnan().sum())
        assert torch.equal(batch.history, split.history[batch.user_cat.flatten().long()])
        assert torch.equal(batch.pair_num, split.pair_num[batch.item.long()])
    assert undefined


def test_the_same_seed_is_the_same_order(large: Split) -> None:
    split = numbered(large)
    first = rows_of(epoch(split, 3))
    assert first == rows_of(epoch(split, 3)) != rows_of(epoch(split, 4))
    generator = torch.Generator().manual_seed(3)
    first_epoch, second = (rows_of(list(split.batches(SIZE, generator))) for _ in range(2))
    assert first_epoch == first != second


def test_what_is_shuffled_and_how_far(large: Split) -> None:
    """Groups of one block within one window of as many blocks as the docs say; all else is mixed."""
    split = numbered(large)
    block = round(25 * split.groups / split.rows)
    order = torch.cat([batch.user_cat for batch in epoch(split, 0)]).flatten()
    assert (order.diff() != 1).float().mean() > 0.7
    place = torch.empty_like(order)
    place[order.long()] = torch.arange(len(order), dtype=torch.int32)
    window = 200 // 25 * block
    for first in range(0, split.groups, block):
        assert len((place[first : first + block] // window).unique()) <= 2  # a short last block shifts what follows
        if first + block <= split.groups:
            assert int(place[first : first + block].max() - place[first : first + block].min()) < window
    # As likely at any place as at any other: over many epochs a group's mean place is the middle.
    split = replace(split, schema=replace(split.schema, tasks=()), labels={}, truth={})  # the order is the same
    places = torch.zeros(split.groups, dtype=torch.float64)
    epochs = 40
    for seed in range(epochs):
        places[torch.cat([b.user_cat for b in epoch(split, seed)]).flatten().long()] += torch.arange(split.groups)
    middle, spread = (split.groups - 1) / 2, split.groups / 12**0.5 / epochs**0.5
    assert (places / epochs - middle).abs().max() < 5 * spread


def test_one_huge_group(data: Data, large: Split) -> None:
    """A group larger than a window is a window."""
    start = torch.tensor([0, 3, data.train.rows - 3, data.train.rows])
    columns = ("user_cat", "user_num", "history", "user", "cold_user")
    split = replace(data.train, start=start, **{name: getattr(data.train, name)[:3] for name in columns})
    pair = replace(split.schema, tasks=tuple(t for t in split.schema.tasks if t.scope == "pair"))
    split = numbered(replace(split, schema=pair, labels={t.name: split.labels[t.name] for t in pair.tasks}, truth={}))
    assert sorted(rows_of(epoch(split, 0))) == list(range(split.rows))
    assert sum(piece.rows for piece in split.pieces()) == split.rows


# Pieces


def whole_of(split: Split, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "LARGE", 1 << 30)
        return list(split.inputs(10**9))


def test_inputs_are_those_of_the_whole(large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = whole_of(large, monkeypatch)
    parts = list(large.inputs(SIZE))
    assert not any(part.labels for part in parts) and len(parts) > 5
    for name in ("user_cat", "user_num", "history", "item", "pair_cat", "pair_num"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    offsets = np.cumsum([0, *(len(part.user_cat) for part in parts)])
    group = torch.cat([part.group + int(offset) for part, offset in zip(parts, offsets[:-1], strict=True)])
    assert torch.equal(group, whole.group)


def test_pieces_of_a_part(large: Split) -> None:
    """Parts that ``cut`` makes are read from the right place of the files."""
    before, after = (numbered(large).cut(17)[i] for i in (0, 1))
    assert after.large and int(after.start[0]) == 0
    for part, first in ((before, 0), (after, int(large.start[17]))):
        assert torch.cat([p.item for p in part.pieces()]).tolist() == list(range(first, first + part.rows))
    original = large.cut(17)[1]
    for name in ("history", "pair_num", "cold_item", "user"):
        assert torch.equal(torch.cat([getattr(p, name) for p in original.pieces()]), getattr(original, name))
    assert torch.equal(torch.cat([p.sizes for p in original.pieces()]), original.sizes)


def test_defined_labels_and_base_rates(large: Split) -> None:
    for task in large.schema.tasks:
        label = large.labels[task.name]
        pieces = list(large.defined(task.name))
        assert len(pieces) > 1 and torch.equal(torch.cat(pieces), label[~label.isnan()])
        whole, from_pieces = base_rate(task, label), base_rate_of(task, pieces)
        if whole is None:
            assert from_pieces is None
        else:
            torch.testing.assert_close(from_pieces, whole)
    assert base_rate_of(large.schema.tasks[0], [torch.empty(0)]) is None


# Columns in files


def test_in_memory_reads_what_the_mapping_shows(tmp_path: Path) -> None:
    for array in (np.arange(60, dtype=np.int32).reshape(20, 3), np.arange(9.0), np.ones(7, bool), np.zeros((5, 0))):
        np.save(tmp_path / "a.npy", array)
        column = mapped(tmp_path / "a.npy")
        for part in (column, column[2:], column[3:6], column[2:][1:4], column[4:4]):
            again = in_memory(part)
            assert torch.equal(again, part) and again.dtype == part.dtype and again.shape == part.shape
            assert not part.numel() or again.data_ptr() != part.data_ptr()
    own = torch.arange(5)
    assert in_memory(own) is own


def test_what_is_read_is_not_resident(tmp_path: Path) -> None:
    """Looking at a mapping makes it resident, `held` does not."""

    def shared_mb() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[2])
        return pages * 4096 / 2**20

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    np.save(tmp_path / "a.npy", np.ones(4 << 20))  # 32 MB
    column = mapped(tmp_path / "a.npy")
    before = shared_mb()
    assert sum(float(in_memory(part).sum()) for part in torch.split(column, 1 << 16)) == 4 << 20
    read = shared_mb()
    assert float(column.sum()) == 4 << 20
    assert read - before < 8 < 24 < shared_mb() - read


def test_spilled_numbers_come_back() -> None:
    for shape in ((), (3,)):
        numbers = np.random.default_rng(0).random((50, *shape), np.float32)
        spilled = Spilled()
        for first, last in ((0, 20), (20, 20), (20, 50)):
            spilled.append(numbers[first:last])
        assert len(spilled) == 50
        for part in (slice(0, 50), slice(7, 31), slice(None), slice(50, 60)):
            np.testing.assert_array_equal(spilled[part], numbers[part])


# Metrics in pieces


def in_pieces(
    name: str, label: np.ndarray, prediction: np.ndarray, group: np.ndarray, user: np.ndarray | None = None
) -> float | None:
    total = IN_PIECES[name]()
    for part in np.array_split(np.unique(group), 4):
        use = np.isin(group, part)
        total.add(label[use], prediction[use], group[use], (group if user is None else user)[use])
    return total.value()


def add(bins: Auc, label: np.ndarray, score_: np.ndarray) -> None:
    bins.add(label, score_, np.zeros(len(label), int), np.zeros(len(label), int))


def test_auc_in_bins_against_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    logit = draw.normal(-3, 1.5, 200_000)
    label = (draw.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    score_ = (1 / (1 + np.exp(-logit - draw.normal(0, 1, len(logit))))).astype(np.float32)
    bins = Auc()
    for part in np.array_split(np.arange(len(label)), 7):
        add(bins, label[part], score_[part])
    low, high = bins.interval() or (0.0, 0.0)
    assert low <= roc_auc_score(label, score_) <= high and 0 < high - low < 1e-4
    assert bins.value() == pytest.approx(roc_auc_score(label, score_), abs=1e-6)


def test_auc_in_bins_is_exact_where_no_bin_has_both_classes_but_in_ties() -> None:
    draw = np.random.default_rng(1)
    score_ = draw.integers(0, 1025, 5000) / 1024  # each value in a bin of its own, 0 and 1 among them
    label = (draw.random(5000) < score_).astype(np.float32)
    assert in_pieces("auc", label, score_, np.arange(5000)) == pytest.approx(roc_auc_score(label, score_), abs=1e-14)
    assert in_pieces("auc", label, np.full(5000, 0.3), np.arange(5000)) == 0.5
    assert in_pieces("auc", np.ones(10), np.full(10, 0.3), np.arange(10)) is None
    near = np.float32(0.25) + np.float32([0, 2**-10, 2**-17, 2**-25])  # the first and the two last share a bin
    bins = Auc()
    add(bins, np.array([0, 0, 1, 1]), near)
    assert bins.interval() == (0.0, 0.5)


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=2, max_size=60).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auc_is_in_its_interval(rows: list[tuple[bool, float]]) -> None:
    label, score_ = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], np.float32)
    bins = Auc()
    add(bins, label, score_)
    low, high = bins.interval() or (2.0, -1.0)
    assert low - 1e-12 <= (metrics.auc(label, score_) or 0) <= high + 1e-12


def test_bins_keep_the_order_of_the_scores() -> None:
    edges = np.float32([0, -0.0, 1e-45, 1e-38, 0.1, 0.49999997, 0.5, 0.50000006, 0.9, 0.99999994, 1])
    places = []
    for value in edges:
        bins = Auc()
        add(bins, np.ones(1), np.array([value]))
        places.append(int(np.flatnonzero(bins.positives)[0]))
    assert places == sorted(places) and places[0] == places[1] == 0 and places[6] == HALF and places[-1] == 2 * HALF
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            add(Auc(), np.ones(1), np.array([bad]))


def test_metrics_in_pieces_are_those_of_all_rows() -> None:
    """Probabilities on a grid, so that no bin has two of them; users in several pieces."""
    draw = np.random.default_rng(2)
    n = 600
    group, user = np.sort(draw.integers(0, 50, n)), draw.integers(0, 40, n)
    label, target = (draw.random(n) < 0.3).astype(float), draw.integers(0, 5, n).astype(float)
    probability, classes = draw.integers(0, 17, n) / 16, draw.dirichlet(np.ones(5), n)
    for name in IN_PIECES:
        several = name in ("top1", "top3", "log_loss_multiclass")
        columns = (target, classes, group, user) if several else (label, probability, group, user)
        assert in_pieces(name, *columns) == pytest.approx(metrics.compute(name, *columns), abs=1e-12), name
    assert {*metrics.METRICS} - {*IN_PIECES} == {"xauc"}
    nobody = in_pieces("gauc", np.ones(n), probability, group, user)
    assert nobody is None and IN_PIECES["ece"]().value() is None and IN_PIECES["mrr"]().value() is None


def test_calibration_in_bins_is_off_by_no_more_than_it_says() -> None:
    draw = np.random.default_rng(3)
    for spread in (1.0, 1e-3, 1e-5):  # the last: all rows in a few bins
        probability = (0.3 + spread * draw.uniform(-0.2, 0.2, 5000)).astype(np.float32)
        label = (draw.random(5000) < 0.25).astype(float)
        largest = np.bincount(Auc.places(probability)).max() / 5000
        found = in_pieces("ece", label, probability, np.arange(5000))
        assert found == pytest.approx(metrics.ece(label, probability), abs=min(28 * largest, 1e-2)), spread


# All together


def same(got: Scores, expected: Scores) -> None:
    for task, values in expected.items():
        for name, value in values.items():
            found = got[task][name]
            if name not in IN_PIECES or value is None:
                assert found is None, (task, name)
            else:
                assert found == pytest.approx(value, abs=1e-3 if name == "ece" else 1e-6), (task, name)


def test_predictions_are_those_of_the_whole(data: Data, large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    resolved, _ = config.resolve("shared_bottom", {})
    method = build("shared_bottom", resolved, data.schema)
    predicted = predict(method, data.test)
    monkeypatch.setattr(tensors, "LARGE", 1 << 30)
    for name, values in predict(method, data.test).items():
        assert isinstance(values, np.ndarray) and isinstance(predicted[name], Spilled)
        np.testing.assert_allclose(predicted[name][:], values, rtol=1e-5, atol=1e-6)


def test_scores_are_those_of_the_whole(data: Data, large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    sizes = {"user": data.test.groups, "pair": data.test.rows}
    predictions = {
        t.name: (draw.dirichlet(np.ones(t.outputs), sizes[t.scope]) if t.outputs > 1 else draw.random(sizes[t.scope]))
        for t in data.schema.tasks
    }
    got, constant = everything(data.test, predictions), chance(data.train, data.test)
    baseline = score(data.test, constant)
    monkeypatch.setattr(tensors, "LARGE", 1 << 30)
    expected = everything(data.test, predictions)
    same(got["test"], expected["test"])
    assert got["slices"].keys() == expected["slices"].keys() and got["slices"]
    for name, part in expected["slices"].items():
        assert got["slices"][name]["rows"] == part["rows"]
        same(got["slices"][name]["metrics"], part["metrics"])
    for name, values in chance(data.train, data.test).items():
        np.testing.assert_allclose(constant[name], values, rtol=1e-6)
    same(baseline, score(data.test, chance(data.train, data.test)))


def test_a_prediction_that_is_not_finite_is_no_number(data: Data, large: Split) -> None:
    predictions = chance(data.train, data.test)
    spoiled = np.array(predictions["click"])
    spoiled[-1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        score(data.test, {**predictions, "click": spoiled})


@pytest.mark.parametrize("method", ["mmoe", pytest.param("auto_lambda", marks=pytest.mark.slow)])
def test_a_run(method: str, data: Data, large: Split) -> None:
    """Trains, selects and evaluates on large parts, twice to the same numbers; predictions are not kept."""
    given = {"lm": tiny_language_model()} if method == "auto_lambda" else {}
    spec = specify("sim-news", method, given=given, knobs=SMALL, budget={"epochs": 2, "patience": 2})
    records = [made(spec) for _ in range(2)]
    for record, predictions in records:
        assert record["status"] == "ok", record["error"]
        assert predictions == {}
        assert record["metrics"]["test"]["click"]["auc"] is not None
        assert record["metrics"]["test"]["click"]["gauc"] is not None
    first, second = (record for record, _ in records)
    assert (first["metrics"], first["curve"]) == (second["metrics"], second["curve"])


def test_windows_come_from_files(data: Data, large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a window has more than nothing of is read, not mapped."""
    kept = []

    def noted(column: torch.Tensor) -> torch.Tensor:
        result = in_memory(column)
        kept.append(result is column and column.numel() > 0)
        return result

    monkeypatch.setattr(tensors, "in_memory", noted)
    epoch(data.train, 0)
    assert len(kept) > 100 and not any(kept)


def test_a_resumed_epoch_is_the_rest_of_it(large: Split) -> None:
    """What ``fit`` does after an interruption: the generator as it was, and the batches that were done left out."""
    split, generator = numbered(large), torch.Generator().manual_seed(7)
    list(split.batches(SIZE, generator))
    state = generator.get_state()
    whole = rows_of(list(split.batches(SIZE, generator)))
    generator.set_state(state)
    batches: Iterator[Batch] = split.batches(SIZE, generator)
    done = rows_of([next(batches) for _ in range(4)])
    generator.set_state(state)
    rest = rows_of(list(split.batches(SIZE, generator))[4:])
    assert done + rest == whole
