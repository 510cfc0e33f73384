"""What it costs to tune a language model inside a recommender: here, and in the loop that tutorials write.

tox -e speed        (or: make speed)
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.api import Batch, Inputs
from bench.data.load import Data, load
from bench.data.prepare import prepare
from bench.data.tensors import Split
from bench.machine.device import set_up
from bench.spec import config
from bench.text.encode import vectors
from bench.text.inputs import TextInputs
from bench.text.models import identity, locate
from bench.text.network import depth_of
from bench.text.tokens import MAX_TOKENS
from bench.text.tower import Tower
from bench.training.build import build
from bench.training.loop import Fit, fit
from bench.training.optimizer import optimizer_for
from bench.training.recipe import Recipe
from methods._tuned import Tuned
from tests.speed.report import report

pytestmark = pytest.mark.slow  # with the real language model and data

SUITE = {"batch_size": 4096, "texts": 16, "precision": "bfloat16"}  # as in the suite `mlm`
STEPS = 3
GROUPS = 48  # of the training and of the validation part, where both train


class EveryText(nn.Module):
    """As tutorials do it: the texts asked for, each as often as it is, pass through the whole language model, tokenised
    in each step, and are pooled by the mean over tokens.

    What is trained are low-rank updates of the same layers as in ``own``, from the same numbers on. As there, nothing
    is dropped, and attention is "eager", which on a CPU trains faster in bfloat16.
    """

    def __init__(self, texts: Sequence[str], own: Tower, rank: int, alpha: int) -> None:
        from peft import LoraConfig, get_peft_model

        super().__init__()
        local: dict[str, Any] = {"pretrained_model_name_or_path": locate(own.lm), "local_files_only": True}
        self.texts, self.tokenizer = texts, AutoTokenizer.from_pretrained(**local)
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        net = AutoModel.from_pretrained(**local, **off, attn_implementation="eager")
        top = list(range(own.depth, depth_of(own.lm)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it will rename
            self.network = get_peft_model(net, LoraConfig(r=rank, lora_alpha=alpha, layers_to_transform=top))
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(updates(own)), updates(self))

    def forward(self, items: Tensor) -> Tensor:
        """items [n], rows of the item table -> [n, width]."""
        texts = [self.texts[i] for i in items.tolist()]
        given = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = self.network(**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(2)
        return nn.functional.normalize(((hidden * mask).sum(1) / mask.sum(1)).float(), dim=1)


class EveryRow(Inputs):
    """``TextInputs`` row by row.

    histories: the texts of each history pass through the language model, too. If not, what the frozen model makes of
    them is looked up: less than the method asks for, in favour of the loop.
    """

    def __init__(self, own: TextInputs, tower: EveryText, *, histories: bool) -> None:
        super().__init__()
        self.features, self.project, self.attention = own.features, own.project, own.attention
        self.user_width, self.candidate_width = own.user_width, own.candidate_width
        self.tower, self.histories = tower, histories
        self.frozen = torch.from_numpy(vectors(tower.texts, cast(Tower, own.tower).lm))

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``Inputs.sides``."""
        user, candidate = self.features.sides(batch)
        item = self.project(self.tower(batch.item))
        present = batch.history > 0
        seen = batch.history[present]
        read = self.project(self.tower(seen) if self.histories else self.frozen[seen])
        history = read.new_zeros(*present.shape, read.shape[1]).index_put((present,), read)
        pooled = self.attention(history, present)
        product = item * pooled.index_select(0, batch.group)
        return torch.cat([user, pooled], dim=1), torch.cat([candidate, item, product], dim=1)


def updates(tower: nn.Module) -> list[nn.Parameter]:
    """What is trained of the language model."""
    return [p for p in tower.parameters() if p.requires_grad]


def engine(data: Data, given: dict[str, Any], seed: int = 0) -> tuple[Tuned, Tower, dict[str, Any]]:
    """`lora` as any run has it, its language model, and the resolved configuration."""
    resolved, _ = config.resolve("lora", given)
    resolved["lm"] = identity(resolved["lm"])
    torch.manual_seed(seed)
    method = cast(Tuned, build("lora", resolved, data.schema))
    return method, method.towers()[0], resolved


def loop(data: Data, given: dict[str, Any], *, histories: bool) -> tuple[Tuned, EveryText, dict[str, Any]]:
    """The same trunk, heads, losses, optimiser and first weights, over the input layer of tutorials."""
    method, own, resolved = engine(data, given)
    tower = EveryText(data.schema.texts, own, resolved["rank"], resolved["alpha"])
    (name,) = (name for name, module in method.named_modules() if isinstance(module, TextInputs))
    inputs = cast(TextInputs, method.get_submodule(name))
    method.set_submodule(name, EveryRow(inputs, tower, histories=histories))
    method.towers = lambda: [tower]  # whose network has a learning rate of its own
    return method, tower, resolved


def learn(method: Tuned, train: Split, valid: Split, resolved: dict[str, Any], epochs: int, seed: int = 0) -> Fit:
    """Trains as any run does."""
    keys = ("lr", "weight_decay", "batch_size")
    recipe = Recipe(**{k: resolved[k] for k in keys}, epochs=epochs, patience=epochs, seed=seed)
    return fit(method, train, valid, recipe)


def losses_of(method: Tuned) -> list[Tensor]:
    """Where the losses [T] of each step will be."""
    found: list[Tensor] = []
    step = method.step

    def watched(batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        found.append(step(batch, optimizer))
        return found[-1]

    method.step = watched
    return found


def rows_a_second(method: Tuned, part: Split, resolved: dict[str, Any]) -> float:
    """Median over the steps of one pass over a part."""
    method.train()
    optimizer = optimizer_for(method, resolved["lr"], resolved["weight_decay"])
    speeds = []
    for batch in part.batches(resolved["batch_size"], torch.Generator().manual_seed(0)):
        start = time.perf_counter()
        method.step(batch, optimizer)
        speeds.append(len(batch.item) / (time.perf_counter() - start))
    return statistics.median(speeds)


def around(split: Split, groups: int) -> Split:
    """Groups from the middle of a split on."""
    return split.cut(split.groups // 2)[1].cut(groups)[0]


@pytest.fixture(scope="module")
def data() -> Iterator[Data]:
    torch.set_num_threads(1)  # as every run has
    set_up()
    yield load(prepare("movielens-100k"))
    torch.use_deterministic_algorithms(False)


def test_the_same_steps(data: Data) -> None:
    """With all texts of each batch the engine computes what the loop does that encodes the text of every row and of
    every item of every history: in float32 the same losses in each step, updates of the language model, and metrics."""
    given = {"batch_size": 64, "texts": 0}
    methods = [engine(data, given), loop(data, given, histories=True)]
    before = nn.utils.parameters_to_vector(updates(methods[0][1])).detach()
    losses, curves, moved = [], [], []
    for method, tower, resolved in methods:
        losses.append(losses_of(method))
        torch.manual_seed(1)  # the trunk's dropout
        done = learn(method, around(data.train, GROUPS), around(data.valid, GROUPS), resolved, epochs=2)
        curves.append([value for entry in done.curve for value in entry["valid"].values()])
        moved.append(nn.utils.parameters_to_vector(updates(tower)).detach() - before)
    steps, change = torch.stack(losses[0]), (moved[0] - moved[1]).norm().item() / moved[1].norm().item()
    apart = (steps - torch.stack(losses[1])).abs().max().item()
    metrics = max(abs(a - b) for a, b in zip(*curves, strict=True))
    report(
        "Language models",
        f"The same steps, `lora` in float32 with all texts of a batch: in {len(steps)} steps of 64 rows, from the same "
        "weights, the losses of the engine and of a loop that encodes the text of every row, and of every item of "
        f"every history, differ by {apart:.0e} at most, what the language model has learned by {change:.0e} of itself, "
        f"and the validation metrics after each of two epochs by {metrics:.0e} at most.",
    )
    assert apart < 1e-4 and change < 1e-2 and metrics < 1e-3, (apart, change, metrics)


def test_texts_and_rows(data: Data) -> None:
    """At least 10 times fewer texts in an epoch and 5 times the rows/s: with all texts of a batch against the loop that
    computes the same, and with 16 of them against one that is spared the texts of histories."""
    train, size = data.train, SUITE["batch_size"]

    method, own, resolved = engine(data, SUITE)
    done = learn(method, train, data.valid, resolved, epochs=1)
    sixteen = own.texts_encoded, done.rows / done.seconds

    method, own, resolved = engine(data, {**SUITE, "texts": 0})
    text, texts = own.get_buffer("text"), len(own.unique)  # each once in validation
    for batch in train.batches(size, torch.Generator().manual_seed(0)):
        texts += len(torch.unique(text[torch.cat([batch.item, batch.history[batch.history > 0]])]))
    every = texts, rows_a_second(method, around(train, STEPS * size // 5), resolved)

    def looped(rows: int, *, histories: bool) -> tuple[int, float]:
        method, _, resolved = loop(data, SUITE, histories=histories)
        speed = rows_a_second(method, around(train, STEPS * rows // 5), {**resolved, "batch_size": rows})
        return train.rows + histories * int((train.history > 0).sum()), speed

    # Smaller batches: the activations of 4096 rows' texts in all layers at once take more memory than many have.
    whole, candidates = looped(128, histories=True), looped(512, histories=False)

    lines = [
        "| `lora` on movielens-100k | texts encoded in an epoch | fewer | rows/s | faster |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for name, ours, theirs in (
        ("all texts of a batch, against the loop", every, whole),
        ("16 texts of a batch, against the loop without histories", sixteen, candidates),
    ):
        ratios.append((theirs[0] / ours[0], ours[1] / theirs[1]))
        fewer, faster = (f"{ratio:,.1f}" for ratio in ratios[-1])
        lines.append(
            f"| {name} | {ours[0]:,} / {theirs[0]:,} | {fewer} | {ours[1]:,.0f} / {theirs[1]:,.0f} | {faster} |"
        )
    lines += [
        "",
        f"bfloat16, one thread, {train.rows:,} rows in batches of {size}. The engine encodes different texts, from",
        "cached states of the layer below those that are tuned; its texts include those of validation, and with 16 of",
        "a batch its rows/s are of a whole epoch with validation. The loop encodes the text of every row, and of every",
        "item of every history, from its characters; without histories, it looks up what the frozen model makes of",
        f"these. Its rows/s, and the engine's with all texts, are medians of {STEPS} steps, the loop's of 128 and 512",
        "rows.",
    ]
    report("Language models", "\n".join(lines))
    assert all(fewer >= 10 and faster >= 5 for fewer, faster in ratios), ratios
