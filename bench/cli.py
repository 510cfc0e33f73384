"""The ``bench`` command. Nobody imports this module."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports torch: waiting threads that spin slow a shared machine down several times, and CUDA is
# deterministic only with a fixed workspace.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import click

from bench import __version__, registry
from bench.errors import BenchError, unknown

if TYPE_CHECKING:
    from bench.spec import Spec
    from bench.store import Store
    from bench.suites import Suite

LISTED = ("methods", "baselines", "balancers", "datasets", "suites", "papers")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
results_option = click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True,
    help="Folder of the records and the leaderboard.",
)  # fmt: skip
plugin_option = click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="A method file outside the checkout."
)
knob_option = click.option(
    "--data", "knobs", multiple=True, metavar="KEY=VALUE", help="A knob of the data set, such as correlation=-0.5."
)
domains_option = click.option(
    "--domains", metavar="TRAIN:TEST", help="Train on some domains, test on others: desktop,mobile:tablet.",
)  # fmt: skip
from_option = click.option(
    "--from", "folder", type=click.Path(path_type=Path, exists=True),
    help="Folder, .zip or .tar.gz that holds the raw files; nothing is downloaded then.",
)  # fmt: skip


class Commands(click.Group):
    """A group that suggests the nearest command, and whose errors are one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """See click; bad input becomes one line and exit code 2, Ctrl-C exit code 130."""
        try:
            return super().invoke(ctx)
        except BenchError as error:
            click.echo(f"bench: {' '.join(str(error).splitlines())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("bench: stopped; stored records are whole, and the same command continues", err=True)
            sys.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """See click; an unknown command names the nearest."""
        if args and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bench")
def main() -> None:
    """Benchmarks of multi-task learning over pretrained language models in recommenders.

    \b
    Reproduce   bench run --suite quick          then   bench board
    Add         bench new method my_idea         then   bench check my_idea
    One run     bench run -d movielens-100k -m mmoe -s experts=8 --seeds 5
    """


@main.command("list")
@click.argument("kind", type=click.Choice(LISTED), required=False)
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """What is there: methods, baselines, balancers, datasets, suites, papers (all of them without an argument).

    `bench list datasets` also tells size, tasks and licence, and whether a data set is prepared, can be fetched, or
    needs files and which.
    """
    found = {k: _listing(k, details=kind is not None) for k in ([kind] if kind else LISTED)}
    if as_json:
        click.echo(json.dumps(found[kind] if kind else found, indent=1))
        return
    for k, rows in found.items():
        if kind is None:
            click.secho(k, bold=True)
        width = max((len(r["name"]) for r in rows), default=0)
        for row in rows:
            click.echo(f"  {row['name']:<{width}}  {row['about']}")
            for line in _details(row) if kind == "datasets" else ():
                click.echo(f"  {'':<{width}}  {line}")
        if not rows:
            click.echo("  none yet")


def _details(row: dict[str, Any]) -> list[str]:
    lines = [f"{row['domain']}; {row['size']}; {', '.join(row['tasks'])}", f"licence: {row['licence']}", row["state"]]
    if row["files"]:
        lines[-1] += f": {', '.join(row['files'])} (see `bench data prepare {row['name']}`)"
    return lines


def _listing(kind: str, details: bool) -> list[dict[str, Any]]:
    if kind == "datasets" and details:
        from bench import catalogue

        return catalogue.datasets()
    if kind == "suites":
        from bench import suites

        return [{"name": name, "about": suites.load(name).about} for name in suites.paths()]
    if kind == "papers":
        folder = registry.ROOT / "bench" / "papers"
        return [{"name": p.stem, "about": ""} for p in sorted(folder.glob("*.yaml"))]
    return [{"name": e.name, "about": e.summary} for e in registry.entries(kind).values()]


@main.group(cls=Commands)
def data() -> None:
    """Prepare data sets, look at them, verify them."""


@data.command()
@click.argument("name")
@from_option
@knob_option
def prepare(name: str, folder: Path | None, knobs: tuple[str, ...]) -> None:
    """Fetch, build and encode data set NAME. What is there already is not made again."""
    from bench.data.prepare import prepare as make
    from bench.progress import progress

    with progress(1) as shown:
        path = make(name, _settings(knobs), folder, shown.step)
    click.echo(path)


@data.command()
@click.argument("name")
@from_option
@knob_option
@json_option
def info(name: str, folder: Path | None, knobs: tuple[str, ...], as_json: bool) -> None:
    """Sizes, label rates, cold-start shares, text coverage, licence and citation of data set NAME."""
    from bench.data.describe import as_text
    from bench.data.describe import info as describe

    dataset, loaded = _loaded(name, knobs, folder)
    found = describe(name, dataset, loaded)
    click.echo(json.dumps(found, indent=1) if as_json else as_text(found))


@data.command()
@click.argument("name")
@from_option
@knob_option
@json_option
def verify(name: str, folder: Path | None, knobs: tuple[str, ...], as_json: bool) -> None:
    """Recompute the hashes of data set NAME and look for leaks."""
    from bench.data.describe import verify as checks

    _report(checks(*_loaded(name, knobs, folder)), as_json)


@main.command()
@click.option("-d", "--dataset", "datasets", multiple=True, help="Data set; may be repeated.")
@click.option("-m", "--method", "methods", multiple=True, help="Method or baseline; may be repeated.")
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as lr=0.003."
)
@click.option("--suite", help="Run a named suite instead.")
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds (default 1, or the suite's).")
@click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20, or the suite's).")
@click.option(
    "--patience", type=click.IntRange(1), help="Epochs without improvement before stopping (default 3, or the suite's)."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
    help="Runs at a time on the CPU, one thread each.",
)  # fmt: skip
@domains_option
@click.option("--retry", is_flag=True, help="Run again what has a record of a failure.")
@knob_option
@from_option
@results_option
@plugin_option
@json_option
def run(
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    given: tuple[str, ...],
    suite: str | None,
    seeds: int | None,
    epochs: int | None,
    patience: int | None,
    device: str,
    workers: int,
    domains: str | None,
    retry: bool,
    knobs: tuple[str, ...],
    folder: Path | None,
    results: Path,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Train and evaluate methods on data sets; store one record a run.

    A run whose record is stored already is not made again, so the same command continues after an interruption.
    """
    from bench.suites import Entry, Setup, Suite, load

    for plugin in plugins:
        registry.add_plugin(plugin)
    if suite and (datasets or methods):
        raise BenchError("give either --suite or -d and -m")
    if not suite and not (datasets and methods):
        raise BenchError("say what to run: -d DATASET -m METHOD, or --suite NAME (see `bench list`)")
    named = [Entry(name) for name in methods]
    plan = load(suite) if suite else Suite("", 1, {name: Setup(named) for name in datasets})
    for name in plan.datasets:  # names are checked before the slow imports
        registry.find("dataset", name)
    for name in plan.methods:
        registry.find("method", name)
    limits = {k: v for k, v in (("epochs", epochs), ("patience", patience)) if v is not None}
    specs = _specs(plan, _settings(given), _knobs(knobs, domains), limits, seeds)

    from bench.execute import execute
    from bench.machine import device_of
    from bench.progress import progress
    from bench.store import Store

    store = Store(results)
    with progress(len(specs)) as shown:
        outcome = execute(specs, store, shown, device=device_of(device), workers=workers, raw=folder, retry=retry)
    records = [r for s in specs if (r := store.get(s.to_dict(), s.key))]
    click.echo(", ".join(f"{n} {status}" for status, n in sorted(outcome.items())), err=True)
    if as_json:
        click.echo(json.dumps(records, indent=1))
    else:
        _print_board(records)
    _fail_on(records)


def _specs(
    plan: Suite, given: dict[str, Any], knobs: dict[str, Any], limits: dict[str, int], seeds: int | None
) -> list[Spec]:
    from bench.run import specify

    for key in given:
        if any(key in entry.settings for setup in plan.datasets.values() for entry in setup.entries):
            raise BenchError(f"-s {key}: the entries of this suite differ in '{key}'; run one of them with -d and -m")
    return [
        specify(
            dataset,
            entry.method,
            given={**setup.settings, **entry.settings, **given},
            knobs=knobs,
            seed=seed,
            budget={**setup.budget, **limits},
        )
        for dataset, setup in plan.datasets.items()
        for entry in setup.entries
        for seed in range(seeds or plan.seeds)
    ]


def _fail_on(records: list[dict[str, Any]]) -> None:
    """Exit code 1, with a line for each, if a run ended without a result that it should have had."""
    from bench.leaderboard import run_names

    names = run_names([r["spec"] for r in records])
    bad = [(name, r) for name, r in zip(names, records, strict=True) if r["status"] not in ("ok", "declined")]
    for name, r in bad:
        click.echo(f"bench: {name}: {r['status']}: {r['error']}", err=True)
    if bad:
        sys.exit(1)


@main.command()
@click.option("-d", "--dataset", required=True, help="Data set.")
@click.option("-m", "--method", required=True, help="Method or baseline.")
@click.option(
    "-s", "--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as experts=8."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The run's seed.")
@click.option("--epochs", type=click.IntRange(1), help="Most epochs (default 20).")
@click.option("--patience", type=click.IntRange(1), help="Epochs without improvement before stopping (default 3).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@domains_option
@knob_option
@from_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to (default results/explain/RUN)."
)
@plugin_option
@json_option
def explain(
    dataset: str,
    method: str,
    given: tuple[str, ...],
    seed: int,
    epochs: int | None,
    patience: int | None,
    device: str,
    domains: str | None,
    knobs: tuple[str, ...],
    folder: Path | None,
    out: Path | None,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Explain how the tasks of one run work on one another: explain.md, explain.html, explain.json.

    The run is trained again as `bench run` with the same options would, with measurements beside. Only training and
    validation data are used. See docs/explaining.md.
    """
    for plugin in plugins:
        registry.add_plugin(plugin)
    registry.find("dataset", dataset)  # names are checked before the slow imports
    registry.find("method", method)
    from bench.execute import prepare_all
    from bench.explain import explain as explained
    from bench.explain.report import to_html, to_markdown
    from bench.machine import device_of
    from bench.progress import progress
    from bench.run import specify
    from bench.store import write_atomically

    budget = {k: v for k, v in (("epochs", epochs), ("patience", patience)) if v is not None}
    chosen, settings = _knobs(knobs, domains), _settings(given)
    spec = specify(dataset, method, given=settings, knobs=chosen, seed=seed, budget=budget)
    with progress(1) as shown:
        (path,) = prepare_all([spec], folder, shown)
        shown.begin(job := f"{dataset}/{method}/{seed}")
        found = explained(spec, device=device_of(device), folder=path, report=shown.note)
        shown.end(job, "ok")
    target = out or Path("results") / "explain" / f"{dataset}-{method}-{spec.key}"
    text = json.dumps(found, indent=1, allow_nan=False)
    for name, content in (("json", text + "\n"), ("md", to_markdown(found)), ("html", to_html(found))):
        write_atomically(target / f"explain.{name}", content.encode())
    click.echo(text if as_json else target / "explain.html")


@main.command()
@click.option("-d", "--dataset", required=True, help="Data set whose texts are read.")
@click.option("--lm", default="all-MiniLM-L6-v2", show_default=True, help="Language model to go on from, or a folder.")
@click.option(
    "--objective", type=click.Choice(["mlm", "context", "both"]), default="mlm", show_default=True,
    help="What is learnt: masked tokens, which texts belong together, or the sum of both.",
)  # fmt: skip
@click.option(
    "--tokens", type=click.IntRange(1), default=2_000_000, show_default=True,
    help="Tokens that pass through the model: the budget to compare objectives at.",
)  # fmt: skip
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=5e-5, show_default=True,
    help="Highest learning rate; at 3e-4 unrelated texts grow alike.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of masks, batches and head.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@domains_option
@knob_option
@from_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to make (default models/DATASET-LM-OBJECTIVE-SEED)."
)
@json_option
def pretrain(
    dataset: str,
    lm: str,
    objective: str,
    tokens: int,
    lr: float,
    seed: int,
    device: str,
    domains: str | None,
    knobs: tuple[str, ...],
    folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Go on training a language model on the texts of a data set, before any label is seen.

    Only the training part's texts are read: those of its candidates and histories. `mlm` hides 15 % of the tokens, and
    the model says what they were. `context` draws together, in a batch, an item and the next one of the same history,
    and a text's first sentence and its rest. The result is a model folder that any method takes:

    \b
    bench pretrain -d sim-news --objective both --out models/news
    bench run -d sim-news -m lora -s lm=models/news

    Printed are a loss and a recall on held-out texts, before and after. See docs/language_models.md.
    """
    registry.find("dataset", dataset)  # names are checked before the slow imports
    from bench.data.prepare import load
    from bench.data.prepare import prepare as prepared
    from bench.machine import device_of
    from bench.progress import progress
    from bench.text.models import identity
    from bench.text.pretrain import material
    from bench.text.pretrain import pretrain as pretrained

    chosen = _knobs(knobs, domains)
    model = identity(lm)
    target = out or Path("models") / f"{dataset}-{model.partition('@')[0].rpartition('/')[2]}-{objective}-{seed}"
    with progress(1) as shown:
        data = load(prepared(dataset, chosen, folder, shown.step))
        shown.begin(job := f"{dataset}/{model}/{objective}")
        about = {"dataset": dataset, "knobs": data.meta["knobs"], "data": data.meta["sha256"]}
        try:
            found = pretrained(
                *material(data.train), model, target, objective=objective, tokens=tokens, lr=lr, seed=seed,
                device=device_of(device), about=about, report=shown.note,
            )  # fmt: skip
        except FloatingPointError as error:
            raise BenchError(f"{error} (--lr {lr:g})") from error
        shown.end(job, "ok")
    if as_json:
        click.echo(json.dumps({"folder": str(target), **found}, indent=1))
        return
    click.echo(f"{target}  {found['tokens']:,} tokens of {found['texts']:,} texts, {found['pairs']:,} pairs")
    for name in ("masked_loss", "recall@10"):
        if (of := found.get(name)) and of["before"] is not None:
            click.echo(f"held-out {name}: {of['before']:.4f} before, {of['after']:.4f} after")


@main.command()
@results_option
@json_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the stored leaderboard differs.")
def board(results: Path, as_json: bool, check: bool) -> None:
    """Print the leaderboard of the stored records and write it to RESULTS/LEADERBOARD.md (with --json: only print)."""
    from bench import leaderboard, render
    from bench.store import Store, write_atomically

    made = leaderboard.board(list(Store(results).records()))
    path, text = results / "LEADERBOARD.md", render.to_markdown(made).encode()
    if check:
        if not path.exists() or path.read_bytes() != text:
            raise BenchError(f"{path} is not what the records give; run `bench board --results {results}`")
        click.echo(f"{path} agrees with the records")
        return
    if as_json:
        click.echo(render.to_json(made))
        return
    click.echo(render.to_console(made, _width()))
    write_atomically(path, text)


def _print_board(records: list[dict[str, Any]]) -> None:
    from bench import leaderboard, render

    if any(r["status"] == "ok" for r in records):
        click.echo(render.to_console(leaderboard.board(records), _width()))


def _width() -> int | None:
    """Columns of the terminal; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@main.command()
@click.argument("kind", type=click.Choice(["method", "dataset"]))
@click.argument("name")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Another folder, for a method run with --plugin.",
)
def new(kind: str, name: str, folder: Path | None) -> None:
    """Write the skeleton of a new method or data set: one file that already runs."""
    from bench.scaffold import create

    path = create(kind, name, folder)
    known = registry.name_of(kind + "s", path)
    plugin = f" --plugin {path}" if folder and kind == "method" else ""
    click.echo(f"{path}\nnext: change it, then `bench check {known}{plugin}`")


@main.command()
@click.argument("name", required=False)
@from_option
@knob_option
@results_option
@plugin_option
@json_option
def check(
    name: str | None,
    folder: Path | None,
    knobs: tuple[str, ...],
    results: Path,
    plugins: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check the method or data set NAME against the contract, in plain words.

    Without NAME: list stored records whose method has other code now under an unchanged version.
    """
    for plugin in plugins:
        registry.add_plugin(plugin)
    if name is None:
        _stale(results)
        return
    methods, datasets = registry.methods(), registry.entries("datasets")
    if name not in methods and name not in datasets:
        raise unknown("method or data set", name, [*methods, *datasets])
    from bench import check as contract
    from bench.data.describe import verify as checks

    _report(contract.method(name) if name in methods else checks(*_loaded(name, knobs, folder)), as_json)


def _stale(results: Path) -> None:
    from bench.check import stale_records
    from bench.store import Store

    store: Store = Store(results)
    found = list(stale_records(store))
    click.echo("\n".join(found) or "every record's method has the code it was run with")
    if found:
        sys.exit(1)


def _report(checks: Iterable[tuple[str, str]], as_json: bool) -> None:
    """Prints each check as it ends; exit code 1 if any found something."""
    found = []
    for title, problem in checks:
        found.append({"check": title, "ok": not problem, "problem": problem})
        if not as_json:
            click.echo(f"{'FAILED' if problem else 'ok':>6}  {title}{f': {problem}' if problem else ''}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if any(not f["ok"] for f in found):
        sys.exit(1)


def _knobs(pairs: tuple[str, ...], domains: str | None) -> dict[str, Any]:
    knobs = _settings(pairs)
    if domains is not None:
        train, colon, test = domains.partition(":")
        if not (train and colon and test):
            raise BenchError(
                f"--domains {domains}: give TRAIN:TEST, each a list with commas, such as desktop,mobile:tablet"
            )
        knobs["domains"] = {"train": train.split(","), "test": test.split(",")}
    return knobs


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    from bench.config import parse

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BenchError(f"'{pair}' is no KEY=VALUE")
        found[key] = parse(value)
    return found


def _loaded(name: str, knobs: tuple[str, ...], folder: Path | None) -> tuple[Any, Any]:
    from bench.data.prepare import load, make
    from bench.data.prepare import prepare as prepared

    dataset, _ = make(name, _settings(knobs))
    return dataset, load(prepared(name, _settings(knobs), folder))


if __name__ == "__main__":
    main()
