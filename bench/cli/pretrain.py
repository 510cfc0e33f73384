"""bench pretrain"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench import registry
from bench.cli._main import main
from bench.cli._options import domains_option, from_option, json_option, knob_option, knobs_of, plugin_option
from bench.errors import BenchError


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
@plugin_option
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

    Printed are a loss and a recall on held-out texts, and how often the next item of the validation part is among the
    nearest, before and after. See docs/language_models.md.
    """
    registry.find("dataset", dataset)  # names are checked before the slow imports
    from bench.data.load import load
    from bench.data.prepare import prepare as prepared
    from bench.execution.progress import progress
    from bench.machine.device import device_of
    from bench.text.models import identity
    from bench.text.pretrain import material, next_items
    from bench.text.pretrain import pretrain as pretrained

    chosen = knobs_of(knobs, domains)
    model = identity(lm)
    target = out or Path("models") / f"{dataset}-{model.partition('@')[0].rpartition('/')[2]}-{objective}-{seed}"
    with progress(1) as shown:
        data = load(prepared(dataset, chosen, folder, shown.step))
        shown.begin(job := f"{dataset}/{model}/{objective}")
        texts, pairs = material(data.train)
        about = {"dataset": dataset, "knobs": data.meta["knobs"], "data": data.meta["sha256"]}
        try:
            found = pretrained(
                texts, pairs, model, target, objective=objective, tokens=tokens, lr=lr, seed=seed,
                device=device_of(device), coming=next_items(data.valid, pairs), about=about, report=shown.note,
            )  # fmt: skip
        except FloatingPointError as error:
            raise BenchError(f"{error} (--lr {lr:g})") from error
        shown.end(job, "ok")
    if as_json:
        click.echo(json.dumps({"folder": str(target), **found}, indent=1))
    else:
        _show(target, found)


def _show(target: Path, found: dict[str, Any]) -> None:
    """Prints what was read, and what the model knows of held-out texts and next items, before and after."""
    click.echo(f"{target}  {found['tokens']:,} tokens of {found['texts']:,} texts, {found['pairs']:,} pairs")
    for name in ("masked_loss", "recall@10"):
        if (of := found.get(name)) and of["before"] is not None:
            click.echo(f"held-out {name}: {of['before']:.4f} before, {of['after']:.4f} after")
    if ahead := found.get("next_item"):
        click.echo(
            f"next items: {ahead['pairs']:,} new pairs of {ahead['users']:,} users, among {ahead['candidates']:,} texts"
        )
        for name in ("recall@10", "recall@100", "mrr"):
            of = ahead[name]
            interval = "" if of["low"] is None else f", 95 % interval {of['low']:+.4f} to {of['high']:+.4f}"
            gain = of["after"] - of["before"]
            click.echo(f"  {name}: {of['before']:.4f} before, {of['after']:.4f} after, {gain:+.4f}{interval}")
