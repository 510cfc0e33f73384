"""Continues a language model's pretraining on item texts (Gururangan et al., Don't Stop Pretraining, ACL 2020)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.tensors import Split
from bench.errors import BenchError, unknown
from bench.machine.device import set_up
from bench.nn.schedule import rate
from bench.spec import canonical, derive_seed, digest
from bench.storage import cache
from bench.text.models import identity, locate
from bench.text.network import network
from bench.text.objectives import HEAD_LR, OBJECTIVES, Context, Masked, Pairs, title_and_body
from bench.text.recall import NextItems, Recall, compare_ranks
from bench.text.tokens import tokenise

VERSION = 2  # bump when the same arguments should give other weights
TOKENS, LR = 2_000_000, 5e-5
WARMUP = 0.1
HELD = 0.05  # share of the texts that are kept for the measurements
POINTS = 20  # of the training curve


def material(train: Split) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns what the training part shows, each once: texts, and pairs of texts.

    The texts are those of its candidates and histories, the pairs those of consecutive items of a history.
    """
    texts, history = train.schema.texts, train.history.cpu().long()
    rows = torch.unique(torch.cat([train.item.cpu().long(), history.flatten()]))
    pairs = {pair for _, pair in _steps(train, history[:, :-1], history[:, 1:], torch.tensor(0))}
    return sorted({texts[row] for row in rows.tolist()} - {""}), sorted(pairs)


def next_items(valid: Split, known: Pairs) -> NextItems:
    """Returns what follows what in the validation part, each once for each user, without the ``known`` pairs.

    Pairs are consecutive items of a history, and its last item with each that the user then chose (role ``rec``). The
    ``known`` pairs are those that are learnt from. Candidates are the texts that the validation part shows.
    """
    history = valid.history.cpu().long()
    found = set(_steps(valid, history[:, :-1], history[:, 1:], valid.user[:, None]))
    group = torch.from_numpy(valid.group)
    for task in valid.schema.tasks:
        if task.role == "rec":
            chosen = valid.labels[task.name].cpu() > 0
            of = group[chosen]
            found |= _steps(valid, history[of, -1], valid.item.cpu().long()[chosen], valid.user.cpu()[of])
    old = set(known)
    new = sorted((user, pair) for user, pair in found if pair not in old)
    return NextItems([user for user, _ in new], [pair for _, pair in new], material(valid)[0])


def _steps(split: Split, first: Tensor, second: Tensor, user: Tensor) -> set[tuple[int, tuple[str, str]]]:
    """The user and the two texts of each step from an item to another. first, second: item rows, alike; user: numbers
    that expand to these."""
    users = user.cpu().long().expand_as(first)
    steps = torch.stack([users.flatten(), first.flatten(), second.flatten()], dim=1)
    steps = torch.unique(steps[(steps[:, 1:] > 0).all(dim=1)], dim=0)
    texts = split.schema.texts
    pairs = ((user, (texts[a], texts[b])) for user, a, b in steps.tolist())
    return {(user, (a, b)) for user, (a, b) in pairs if a and b and a != b}


def content(texts: Sequence[str], pairs: Pairs) -> str:
    """Returns the sha256 of what is learnt from, in hex."""
    return hashlib.sha256(canonical([list(texts), [list(pair) for pair in pairs]]).encode()).hexdigest()


def pretrain(
    texts: Sequence[str],
    pairs: Pairs,
    lm: str,
    folder: Path,
    *,
    objective: str = "mlm",
    tokens: int = TOKENS,
    lr: float = LR,
    seed: int = 0,
    device: str | torch.device = "cpu",
    coming: NextItems | None = None,
    about: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains all of a language model and writes it to a new ``folder``; returns what ``pretrain.json`` there says.

    lm: an identity (``bench.text.models.identity``). pairs: texts of consecutive items. objective: ``mlm``, masked
    tokens; ``context``, which texts belong together: consecutive items, and the first sentence with the rest;
    ``both``, the sum of the two losses. tokens: how many pass through the model while it is trained, padding not
    counted; the last batch may go beyond. lr: at its highest, after a tenth of the tokens; it ends at 0. coming: what
    to measure the recall of next items on, before and after; the weights do not depend on it. about: more to say in
    ``pretrain.json``.

    Of the texts 5 % are held out: neither they nor pairs with them are trained on. They tell, before and after, the
    mean loss of masked tokens, and the share of pairs whose second text is among the 10 that are nearest to the first,
    of about 2,000. The same arguments give the same weights, bit for bit on a CPU; the global generator is left as it
    was. Raises BenchError for a bad argument, FloatingPointError if a loss stops being finite.
    """
    check_settings(objective, tokens, lr)
    if folder.exists():
        raise BenchError(f"{folder} exists; remove it, or choose another folder with --out")
    texts = sorted(set(texts) - {""})
    if len(texts) < 2:
        raise BenchError(f"pretraining needs at least two different texts that are not empty, got {len(texts)}")
    set_up()
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), cache.new_folder(folder) as made:
        torch.manual_seed(seed)
        net = network(lm).to(device)
        ahead = Recall.of(net, lm, coming, seed) if coming and coming.pairs else None
        before = ahead.measure() if ahead else None
        learnt = _learn(net, lm, texts, pairs, objective, tokens, lr, report)
        if coming and ahead and before is not None:
            learnt["next_item"] = _next_item_recall(ahead, before, coming)
        _save(net, lm, made)
        found = {
            "lm": lm,
            "objective": objective,
            "budget": tokens,
            "lr": lr,
            "seed": seed,
            "content": content(texts, pairs),
            **learnt,
            **(about or {}),
        }
        (made / "pretrain.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    return found


def _next_item_recall(ahead: Recall, before: Tensor, coming: NextItems) -> dict[str, Any]:
    """The recall of next items by the ranks ``before`` and by the network as it is now, and what it is measured on."""
    users = np.array(coming.users)[ahead.chosen]
    sizes = {"pairs": len(users), "users": len(set(users.tolist())), "candidates": len(ahead.texts)}
    return {**sizes, **compare_ranks(before.numpy(), ahead.measure().numpy(), users)}


def cached(train: Split, lm: str, *, objective: str, tokens: int, lr: float, seed: int, device: torch.device) -> str:
    """Returns the identity of ``lm`` pretrained on what a training part shows.

    It is taken from the cache if all that decides the weights is the same.
    """
    texts, pairs = material(train)
    own = derive_seed("pretrain", seed)
    made_of = [VERSION, lm, content(texts, pairs), objective, tokens, lr, own]
    folder = cache.root() / "models" / f"pretrained-{digest(made_of)}"
    with cache.only_one(folder.name):
        if not folder.exists():
            pretrain(texts, pairs, lm, folder, objective=objective, tokens=tokens, lr=lr, seed=own, device=device)
    return identity(str(folder))


def check_settings(objective: str, tokens: int, lr: float) -> None:
    """Raises BenchError for an unknown objective, and for tokens or a learning rate that are not positive."""
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if tokens < 1 or not lr > 0:
        raise BenchError(f"tokens {tokens}, lr {lr}: both must be positive")


def _learn(
    net: nn.Module,
    lm: str,
    texts: Sequence[str],
    pairs: Pairs,
    objective: str,
    budget: int,
    lr: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Trains the network; returns what ``pretrain.json`` says of it."""
    order = torch.randperm(len(texts))
    first = max(1, round(HELD * len(texts)))
    held = {texts[i] for i in order[:first].tolist()}
    in_pairs = [pair for pair in pairs if held.isdisjoint(pair)]
    split = [pair for text in texts if text not in held and (pair := title_and_body(text))]
    if objective != "mlm" and not in_pairs + split:
        raise BenchError("objective context: no two items follow one another, no text has two sentences; use mlm")
    strings = sorted({*texts, *(text for pair in split for text in pair)}) if objective != "mlm" else list(texts)
    place = {text: i for i, text in enumerate(strings)}
    kept = torch.tensor([place[texts[i]] for i in order.tolist()])
    tokens = tokenise(strings, lm)
    probe = Recall(net, tokens, kept, torch.tensor([[place[a], place[b]] for a, b in pairs if {a, b} & held]))
    tasks: dict[str, Masked | Context] = {}
    if objective != "context":
        tasks["mlm"] = masked = Masked(net, lm, tokens, kept[first:], kept[:first])
    if objective != "mlm":
        tasks["context"] = Context(net, tokens, torch.tensor([[place[a], place[b]] for a, b in in_pairs + split]))
    measures = {"recall@10": probe.recall, **({"masked_loss": masked.measure} if "mlm" in tasks else {})}
    before = {name: measure() for name, measure in measures.items()}
    head = masked.head.parameters() if "mlm" in tasks else []
    seen, curve = _train(net, list(head), tasks, budget, lr, report)
    return {
        "tokens": seen,
        "texts": len(texts),
        "pairs": len(in_pairs) + len(split) if objective != "mlm" else 0,
        "held_out": {"texts": first, "pairs": len(probe.pairs), "candidates": len(probe.texts)},
        **{name: {"before": before[name], "after": measure()} for name, measure in measures.items()},
        "curve": curve,
    }


def _train(
    net: nn.Module,
    head: list[nn.Parameter],
    tasks: Mapping[str, Masked | Context],
    budget: int,
    lr: float,
    report: Callable[[str], None],
) -> tuple[int, list[dict[str, float]]]:
    """Updates until ``budget`` tokens have passed; how many did, and the mean losses up to each point of the curve."""
    used = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": used, "peak": lr}, *([{"params": head, "peak": HEAD_LR}] if head else [])]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    curve: list[dict[str, float]] = []
    seen, steps, losses = 0, 0, dict.fromkeys(tasks, 0.0)
    while seen < budget:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate("linear", WARMUP, budget, seen)
        optimizer.zero_grad(set_to_none=True)
        for name, task in tasks.items():
            loss, passed = task.loss()
            torch.autograd.backward(loss)
            losses[name] += float(loss.detach())
            seen += passed
        nn.utils.clip_grad_norm_([*used, *head], 1.0)
        optimizer.step()
        steps += 1
        if seen * POINTS >= (len(curve) + 1) * budget:
            curve.append({"tokens": seen, **{name: total / steps for name, total in losses.items()}})
            told = "  ".join(f"{name} {total / steps:.3f}" for name, total in losses.items())
            report(f"{min(seen, budget):,} of {budget:,} tokens  {told}")
            if not all(torch.tensor(list(losses.values())).isfinite()):
                raise FloatingPointError(f"the loss of pretraining is not finite within {seen:,} tokens; lower its lr")
            losses, steps = dict.fromkeys(tasks, 0.0), 0
    return seen, curve


def _save(net: nn.Module, lm: str, folder: Path) -> None:
    """A model folder: the trained weights with what ``network`` leaves out (the pooler), and the tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    whole = AutoModel.from_pretrained(locate(lm), local_files_only=True, use_safetensors=True, dtype=torch.float32)
    strange = whole.load_state_dict(net.state_dict(), strict=False).unexpected_keys
    assert not strange, f"the network has weights that its model has not: {strange}"
    whole.save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate(lm), local_files_only=True).save_pretrained(folder)
