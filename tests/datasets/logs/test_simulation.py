"""Simulated data: the stated truth holds in the drawn labels, the knobs do what they say, nothing looks ahead."""

from __future__ import annotations

import hashlib
import re
from functools import cache, partial
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, logistic
from sklearn.metrics import roc_auc_score

from bench import registry
from bench.api import Tables
from bench.data.encode import check
from bench.data.split import assign
from bench.datasets.logs.simulation import PLACES, Simulated, _distinct, _editions, _histories, clipped_mean, sigmoid
from bench.datasets.logs.wording import NEWS, SHOP, VIDEO, Wording
from bench.errors import BenchError

NAMES = ("sim-news", "sim-shop", "sim-video")
BINARY = [
    ("sim-news", "click"), ("sim-shop", "click"), ("sim-shop", "cart"), ("sim-shop", "purchase"),
    ("sim-shop", "purchase_given_click"), ("sim-video", "finish"), ("sim-video", "like"), ("sim-video", "follow"),
]  # fmt: skip
EXPECTED = [
    ("sim-news", "read_time"), ("sim-news", "rank"), ("sim-shop", "rank"), ("sim-video", "watch_ratio"),
    ("sim-video", "rank"),
]  # fmt: skip
SMALL = {"users": 60, "items": 200, "groups": 400}
MIDDLE = {"users": 300, "items": 600, "groups": 2400}  # a fifth of the default


@cache
def make(name: str, **knobs: float) -> tuple[Simulated, Tables]:
    dataset = registry.load_dataset(name)(**knobs)
    assert isinstance(dataset, Simulated)
    return dataset, dataset.build({})


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Simulated, Tables]]:
    return {name: make(name) for name in NAMES}


def parts(dataset: Simulated, tables: Tables) -> pl.DataFrame:
    """Rows with the part that the default split gives them."""
    part = assign(tables.groups, np.full(tables.groups.height, PLACES), dataset.split)
    return tables.rows.join(tables.groups.select("group", part.alias("part")), on="group", maintain_order="left")


def bins(truth: np.ndarray, n: int = 10) -> list[np.ndarray]:
    return np.array_split(np.argsort(truth, kind="stable"), n)


def assert_calibrated(label: np.ndarray, truth: np.ndarray, variance: np.ndarray | None = None) -> None:
    """Mean label = mean truth in tenths of the truth, by a chi-square test at 1e-4."""
    total = 0.0
    for b in bins(truth):
        spread = variance[b].sum() if variance is not None else ((label[b] - truth[b]) ** 2).sum()
        total += (label[b] - truth[b]).sum() ** 2 / spread
    assert total < chi2.isf(1e-4, 10)


assert_close = partial(np.testing.assert_allclose, rtol=1e-6)


# --- truth -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "task"), BINARY)
def test_probabilities_are_those_of_the_labels(built, name, task):
    rows = built[name][1].rows.drop_nulls(task)
    label, truth = rows[task].to_numpy().astype(float), rows[f"truth:{task}"].to_numpy()
    assert ((truth > 0) & (truth < 1)).all()
    assert_calibrated(label, truth, truth * (1 - truth))


@pytest.mark.parametrize(("name", "task"), EXPECTED)
@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_expected_values_are_those_of_the_labels(built, name, task, noise):
    tables = built[name][1] if noise == 1 else make(name, noise=noise)[1]
    rows = tables.rows.drop_nulls(task)
    assert_calibrated(rows[task].to_numpy(), rows[f"truth:{task}"].to_numpy())


@pytest.mark.parametrize("name", NAMES)
def test_interest_probabilities_are_those_of_the_labels(built, name):
    dataset, tables = built[name]
    truth = np.stack(tables.groups["truth:interest"].to_list())
    classes = dataset.tasks[-1].classes
    drawn = tables.groups["interest"].to_numpy()[:, None] == np.array(classes)
    assert_close(truth.sum(axis=1), 1)
    for k in range(len(classes)):
        assert_calibrated(drawn[:, k].astype(float), truth[:, k], truth[:, k] * (1 - truth[:, k]))


@pytest.mark.parametrize(("centre", "scale", "low", "high"), [(0.3, 0.7, -1, 2), (5, 0.35, 0, 7.5), (-2, 1, -4, 4)])
def test_clipped_mean_is_the_integral(centre, scale, low, high):
    def integrand(x: float) -> float:
        return float(np.clip(centre + scale * x, low, high) * logistic.pdf(x))

    kinks = [(low - centre) / scale, (high - centre) / scale]
    expected = quad(integrand, -60, 60, points=kinks, limit=200)[0]
    assert clipped_mean(np.array([centre]), scale, low, high)[0] == pytest.approx(expected, abs=1e-7)


def test_clipped_mean_without_spread_is_the_clipped_value():
    centre = np.array([-1.0, 0.5, 9.0])
    assert clipped_mean(centre, 1e-6, 0, 7) == pytest.approx([0, 0.5, 7], abs=1e-5)


def test_sigmoid_by_hand():
    assert sigmoid(np.array([0.0, np.log(3), -1000, 1000])) == pytest.approx([0.5, 0.75, 0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_rec_is_the_event_ranked_by_its_probability(built, name):
    dataset, tables = built[name]
    event = dataset.tasks[0].name
    assert (tables.rows["rec"] == tables.rows[event]).all()
    assert_close(sigmoid(tables.rows["truth:rec"].to_numpy()), tables.rows[f"truth:{event}"])


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_beats_chance_and_the_base_rate_is_ordinary(built, name):
    dataset, tables = built[name]
    event = dataset.tasks[0].name
    assert 0.14 < tables.rows[event].mean() < 0.20
    assert roc_auc_score(tables.rows[event], tables.rows[f"truth:{event}"]) > 0.75


def test_shop_labels_are_a_funnel(built):
    rows = built["sim-shop"][1].rows
    assert rows.select((pl.col("purchase") <= pl.col("cart")) & (pl.col("cart") <= pl.col("click"))).to_series().all()
    clicked = rows.filter(pl.col("click") == 1)
    assert (clicked["purchase_given_click"] == clicked["purchase"]).all()
    assert rows.filter(pl.col("click") == 0)["purchase_given_click"].is_null().all()
    product = rows["truth:click"] * rows["truth:purchase_given_click"]
    assert_close(product, rows["truth:purchase"])
    assert set(rows["rank"].round(3).unique()) == {0, 0.333, 0.667, 1}


def test_news_reading_time_is_that_of_clicked_articles(built):
    rows = built["sim-news"][1].rows
    assert (rows["read_time"].is_null() == (rows["click"] == 0)).all()
    clicked = rows.filter(pl.col("click") == 1)
    assert clicked["read_time"].is_between(0, np.log1p(1800)).all()
    assert_close(clicked["rank"], clicked["read_time"] / np.log1p(1800))
    assert (rows.filter(pl.col("click") == 0)["rank"] == 0).all()


def test_a_clip_is_finished_where_its_watch_ratio_exceeds_one(built):
    rows = built["sim-video"][1].rows
    assert ((rows["watch_ratio"] > 1) == (rows["finish"] == 1)).all()
    assert rows["watch_ratio"].is_between(0, 2).all()
    assert rows["follow"].mean() < 0.03 < rows["like"].mean()


# --- knobs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "other"), [("sim-news", "read_time"), ("sim-shop", "purchase_given_click"), ("sim-video", "like")]
)
def test_correlation_goes_from_conflict_to_synergy(name, other):
    found = []
    for c in (-1.0, 0.0, 1.0):
        rows = make(name, correlation=c, **MIDDLE)[1].rows
        found.append(np.corrcoef(rows["truth:rec"], rows[f"truth:{other}"])[0, 1])
    assert found == sorted(found)
    assert found[0] < -0.3 and found[-1] > 0.6


def test_correlation_leaves_the_events_as_they_are(built):
    rows = make("sim-news", correlation=-1)[1].rows
    assert rows["click"].equals(built["sim-news"][1].rows["click"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cold", [0.0, 0.3, 1.0])
def test_the_cold_share_of_test_rows_shows_items_never_seen_in_training(name, cold):
    dataset, tables = make(name, cold=cold, **MIDDLE)
    rows = parts(dataset, tables)
    trained = rows.filter(pl.col("part") == "train")["item"].unique().implode()
    for part in ("valid", "test"):
        unseen = ~rows.filter(pl.col("part") == part)["item"].is_in(trained)
        assert unseen.mean() == pytest.approx(cold, abs=4.5 * np.sqrt(cold * (1 - cold) / len(unseen)))
    new = rows.group_by("item").agg(pl.col("part").unique()).filter(pl.col("item") > 540)
    assert new.height == (0 if cold == 0 else 60)
    assert new["part"].list.join("").is_in(["test"]).all()


def test_cold_and_shift_leave_the_training_part_as_it_is(built):
    dataset, tables = built["sim-news"]
    other = make("sim-news", cold=1, shift=0)
    train, again = (parts(d, t).filter(pl.col("part") == "train") for d, t in ((dataset, tables), other))
    assert train.equals(again)
    assert tables.items.head(2700).equals(other[1].items.head(2700))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_shift_words_occur_in_the_asked_share_of_new_test_items_and_nowhere_else(name, shift):
    dataset, tables = make(name, shift=shift, **MIDDLE)
    unknown = {w for _, words in dataset.wording.topics.values() for w in words}
    known = {w for words, _ in dataset.wording.topics.values() for w in words}
    words = [set(re.findall(r"[a-z]+", text.lower())) for text in tables.items["text"]]
    shifted = np.array([bool(w & unknown) for w in words])
    assert shifted.sum() == round(shift * 60) and not shifted[:540].any()
    assert all(bool(w & known) != s for w, s in zip(words, shifted, strict=True))
    rows = parts(dataset, tables)
    shown = rows.filter(pl.col("item").is_in((np.flatnonzero(shifted) + 1).tolist()))
    assert set(shown["part"]) <= {"test"}


def test_noise_weakens_what_profile_and_topic_tell():
    auc = []
    for noise in (0.0, 3.0):
        world = registry.load_dataset("sim-shop")(noise=noise, correlation=1, **MIDDLE).world()
        auc.append(roc_auc_score(world.event, world.second))  # correlation 1: S = A
    assert auc[0] > auc[1] + 0.05
    calm = make("sim-news", noise=0, **MIDDLE)[1].rows.drop_nulls("read_time")
    assert_close(calm["read_time"], calm["truth:read_time"], atol=1e-4)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("correlation", 1.01), ("correlation", float("nan")), ("noise", -0.1), ("cold", 1.5), ("shift", "half"),
        ("shift", True), ("users", 9), ("users", 20.0), ("items", 99), ("groups", 9), ("seed", -1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_knob_fails_with_one_line_that_names_it(name, knob, value):
    with pytest.raises(BenchError, match=f"^knob '{knob}' must be .*{re.escape(repr(value))}; choose another$"):
        registry.load_dataset(name)(**{knob: value})


# --- tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tables_have_the_standard_form_and_hold_no_latent_column(built, name):
    dataset, tables = built[name]
    check(dataset, tables)
    allowed = {"group", "item", "user", "time", "text", "history", "history_time"} | {f.name for f in dataset.fields}
    allowed |= {c for t in dataset.tasks for c in (t.name, f"truth:{t.name}")}
    for frame in (tables.groups, tables.rows, tables.items, tables.users):
        assert set(frame.columns) <= allowed
    assert {t.name for t in dataset.tasks} == set(dataset.forbidden)
    assert all(f"truth:{t.name}" in tables.rows.columns + tables.groups.columns for t in dataset.tasks)
    assert {t.role for t in dataset.tasks} >= {"rec", "rank", "ctr", "interest"}


SIZES = [{"users": 10, "items": 100, "groups": 10}, {"users": 11, "items": 107, "groups": 123}]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_small_and_odd_sizes(name, sizes):
    dataset, tables = make(name, **sizes)
    check(dataset, tables)
    assert tables.rows.height == 10 * sizes["groups"] and tables.items.height == sizes["items"]
    fresh = parts(dataset, tables).filter(pl.col("item") > -(-9 * sizes["items"] // 10))
    assert set(fresh["part"]) == {"test"}


@pytest.mark.parametrize("name", NAMES)
def test_candidates_of_a_group_are_different_and_recent(built, name):
    rows = built[name][1].rows
    assert not rows.select("group", "item").is_duplicated().any()
    edition = (pl.col("item") - 1) // 300
    ages = rows.select(age=pl.col("group") // 1200 - edition, edition=edition)
    assert ages["age"].min() == 0
    assert ages.filter(pl.col("edition") + pl.col("age") <= 7)["age"].max() == 2


@pytest.mark.parametrize("name", NAMES)
def test_history_holds_exactly_the_last_events_of_earlier_groups(name):
    dataset, tables = make(name, **SMALL)
    groups = tables.groups
    assert groups["time"].is_unique().all() and groups["time"].is_sorted()
    events: dict[int, list[tuple[int, int]]] = {}
    taken = dict(tables.rows.filter(pl.col("rec") == 1).group_by("group", maintain_order=True).agg("item").iter_rows())
    longest = 0
    for g in groups.iter_rows(named=True):
        before = events.setdefault(g["user"], [])
        longest = max(longest, len(before))
        assert g["history"] == [item for _, item in before][-dataset.history :]
        assert g["history_time"] == (before[-1][0] if before else None)
        assert g["history_time"] is None or g["history_time"] < g["time"]
        before += [(g["time"], item) for item in taken.get(g["group"], [])]
    assert longest > dataset.history


def test_histories_by_hand():
    history, time = _histories(
        user=np.array([0, 1, 0, 0]),
        time=np.array([10, 20, 30, 40]),
        group=np.repeat(np.arange(4), 2),
        item=np.array([0, 1, 2, 3, 4, 5, 6, 7]),
        event=np.array([1, 1, 1, 0, 0, 1, 1, 1], dtype=bool),
        length=2,
    )
    assert history.to_list() == [[], [], [1, 2], [2, 6]]
    assert time.to_list() == [None, None, 10, 30]


def test_editions_by_hand():
    assert _editions(25) == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25]


def test_every_number_is_drawn_equally_often_and_once_a_sample():
    drawn = _distinct(np.random.default_rng(0), 5, 18, 20000)
    assert all(len(set(sample)) == PLACES for sample in drawn[:500].tolist())
    share = np.bincount(drawn.ravel() - 5, minlength=13) / len(drawn)
    p = PLACES / 13
    assert share == pytest.approx(np.full(13, p), abs=4.5 * np.sqrt(p * (1 - p) / len(drawn)))


# --- texts -----------------------------------------------------------------------------------------------------


def stem(word: str) -> str:
    """A crude stem: common endings off, at least four letters kept."""
    short = re.sub(r"(ations?|ists?|ings?|ers?|ors?|ies|ical|ics?|es|ed|s|y|e)$", "", word)
    return short if len(short) >= 4 else word


@pytest.mark.parametrize("wording", [NEWS, SHOP, VIDEO])
def test_vocabularies_share_no_word_and_no_stem(wording: Wording):
    lists = [words for pair in wording.topics.values() for words in pair]
    assert len(wording.topics) == 8
    assert all(len(words) == len(set(words)) == 24 for words in lists)
    patterns = " ".join([*wording.titles, *wording.abstracts]).lower()
    connecting = re.findall(r"[a-z]+", patterns)
    for a, b in permutations([*lists, tuple(connecting)], 2):
        assert not {stem(w) for w in a} & {stem(w) for w in b}
    for a, b in permutations(lists, 2):
        assert not [(v, w) for v in a for w in b if len(v) >= 4 and w.startswith(v)]


@pytest.mark.parametrize("wording", [NEWS, SHOP, VIDEO])
def test_texts_have_headline_lengths_and_different_topic_words(wording: Wording):
    topic = np.arange(400) % 8
    titles, abstracts = wording.compose(topic, topic % 2 == 1, np.random.default_rng(1))
    vocabularies = list(wording.topics.values())
    for k, title, abstract in zip(topic, titles, abstracts, strict=True):
        assert 5 <= len(title.split()) <= 9 and 15 <= len(abstract.split()) <= 20
        words = re.findall(r"[a-z]+", f"{title} {abstract}".lower())
        assert len(set(words) & set(vocabularies[k][k % 2])) == 8
        assert title[0].isupper() and abstract[0].isupper()


# --- determinism -----------------------------------------------------------------------------------------------


def digest(name: str, **knobs: float) -> str:
    t = registry.load_dataset(name)(**SMALL, **knobs).build({})
    text = "".join(f.write_ndjson() for f in (t.groups, t.rows, t.items, t.users))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_knobs_give_the_same_tables(name):
    """In another process too: tests/datasets/test_datasets.py."""
    assert digest(name) == digest(name)


def test_seeds_and_domains_give_different_worlds():
    assert digest("sim-news", seed=1) != digest("sim-news")
    rec = [make(name, **SMALL)[1].rows["rec"].to_list() for name in NAMES]
    assert rec[0] != rec[1] != rec[2]
