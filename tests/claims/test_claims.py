"""Claims: each kind of test finds the truth that records were made with; what is missing is said; wrong files."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as scipy_stats

from bench import registry
from bench.claims.declared import MOST, PATH, Claim, declared
from bench.claims.show import to_console, to_json, to_markdown
from bench.claims.verify import Finding, seeds_for, verify
from bench.errors import BenchError
from bench.leaderboard.selection import Selector
from bench.storage.records import Store
from tests.support.command import Bench, understood
from tests.support.toy_records import STATIC, Record, noisy, runs

REFERENCE = registry.ROOT / "results" / "reference"
A, B = Selector("a"), Selector("b")


def claim(test: str = "better", margin: float = 0.01, **more: Any) -> Claim:
    values: dict[str, Any] = {
        "name": "C", "claim": "a beats b", "source": "here", "test": test, "margin": margin, "pairs": ((A, B),),
        "datasets": ("toy",), "refuted": "the contrary",
    }  # fmt: skip
    return Claim(**{**values, **more})


def pair(gain: float, *, spread: float = 0.0005, seeds: int = 6, watch: float = 0.0, **changes: Any) -> list[Record]:
    """Runs of b, and of a, which has ``gain`` more skill in click and ``watch`` more in watch, but for noise."""
    base = noisy(0.70, seeds, seed=1)
    noise = random.Random(f"{gain} {watch}")
    clicks = [value + gain / 2 + noise.gauss(0, spread) for value in base]
    watches = [1.0 - watch * 2 + noise.gauss(0, spread) for _ in base]
    return [*runs("a", clicks, watches, **changes), *runs("b", base, **changes)]


def verdict(records: list[Record], one: Claim) -> Finding:
    (found,) = verify(records, [one])
    return found


CLICK_ONLY = {"tasks": ("click",)}


@pytest.mark.parametrize(
    ("test", "gain", "answer"),
    [
        ("better", 0.03, "confirmed"),
        ("better", 0.0, "refuted"),  # no gain that matters is shown, too
        ("better", 0.01, "undecided"),
        ("not worse", 0.0, "confirmed"),
        ("not worse", -0.03, "refuted"),
        ("not worse", -0.01, "undecided"),
        ("equivalent", 0.0, "confirmed"),
        ("equivalent", 0.03, "refuted"),
        ("equivalent", -0.03, "refuted"),
        ("equivalent", 0.01, "undecided"),
    ],
)
def test_each_kind_of_test_finds_the_truth(test: str, gain: float, answer: str) -> None:
    assert verdict(pair(gain), claim(test, **CLICK_ONLY)).answer == answer


@pytest.mark.parametrize("test", ["better", "not worse", "equivalent"])
def test_noise_and_single_seeds_leave_it_undecided(test: str) -> None:
    assert verdict(pair(0.0, spread=0.1), claim(test, **CLICK_ONLY)).answer == "undecided"
    single = verdict(pair(0.5, seeds=1), claim(test, **CLICK_ONLY))
    assert single.answer == "undecided" and single.lines[0].missing == "a single common seed has no spread"


def test_p_values_by_another_way() -> None:
    records = pair(0.02, spread=0.01)
    own, other = (
        [2 * r["metrics"]["test"]["click"]["auc"] - 1 for r in records if r["spec"]["method"] == m] for m in "ab"
    )
    gaps = [x - y for x, y in zip(own, other, strict=True)]

    def shifted(bound: float, side: str) -> float:
        return float(scipy_stats.ttest_1samp(gaps, bound, alternative=side).pvalue)

    (better,) = verdict(records, claim("better", **CLICK_ONLY)).lines
    assert (better.p_for, better.p_against) == pytest.approx((shifted(0.01, "greater"), shifted(0.01, "less")))
    (worse,) = verdict(records, claim("not worse", **CLICK_ONLY)).lines
    assert (worse.p_for, worse.p_against) == pytest.approx((shifted(-0.01, "greater"), shifted(-0.01, "less")))
    (same,) = verdict(records, claim("equivalent", **CLICK_ONLY)).lines
    assert same.p_for == pytest.approx(max(shifted(-0.01, "greater"), shifted(0.01, "less")))
    assert same.p_against == pytest.approx(2 * min(shifted(0.01, "greater"), shifted(-0.01, "less")))


def test_everywhere_and_somewhere() -> None:
    mixed = pair(0.03, watch=-0.03)  # better in one task, worse in the other
    assert verdict(mixed, claim(tasks=(), holds="everywhere")).answer == "refuted"
    assert verdict(mixed, claim(tasks=(), holds="somewhere")).answer == "confirmed"
    assert verdict(pair(0.03, watch=0.03), claim(tasks=())).answer == "confirmed"
    nowhere = verdict(pair(-0.03, watch=-0.03), claim(tasks=(), holds="somewhere"))
    assert nowhere.answer == "refuted" and [line.measure for line in nowhere.lines] == ["click", "watch"]
    assert verdict(mixed, claim()).lines[0].difference == pytest.approx(0.0, abs=0.001)  # the mean over both


def test_a_claim_about_a_part_that_is_missing_is_not_confirmed_but_can_be_refuted() -> None:
    two = {"datasets": ("toy", "elsewhere"), **CLICK_ONLY}
    good = verdict(pair(0.03), claim(**two))
    assert good.answer == "undecided" and "1 of 2 comparisons lack runs" in good.reason
    assert good.lines[1].missing == "no records of this data set"
    assert good.commands == ("bench run -d elsewhere -m a --seeds 6", "bench run -d elsewhere -m b --seeds 6")
    assert verdict(pair(-0.03), claim(**two)).answer == "refuted"
    assert verdict(pair(0.03), claim(**two, holds="somewhere")).answer == "confirmed"
    assert verdict(pair(-0.03), claim(**two, holds="somewhere")).answer == "undecided"


def test_slices() -> None:
    records = pair(0.03)
    for record in records:
        record["metrics"]["slices"]["cold_item"]["metrics"] = {"click": {"auc": 0.7 + 0.001 * record["spec"]["seed"]}}
    assert verdict(records, claim(**CLICK_ONLY)).answer == "confirmed"
    assert verdict(records, claim(**CLICK_ONLY, part="cold_item")).answer == "refuted"
    assert verdict(records, claim(**CLICK_ONLY, part="cold_user")).lines[0].missing == "no common seed with a result"


def test_holm_over_the_claims() -> None:
    records = pair(0.014, spread=0.003)
    one = claim(**CLICK_ONLY)
    alone = verdict(records, one)
    many = verify(records, [one] * 10)
    assert alone.p is not None and many[0].p == pytest.approx(10 * alone.p)
    assert alone.answer == "confirmed" and many[0].answer == "undecided"


def test_wrong_answers_are_rare() -> None:
    """Twenty claims that are true or false by a hair: in 40 families few have a wrong answer at all."""
    wrong = 0
    for family in range(40):
        records: list[Record] = []
        for number in range(5):
            draw = random.Random(f"{family} {number}")
            base = [0.7 + draw.gauss(0, 0.01) for _ in range(5)]
            other = [value + 0.005 + draw.gauss(0, 0.002) for value in base]  # a gain of exactly the margin .01
            records += [*runs("a", other, dataset=f"d{number}"), *runs("b", base, dataset=f"d{number}")]
        claims = [claim(datasets=(f"d{number}",), **CLICK_ONLY) for number in range(5)]
        wrong += any(found.answer != "undecided" for found in verify(records, claims))
    assert wrong <= 8  # at the margin either answer is wrong: two sides of .05 each


# what an undecided claim tells


def test_more_seeds_and_their_commands() -> None:
    found = verdict(pair(0.014, spread=0.004, seeds=3), claim(**CLICK_ONLY))
    (line,) = found.lines
    assert found.answer == "undecided" and line.needed is not None and 3 < line.needed <= MOST
    assert f"{line.needed} seeds confirm it" in found.reason
    assert [c.split()[5] for c in found.commands] == ["a", "b"]
    assert all(c.endswith(f"--seeds {line.needed}") for c in found.commands)
    hopeless = verdict(pair(0.0101, spread=0.01, seeds=3), claim(**CLICK_ONLY))
    assert f"more than {MOST} seeds" in hopeless.reason or (hopeless.lines[0].needed or 0) > 6


def test_seeds_for_have_the_power_that_they_promise() -> None:
    needed = seeds_for(1.0, 1.5, 0.05)
    assert needed is not None
    draw = random.Random(0)
    tries = [[draw.gauss(1.0, 1.5) for _ in range(needed)] for _ in range(1000)]
    found = sum(scipy_stats.ttest_1samp(values, 0, alternative="greater").pvalue < 0.05 for values in tries) / 1000
    assert 0.76 < found < 0.9
    assert seeds_for(0.01, 1.0, 0.05) is None and seeds_for(0.01, 0.0, 0.05) == 2


def test_rows_that_are_missing_or_not_unique() -> None:
    records = [*pair(0.03), *runs("b", noisy(0.7), config=STATIC)]
    twice = verdict(records, claim())
    assert twice.answer == "undecided" and not twice.commands
    assert twice.lines[0].missing == "'b' means several rows: b (balancer=static), b (balancer=uniform)"
    absent = verdict(records, claim(pairs=((A, Selector.of("c, tuned (depth=2)")),)))
    assert absent.lines[0].missing == "no row c, tuned (depth=2)"
    chosen = "-d toy -m c --data shift=0.5 -s depth=2 -s batch_size=512 --epochs 20 --patience 3"
    assert absent.commands == (f"bench tune {chosen} --trials 20", f"bench run --tuned {chosen} --seeds 6")


def test_unequal_tuning_is_told() -> None:
    records = pair(0.03)
    tuned = [{**r, "cost": {"tuning_trials": 20}} for r in records if r["spec"]["method"] == "a"]
    others = [r for r in records if r["spec"]["method"] == "b"]
    found = verdict([*tuned, *others], claim(pairs=((Selector("a", tuned=True), B),)))
    assert found.lines[0].tuning == "UNEQUAL: 20 against 0 trials"
    assert "default settings" in to_console([verdict(records, claim())])
    assert "default settings" not in to_console([found])


# files


GOOD = {
    "claim": "x", "source": "y", "test": "better", "margin": "0.01", "rows": "[[a, b]]", "datasets": "[toy]",
    "refuted": "z",
}  # fmt: skip


def written(folder: Path, **changes: str) -> Path:
    path = folder / "claims.yaml"
    lines = [f"  {key}: {value}" for key, value in {**GOOD, **changes}.items() if value]
    path.write_text("\n".join(["C:", *lines]))
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    (found,) = declared(written(tmp_path, tasks="each", part="cold_item", holds="somewhere", note="n"))
    assert found == Claim(
        "C", "x", "y", "better", 0.01, ((A, B),), ("toy",), "z", (), "cold_item", "somewhere", "n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": ""}, "line 2: 'margin' is missing"),
        ({"margin": "0"}, "line 5: margin: expected a positive difference in skill, got 0"),
        ({"test": "beter"}, "line 4: unknown test 'beter'; did you mean 'better'"),
        ({"part": "cold"}, "line 9: unknown part 'cold'"),
        ({"rows": "[[a]]"}, 'line 6: rows: expected two rows, A and B, got ["a"]'),
        ({"rows": "[[a, b (c)]]"}, "line 6: row 'b (c)': give METHOD"),
        ({"prts": "test"}, "line 9: unknown key 'prts'; did you mean 'part'"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError) as caught:
        declared(written(tmp_path, **changes))
    assert message in str(caught.value)


def test_the_suites_own_claims_name_what_there_is() -> None:
    claims = declared()
    for one in claims:
        for selector in (side for pair in one.pairs for side in pair):
            registry.find("method", selector.method)
            if "balancer" in selector.settings:
                registry.find("balancer", selector.settings["balancer"])
        for dataset in one.datasets:
            registry.find("dataset", dataset)
    assert len({one.name for one in claims}) == len(claims)


# the command


def test_the_claims_on_the_published_records() -> None:
    records = [r for r in Store(REFERENCE).records() if r["spec"]["config"].get("control") != "replay"]
    by_name = {found.claim.name: found for found in verify(records, declared())}
    assert by_name["knowledge helps"].answer == "confirmed"
    assert not [line for found in by_name.values() for line in found.lines if "several rows" in line.missing]
    replay = [command for command in by_name["H18"].commands if "control=replay" in command]
    specs = understood(replay[0])
    assert [spec.seed for spec in specs] == list(range(6)) and specs[0].config["control"] == "replay"
    known = next(r for r in records if r["spec"]["method"] == "controller")
    assert {k for k, v in specs[0].config.items() if known["spec"]["config"][k] != v} == {"control"}


def test_the_command_writes_and_checks(bench: Bench, tmp_path: Path) -> None:
    store, file = Store(tmp_path), written(tmp_path)
    for record in pair(0.03):
        store.put(record)
    options = ("verify-claims", "--results", str(tmp_path))
    assert "a beats" not in bench(*options, "--claims", str(file), "C").output
    assert not (tmp_path / "CLAIMS.md").exists()
    assert "run `bench verify-claims" in bench(*options, "--check", code=2).output
    bench(*options)
    assert "agrees with the records" in bench(*options, "--check").output
    assert "unknown claim 'H99'" in bench(*options, "H99", code=2).output


def test_texts_say_the_same_and_hide_nothing() -> None:
    findings = verify(pair(0.03), [claim(claim="<b>a|b</b>", note="a note"), claim(datasets=("elsewhere",))])
    console, markdown = to_console(findings), to_markdown(findings)
    for text in (console, markdown):
        assert "confirmed" in text and "undecided" in text and "a note" in text and "Refuted by: the contrary." in text
        assert f"{findings[0].lines[0].difference:+.4f}" in text
        assert "bench run -d elsewhere -m a --seeds 6" in text
    assert "<b>" not in markdown.replace("\\<b>", "") and "\\|" in markdown
    assert json.loads(to_json(findings))[0]["claim"]["pairs"] == [["a", "b"]]


def test_modules_load_no_torch() -> None:
    modules = ("claims.verify", "claims.show", "claims.missing_runs", "leaderboard.compare", "leaderboard.selection")
    code = f"import sys, {', '.join('bench.' + m for m in modules)}, bench.cli.show; "
    code += "import bench.cli.verify_claims; print(sorted({'torch', 'transformers', 'polars'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", shlex.quote(done.stdout)


def test_the_file_is_shipped() -> None:
    assert PATH.exists() and "claims/*.yaml" in (registry.ROOT / "pyproject.toml").read_text("utf-8")
