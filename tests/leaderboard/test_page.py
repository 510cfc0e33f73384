"""The page in a real browser: Debian's Chromium, driven by Playwright, on the file as a reader opens it."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.leaderboard.board import board
from bench.leaderboard.figures.contents import figures
from bench.leaderboard.page.html import embedded, to_html
from bench.spec import digest
from tests.support.command import until

playwright = pytest.importorskip(
    "playwright.sync_api", reason="pip install playwright: the page is tested in a browser"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: `apt-get install chromium` to test the page in a browser"
)

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "</script><img src=x onerror=alert(2)><!--"
Record = dict[str, Any]
Open = Callable[..., Any]


def record(dataset: str, method: str, seed: int, click: float, watch: float, **config: Any) -> Record:
    spec = {
        "dataset": dataset, "dataset_version": 1, "dataset_config": {}, "method": method, "method_version": 1,
        "parts": {}, "config": {"lr": 0.002, **config}, "lm": "tiny@1" if method == "frozen" else None, "seed": seed,
        "protocol": "clean-1", "budget": {"epochs": 3, "patience": 3},
    }  # fmt: skip
    values = {"click": {"auc": click}, "watch": {"rmse": watch}}
    chance = {"click": {"auc": 0.5}, "watch": {"rmse": 2.0}}
    return {
        "schema": 1, "key": digest(spec), "spec": spec, "role": "final", "status": "ok", "error": None,
        "reference": method == "popularity",
        "tasks": [{"name": "click", "metric": "auc"}, {"name": "watch", "metric": "rmse"}],
        "metrics": {"valid": values, "test": values, "slices": {"cold_item": {"rows": 9, "metrics": values}}},
        "references": {"chance": {"test": chance, "slices": {"cold_item": {"rows": 9, "metrics": chance}}}},
        "curve": [{"epoch": e, "valid": {"click": click - 0.1 / e, "watch": watch + 0.1 / e}} for e in (1, 2, 3)],
        "cost": {"fit_s": 1.0 + 30 * click, "trained": round(1e6 * watch), "tuning_trials": 0, "tuning_s": 0.0},
        "data": {"sha256": dataset * 8, "rows": {"train": 80, "valid": 10, "test": 15}}, "env": {"device": "cpu"},
    }  # fmt: skip


def few() -> list[Record]:
    """Two data sets; the methods differ in every way that the page shows."""
    made = []
    for dataset in ("toy", "other"):
        for seed in range(3):
            made += [
                record(dataset, "single_task", seed, 0.60 + seed / 100, 1.0),
                record(dataset, "mmoe", seed, 0.75 + seed / 90, 0.8),
                record(dataset, "frozen", seed, 0.70 + seed / 80, 1.1),
                record(dataset, "popularity", seed, 0.55, 1.9),
                record(dataset, HOSTILE, seed, 0.65, 1.5, note=BREAKOUT),
            ]
    failed = record("toy", "ple", 0, 0.5, 0.5) | {
        "status": "diverged",
        "error": f"loss is nan {HOSTILE}",
        "metrics": None,
    }
    return [*made, failed]


def written(records: list[Record], folder: Path) -> str:
    made = board(records)
    path = folder / "index.html"
    path.write_text(to_html(made, records, figures(made, records, [])[0]), "utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(few(), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Its windows stay open from test to test, since opening one takes longer than most tests."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield browser.new_context(offline=True)
        browser.close()


@pytest.fixture
def visit(browser: Any, site: str) -> Iterator[Open]:
    """Opens the page in a window of its own; fails if it logs, asks, throws or requests anything."""
    seen: list[str] = []
    allowed = {"about:blank", site}
    heard = {
        "console": lambda message: seen.append(f"console: {message.text}"),
        "weberror": lambda error: seen.append(f"error: {error.error}"),
        "dialog": lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        "request": lambda r: None if r.url.split("#")[0] in allowed else seen.append(f"request: {r.url}"),
    }
    windows = iter([*browser.pages])

    def call(address: str = "", url: str = "", before: str = "", color_scheme: str = "light") -> Any:
        page = (None if before else next(windows, None)) or browser.new_page()
        page.bring_to_front()
        page.set_default_timeout(10_000)
        page.set_viewport_size({"width": 1200, "height": 900})
        page.emulate_media(color_scheme=color_scheme)
        if before:
            page.add_init_script(before)
        page.goto("about:blank")  # an address that differs in what follows # alone would not load the page anew
        allowed.add(url)
        page.goto((url or site) + address)
        return page

    call.seen = seen  # type: ignore[attr-defined]
    for event, hear in heard.items():
        browser.on(event, hear)
    yield call
    for event, hear in heard.items():
        browser.remove_listener(event, hear)
    assert not seen


def wait(page: Any, condition: str) -> None:
    """Until a JavaScript condition holds; Playwright's ``wait_for_function`` needs eval, which the policy forbids."""
    until(lambda: page.evaluate(condition), 10, 0.02)


def labels(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(".board > tbody > tr:not(.detail) > th").all_inner_texts()]


def column(page: Any, header: str) -> Any:
    return page.locator(".board > thead th", has=page.locator(f"button:has-text('{header}')"))


def test_shows_each_data_set_and_part(visit: Open) -> None:
    page = visit()
    assert page.locator("[name=data] option").all_inner_texts() == ["other", "toy", "Overall"]
    page.select_option("[name=data]", label="toy")
    assert page.locator("#results").inner_text() == "toy"
    assert set(labels(page)) == {"mmoe", "frozen", "single_task", HOSTILE, "popularity", "chance"}
    assert "ple: diverged (seed 0): loss is nan" in page.locator("#notes").inner_text()
    page.select_option("[name=part]", label="cold items")
    assert "9 test rows" in page.locator(".board caption").inner_text()
    page.select_option("[name=data]", label="Overall")
    assert "mmoe" in labels(page)


def test_sorting_by_number_and_by_name(visit: Open) -> None:
    page = visit()
    cells = lambda i: [float(t.split()[0]) for t in page.locator(f".board tbody td:nth-child({i})").all_inner_texts()]  # noqa: E731
    watch = column(page, "watch")
    watch.locator("button").click()
    assert watch.get_attribute("aria-sort") == "ascending"  # of an error the smallest first
    assert cells(3) == sorted(cells(3)) and len(cells(3)) == 6
    watch.locator("button").click()
    assert watch.get_attribute("aria-sort") == "descending" and cells(3) == sorted(cells(3), reverse=True)
    column(page, "click").locator("button").click()
    assert column(page, "click").get_attribute("aria-sort") == "descending" and watch.get_attribute("aria-sort") is None
    assert cells(2) == sorted(cells(2), reverse=True)
    column(page, "method").locator("button").click()
    assert labels(page) == sorted(labels(page))


def test_a_task_may_have_any_name(visit: Open, tmp_path: Path) -> None:
    records = json.loads(json.dumps(few()).replace('"watch"', '"watch time ↑"'))
    page = visit(url=written(records, tmp_path))
    assert page.locator("[name=task] option").all_inner_texts() == ["all", "click", "watch time ↑"]
    page.select_option("[name=task]", "watch time ↑")
    watch = column(page, "watch time ↑")
    assert watch.locator("small").inner_text() == "rmse ↓" and column(page, "click").count() == 0
    watch.locator("button").click()
    assert watch.get_attribute("aria-sort") == "ascending"


def test_rows_without_a_value_come_last(visit: Open) -> None:
    page = visit()
    page.select_option("[name=part]", label="over tasks, and costs")
    for _ in range(2):
        column(page, "Δm %").locator("button").click()
        assert labels(page)[-1] == "single_task"


def test_filters(visit: Open) -> None:
    page = visit()
    page.fill("[name=q]", "MO")
    assert labels(page) == ["mmoe"] and page.locator("#status").inner_text() == "1 of 6 rows"
    page.fill("[name=q]", "")
    page.select_option("[name=text]", "with")
    assert labels(page) == ["frozen", "chance"]
    page.select_option("[name=text]", "without")
    assert "frozen" not in labels(page) and "mmoe" in labels(page)
    page.click("button[type=reset]")
    page.uncheck("[value=baseline]")
    page.uncheck("[value=chance]")
    assert set(labels(page)) == {"frozen", HOSTILE, "popularity"}
    page.select_option("[name=task]", "click")
    assert column(page, "click").count() == 1 and column(page, "watch").count() == 0
    assert column(page, "mean skill").count() == 1


def test_the_address_keeps_filter_sort_and_open_rows(visit: Open) -> None:
    page = visit()
    page.select_option("[name=data]", label="toy")
    page.select_option("[name=part]", label="cold items")
    page.select_option("[name=task]", "watch")
    page.uncheck("[value=reference]")
    column(page, "watch").locator("button").click()
    page.click("text=mmoe")
    page.locator("summary").first.click()
    wait(page, "location.hash.includes('fig=')")
    again = visit(page.url.removeprefix(page.url.split("#")[0]))
    assert again.url == page.url and "#" in page.url
    assert labels(again) == labels(page) and "popularity" not in labels(again)
    assert column(again, "watch").get_attribute("aria-sort") == "ascending" and column(again, "click").count() == 0
    again.locator("svg").first.wait_for()
    assert again.locator(".detail").count() == 1 and again.locator("details[open]").count() == 1
    assert again.locator("[name=part]").input_value() == page.locator("[name=part]").input_value()
    again.evaluate("location.hash = 'q=frozen'")
    wait(again, "document.querySelectorAll('.board > tbody > tr').length === 1")
    assert labels(again) == ["frozen"]


def test_an_address_that_names_nothing_shows_the_first_table(visit: Open) -> None:
    page = visit("#data=gone&part=99&task=gone&sort=gone&open=gone&fig=gone&unknown=1&family=mmoe,baseline")
    assert page.locator("#results").inner_text() == "other" and "mmoe" in labels(page)


def test_a_row_opens_with_seeds_settings_keys_and_command(visit: Open) -> None:
    page = visit()
    button = page.locator("button:has-text('mmoe')")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    text = page.locator(".detail").inner_text()
    keys = [r["key"] for r in few() if r["spec"]["method"] == "mmoe" and r["spec"]["dataset"] == "other"]
    assert len(keys) == 3 and all(key in text for key in keys)
    assert "0.761111" in text  # of seed 1
    assert "bench run -d other -m mmoe -s lr=0.002 --epochs 3 --patience 3 --seeds 3" in text
    button.click()
    assert page.locator(".detail").count() == 0 and button.get_attribute("aria-expanded") == "false"


def test_hostile_names_and_values_are_text(visit: Open) -> None:
    page = visit()
    page.locator(f"button:has-text('{HOSTILE}')").click()
    assert BREAKOUT in page.locator(".detail dd").all_inner_texts()
    for summary in page.locator("summary").all():
        summary.click()
    page.select_option("[name=data]", label="toy")
    assert HOSTILE in page.locator("#notes").inner_text()
    assert page.locator("img").count() == 0 and page.locator("script").count() == 3


def test_its_policy_lets_nothing_else_run_or_load(visit: Open, site: str) -> None:
    html = Path(site.removeprefix("file://")).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy and "default-src &#39;none&#39;" in policy[1] and "unsafe" not in policy[1]
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?!#)[\w/.:]", html.split('<script type="application/json"')[0])
    page = visit()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    page.evaluate("fetch('https://example.org').catch(() => 0)")
    assert page.evaluate("window.ran") is None
    assert [text for text in visit.seen if "Content Security Policy" in text]  # type: ignore[attr-defined]
    visit.seen.clear()  # type: ignore[attr-defined]


def test_dark_mode_follows_the_system_and_the_button(visit: Open) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(color_scheme="light"), visit(color_scheme="dark")
    bright, dim = light.evaluate(paper), dark.evaluate(paper)
    assert bright == "rgb(255, 255, 255)" and dim != bright
    assert dark.locator("#theme").get_attribute("aria-pressed") == "true"
    light.click("#theme")
    assert light.evaluate(paper) == dim and light.locator("#theme").get_attribute("aria-pressed") == "true"
    light.reload()
    assert light.evaluate(paper) == dim  # it is remembered
    light.click("#theme")
    assert light.evaluate(paper) == bright


def test_by_keyboard_alone(visit: Open) -> None:
    page = visit()
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "results"
    page.keyboard.press("Tab")  # the table's region, to scroll it
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent") == "method"
    page.keyboard.press("Enter")
    assert column(page, "method").get_attribute("aria-sort") == "ascending"
    assert page.evaluate(f"{focused}.textContent") == "method"  # focus stays
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    while page.evaluate(f"{focused}.getAttribute('aria-expanded')") is None:
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator(".detail").count() == 1 and page.evaluate(f"{focused}.getAttribute('aria-expanded')") == "true"


def test_figures_open_and_answer(visit: Open) -> None:
    page = visit()
    titles = page.locator("summary").all_inner_texts()
    assert len(titles) == 3 and "quality against cost" in titles[0] and "gain over single_task" in titles[1]
    for summary in page.locator("summary").all():
        summary.click()
    wait(page, "[...document.querySelectorAll('details')].every(d => d.querySelector('svg, .gains'))")
    page.locator("svg").first.locator(".mark").first.focus()
    first = page.locator(".readout").inner_text()
    page.keyboard.press("ArrowRight")
    second = page.locator(".readout").inner_text()
    assert first.startswith("mmoe: mean skill") and "Pareto" in first and second.startswith("single_task: mean skill")
    page.keyboard.press("Enter")
    assert labels(page) == ["single_task"] and page.locator(".detail").count() == 1
    assert page.evaluate("document.activeElement.textContent") == "single_task"
    page.click("button[type=reset]")
    gains = dict(row.inner_text().split("\t")[:2] for row in page.locator(".gains tbody tr").all())
    assert gains == {"mmoe": "+24.8*", "frozen": "+16.8*", HOSTILE: "+6.6*"}  # means of .75/.60, .761/.61, .772/.62 ...
    curves = page.locator("svg path:not(.band)")
    before = curves.count()
    page.locator(".choice input").first.uncheck()
    assert curves.count() == before - 2  # a line in each of two panels
    page.select_option("[name=data]", label="Overall")
    page.locator("summary").click()
    assert page.locator(".ranks tbody th").first.inner_text() == "mmoe"


def test_names_for_screen_readers(visit: Open) -> None:
    page = visit()
    page.click("text=mmoe")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope === 'col' || th.scope === 'row')")
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption.textContent)")
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(i => i.labels.length === 1)")
    assert page.get_by_role("button", name="mmoe", expanded=True).count() == 1
    assert page.get_by_role("region", name="other").count() == 1
    assert page.get_by_role("status").inner_text() == "6 of 6 rows"


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_never_scrolls_sideways(visit: Open, tmp_path: Path, width: int) -> None:
    long = [record("toy", "mmoe", 0, 0.6, 1.0, setting=text) for text in ("x" * 90, "y" * 90)]
    page = visit("#fig=quality,gains,training&data=toy", url=written([*few(), *long], tmp_path))
    page.set_viewport_size({"width": width, "height": 800})
    page.locator(f"button:has-text('{HOSTILE}')").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('tbody th')].every(th => th.scrollWidth <= th.clientWidth)")


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = few()
    first = Path(written(records, tmp_path).removeprefix("file://")).read_bytes()
    random.Random(0).shuffle(records)
    assert Path(written(records, tmp_path).removeprefix("file://")).read_bytes() == first


def test_no_text_can_end_the_data() -> None:
    text = embedded([BREAKOUT, "\u2028"])
    assert "<" not in text and json.loads(text) == [BREAKOUT, "\u2028"]


# Milliseconds from the beginning of the visit until the frame with the first rows is on the screen.
WATCH = """new MutationObserver((_, observer) => {
  if (!document.querySelector(".board > tbody > tr")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.seen = performance.now(); }));
}).observe(document, { childList: true, subtree: true });"""


@pytest.mark.slow
def test_five_thousand_records_are_seen_within_a_second(visit: Open, tmp_path: Path) -> None:
    rng = random.Random(0)
    records = [
        record("big", "mmoe", seed, rng.uniform(0.5, 0.9), rng.uniform(0.5, 1.5), width=width)
        for width in range(1000)
        for seed in range(5)
    ]
    url = written(records, tmp_path)
    times = []
    for _ in range(5):
        page = visit(url=url, before=WATCH)
        wait(page, "window.seen")
        times.append(page.evaluate("window.seen") / 1000)
        wait(page, "document.querySelectorAll('.board > tbody > tr').length === 1001")
    print(f"first view with 5,000 records: {', '.join(f'{t:.2f} s' for t in times)}")
    assert median(times) < 1
    begin = time.monotonic()
    column(page, "click").locator("button").click()
    wait(page, "document.querySelectorAll('.board > tbody > tr').length === 1001")
    assert time.monotonic() - begin < 5


def test_all_of_many_rows_are_there_and_sorted(visit: Open, tmp_path: Path) -> None:
    records = [record("big", "mmoe", 0, 0.5 + i / 500, 1.0, width=i) for i in range(200)]
    page = visit(url=written(records, tmp_path))
    wait(page, "document.querySelectorAll('.board > tbody > tr').length === 201")
    column(page, "click").locator("button").click()
    wait(page, "document.querySelectorAll('.board > tbody > tr').length === 201")
    assert labels(page)[:200] == [f"mmoe (width={i})" for i in reversed(range(200))]
