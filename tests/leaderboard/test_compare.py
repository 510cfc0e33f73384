"""Head to head: verdicts where the truth is known, figures by hand, names that mean no row or several."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as scipy_stats

from bench.errors import BenchError
from bench.leaderboard.compare import compare
from bench.leaderboard.render.comparison import to_console, to_json
from bench.leaderboard.selection import Selector, comparable
from bench.markup import show_p
from tests.support.command import SMALL, Bench
from tests.support.toy_records import STATIC, Record, noisy, runs

BASE = runs("base", noisy(0.70))


def verdicts(other: list[Record], **options: Any) -> dict[str, str]:
    return {line.measure: line.verdict for line in compare([*BASE, *other], "other", "base", **options).lines}


def test_a_copy_is_equivalent() -> None:
    assert set(verdicts(runs("other", noisy(0.70))).values()) == {"equivalent"}


def test_a_broken_method_is_worse_and_its_repair_better() -> None:
    assert verdicts(runs("other", noisy(0.55)))["click auc"] == "worse"
    found = verdicts(runs("other", noisy(0.80), [0.5 + 0.01 * i for i in range(6)]))
    assert found == {"click auc": "better", "watch rmse": "better", "mean skill": "better"}  # a smaller rmse is better


def test_noise_is_undecided_and_so_is_a_single_seed() -> None:
    loud = runs("other", noisy(0.70, spread=0.05, seed=1))
    assert verdicts(loud)["click auc"] == "undecided"
    one = verdicts(runs("other", [0.9], [1.5]))
    assert set(one.values()) == {"undecided"}


def test_a_margin_decides_what_matters() -> None:
    near = runs("other", [value + 0.004 for value in noisy(0.70)], [1.0] * 6)  # .008 of skill
    assert verdicts(near)["click auc"] == "better"
    assert verdicts(near, margin=0.02)["click auc"] == "equivalent"
    with pytest.raises(BenchError, match="--margin 0: give a positive difference"):
        verdicts(near, margin=0.0)


def test_figures_by_hand() -> None:
    a, b = [0.71, 0.73, 0.74, 0.72, 0.75, 0.77], [0.70, 0.70, 0.72, 0.71, 0.71, 0.72]
    watch = [1.0, 1.1, 1.0, 0.9, 1.0, 1.0]
    found = compare([*runs("x", a, watch), *runs("y", b, watch)], "x", "y")
    click, other, mean = found.lines
    assert click.seeds == (0, 1, 2, 3, 4, 5)
    assert click.a == pytest.approx(sum(a) / 6) and click.b == pytest.approx(sum(b) / 6)
    ps = [scipy_stats.ttest_rel(a, b).pvalue, 1.0, 0.0]
    assert mean.measure == "mean skill"
    ps[2] = scipy_stats.ttest_rel([(v - 0.5) / 0.5 for v in a], [(v - 0.5) / 0.5 for v in b]).pvalue
    assert click.p == pytest.approx(3 * ps[0], rel=1e-6) and other.p == 1.0  # Holm over the three lines
    assert click.signed_rank == pytest.approx(2 / 64) and click.refused is None
    assert click.margin == pytest.approx(0.005 * 0.5) and other.margin == pytest.approx(0.005 * 2)
    assert other.verdict == "equivalent" and math.isclose(mean.difference.mean, 0.5 * 2 * click.difference.mean)


def test_too_few_seeds_for_a_signed_rank_test_are_told_so() -> None:
    text = to_console(compare([*runs("x", noisy(0.8, 5)), *BASE], "x", "base"))
    assert "No signed-rank p: 5 seeds cannot reach p < .05; 6 can." in text
    assert "seeds 0, 1, 2, 3, 4\n" in text  # those that both have


# names


def test_names_are_those_of_the_board() -> None:
    both = [*runs("mmoe", noisy(0.7)), *runs("mmoe", noisy(0.8), config=STATIC), *BASE]
    with pytest.raises(BenchError, match=r"'mmoe' means several rows of toy: 'mmoe \(balancer=static\)', 'mmoe \(bal"):
        compare(both, "mmoe", "base")
    assert compare(both, "mmoe (balancer=static)", "base").lines[0].verdict == "better"
    assert compare(both, "mmoe (balancer=uniform)", "base").lines[0].verdict == "equivalent"
    with pytest.raises(BenchError, match="unknown row 'mmo'; did you mean 'base'|unknown row 'mmo'"):
        compare(both, "mmo", "base")
    with pytest.raises(BenchError, match="are the same row of toy"):
        compare(both, "base", "base")
    with pytest.raises(BenchError, match="give METHOD, or METHOD, tuned"):
        compare(both, "mmoe (static)", "base")


def test_selectors_read_what_they_write() -> None:
    for text in ("mmoe", "mmoe, tuned", "frozen (lm=a-b@1, trunk=single_task)", "x, tuned (a=[1,2], b.c=none)"):
        assert str(Selector.of(text)) == text
    assert Selector.of("x (a=[1,2], b.c=none)").settings == {"a": "[1,2]", "b.c": "none"}


def test_tuned_rows_are_rows_of_their_own_and_unequal_tuning_is_told() -> None:
    tuned = runs("base", noisy(0.8), trials=20, config={"batch_size": 512, "balancer": "uniform", "lr": 0.1})
    found = compare([*BASE, *tuned], "base, tuned", "base")
    assert found.lines[0].verdict == "better"
    assert found.notes == ("toy: not tuned alike, 20 trials against 0.",)


def test_only_rows_on_the_same_data_under_the_same_budget_meet() -> None:
    long = runs("other", noisy(0.9), budget={"epochs": 50, "patience": 3})
    assert len(comparable([*BASE, *long])) == 2
    with pytest.raises(BenchError, match="'other' and 'base' cannot be compared: .*no row"):
        compare([*BASE, *long], "other", "base")


def test_p_values_in_three_digits() -> None:
    assert [show_p(p) for p in (None, 0.0001, 0.0312, 0.9999)] == ["–", "<.001", ".031", "1"]


# the command


def test_the_command_resamples_users_where_predictions_are(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ("--results", str(tmp_path))
    rows = ("-d", "sim-news", "-m", "popularity", "-m", "logistic_regression", *SMALL, "--epochs", "1", *results)
    bench("run", *rows, "--workers", "1")
    monkeypatch.setattr("bench.leaderboard.over_users.RESAMPLES", 30)
    asked = ("board", "--compare", "logistic_regression", "popularity", *results)
    found = json.loads(bench(*asked, "--json").output)
    by_measure = {line["measure"]: line for line in found["lines"]}
    click = by_measure["click auc"]
    assert click["users"]["low"] < click["users"]["high"] and click["no_users"] == ""
    assert click["users"]["mean"] == pytest.approx(click["difference"]["mean"], abs=2e-3)  # predictions are halves
    assert by_measure["interest top1"]["users"] is not None and by_measure["mean skill"]["users"] is None
    assert "interval over users" in bench(*asked).output
    assert not (tmp_path / "LEADERBOARD.md").exists()
    next((tmp_path / "predictions").glob("*.npz")).unlink()
    assert "1 of 2 files of predictions are not in" in bench(*asked).output
    assert "--margin goes with --compare A B" in bench("board", "--margin", "0.1", *results, code=2).output


def test_json_is_whole() -> None:
    found = json.loads(to_json(compare([*BASE, *runs("other", noisy(0.8))], "other", "base")))
    assert found["lines"][0]["verdict"] == "better" and found["margin"] == 0.005
