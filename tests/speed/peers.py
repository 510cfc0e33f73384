"""The engine and other libraries behind one face: one epoch, one evaluation, on the same data, sizes and optimiser.

The shape is that of AliExpress: 16 categorical and 63 numerical fields, two binary tasks. As a program it trains one
side for one epoch in a process of its own and prints validation AUC, peak memory and time as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.api import Field, Items, Schema, Task
from bench.data.tensors import Split
from bench.machine.device import multiplies_bfloat16, peak_mb, set_up
from bench.metrics import auc
from bench.nn import Mlp, mlp, normalise
from bench.nn.features import FeatureInputs
from bench.spec import config
from bench.training.build import build
from bench.training.loop import fit
from bench.training.predict import evaluate
from bench.training.recipe import Recipe
from bench.training.score import score

# 217,980 rows of embeddings; the first nine fields and 23 numbers are the user's, as in AliExpress.
CARDINALITIES = (100_000, 30_000, 8_000, 2_000, 500, 200, 60, 20, 10, 50_000, 20_000, 5_000, 1_500, 500, 150, 40)
NUMBERS, USER_CATEGORICAL, USER_NUMBERS = 63, 9, 23
EMBEDDING, BATCH, DROPOUT, LR = 16, 2048, 0.2, 1e-3
EMBEDDING_STD = 1e-4  # at the start; the default of two of the libraries, and AUC after one epoch depends on it
WIDE, WIDTH, TOWER, EXPERTS, LEVELS = 512, 256, (128, 64), 4, 2
TASKS = ("click", "conversion")
VALID_ROWS = 100_000  # of the program below
ARCHITECTURES = ("shared_bottom", "mmoe", "ple")


@dataclass(frozen=True)
class Table:
    """Rows: codes [N, 16], numbers [N, 63] and labels [N, 2]."""

    codes: Tensor
    numbers: Tensor
    labels: Tensor


def generate(rows: int, seed: int) -> Table:
    """Skewed codes, normal numbers, and labels drawn from a known model of both with two interactions."""
    draw, truth = np.random.default_rng(seed), np.random.default_rng(0)
    codes = np.stack([(c * draw.random(rows) ** 3).astype(np.int64) for c in CARDINALITIES], axis=1)
    numbers = draw.standard_normal((rows, NUMBERS), dtype=np.float32)
    effects = [truth.standard_normal((c, 2)).astype(np.float32) for c in CARDINALITIES]
    known = [effect[codes[:, i]] for i, effect in enumerate(effects) if CARDINALITIES[i] <= 2_000]
    slopes = truth.standard_normal((NUMBERS, 2), dtype=np.float32)
    logit = 0.35 * sum(known) + 0.12 * numbers @ slopes + 0.5 * numbers[:, :2] * numbers[:, 2:4]
    labels = draw.random((rows, 2)) < 1 / (1 + np.exp(-(logit - np.array([1.5, 2.5]))))
    return Table(*(torch.from_numpy(x) for x in (codes, numbers, labels.astype(np.float32))))


class Side:
    """A model of one library on two tables."""

    package: ClassVar[str] = ""  # whose version says whether it is installed; empty for the engine
    architectures: ClassVar[tuple[str, ...]] = ARCHITECTURES

    def __init__(self, architecture: str, train: Table, valid: Table) -> None:
        self.architecture, self.train, self.valid = architecture, train, valid

    def epoch(self) -> None:
        """Trains on all rows once, in random order."""
        raise NotImplementedError

    def evaluate(self) -> list[float]:
        """The library's own evaluation of both tasks on the validation rows: AUC."""
        raise NotImplementedError

    def aucs(self) -> list[float]:
        """AUC of each task."""
        return self.evaluate()

    @classmethod
    def installed(cls) -> str:
        """The version; empty if the library is not installed."""
        try:
            return version(cls.package) if cls.package else "this tree"
        except PackageNotFoundError:
            return ""


class Engine(Side):
    """The training loop with the baselines. Their bottoms, experts and towers have layers of one width: here the same
    classes with the two widths of the shape are put in their place."""

    precision: ClassVar[str] = "float32"

    def __init__(self, architecture: str, train: Table, valid: Table, balancer: str = "uniform") -> None:
        super().__init__(architecture, train, valid)
        given = {"precision": self.precision, "embedding": EMBEDDING, "id_dropout": 0.0, "balancer": balancer}
        own = {"width": WIDTH, "tower": TOWER[-1], "dropout": DROPOUT}
        if architecture == "mmoe":
            own["experts"] = EXPERTS
        if architecture == "ple":
            own |= {"levels": LEVELS, "shared_experts": EXPERTS, "task_experts": EXPERTS}
        resolved, _ = config.resolve(architecture, {**given, **own})
        self.splits = split(train), split(valid)
        torch.manual_seed(0)
        self.method = build(architecture, resolved, self.splits[0].schema)
        for name, module in list(self.method.named_modules()):
            if isinstance(module, Mlp):
                parent, _, last = name.rpartition(".")
                widths = (module[0].in_features, *(TOWER if name.startswith("towers") else self.widths()))
                setattr(self.method.get_submodule(parent), last, Mlp(*_layers(widths)))
        normalise(self.method, "batch_fused")
        nn.init.normal_(self.method.get_submodule("inputs").table.weight, std=EMBEDDING_STD)
        self.few = self.splits[1].cut(512)[0]
        self.epochs = 0

    def widths(self) -> tuple[int, ...]:
        return (WIDTH,) if self.architecture == "ple" else (WIDE, WIDTH)

    def epoch(self) -> None:
        self.epochs += 1
        set_up()
        recipe = Recipe(LR, weight_decay=0.0, batch_size=BATCH, epochs=1, patience=1, seed=self.epochs)
        fit(self.method, self.splits[0], self.few, recipe)
        torch.use_deterministic_algorithms(False)

    def evaluate(self) -> list[float]:
        scores = score(self.splits[1], evaluate(self.method, self.splits[1]), primary_only=True)
        return [float(scores[t]["auc"] or 0) for t in TASKS]


class EngineBfloat16(Engine):
    """The same with ``precision`` bfloat16."""

    precision = "bfloat16"


class Floor(Engine):
    """Nothing but what no implementation of the same steps can leave out: the products of the linear layers, forward
    and backward, and the bytes of the optimiser. It learns nothing."""

    def __init__(self, architecture: str, train: Table, valid: Table) -> None:
        super().__init__(architecture, train, valid)
        # Without instructions for bfloat16, a product of it cannot be had for less than one of float32.
        kind = getattr(torch, self.precision) if multiplies_bfloat16() else torch.float32
        self.layers = []
        for layer in (m for m in self.method.modules() if isinstance(m, nn.Linear)):
            width_in, width = layer.in_features + -layer.in_features % 16, layer.out_features
            shapes = (BATCH, width_in), (width, width_in), (BATCH, width)
            self.layers.append([torch.randn(shape).to(kind) for shape in shapes])
        parameters = [p.detach().clone().requires_grad_() for p in self.method.parameters()]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        self.optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)

    def epoch(self) -> None:
        for _ in range(len(self.train.codes) // BATCH):
            for x, weight, above in self.layers:
                nn.functional.linear(x, weight)
                torch.mm(above, weight)
                torch.mm(above.t(), x)
            self.optimizer.step()

    def evaluate(self) -> list[float]:
        for _ in range(len(self.valid.codes) // BATCH):
            for x, weight, _ in self.layers:
                nn.functional.linear(x, weight)
        return []


class FloorBfloat16(Floor):
    """The same with products of bfloat16."""

    precision = "bfloat16"


def _layers(widths: tuple[int, ...]) -> Iterator[nn.Module]:
    for width_in, width in itertools.pairwise(widths):
        yield from mlp(width_in, width, 1, DROPOUT)


def split(table: Table) -> Split:
    """The table as a split: a row is a group of its own, so that nothing is gained from rows with one user side."""
    rows = len(table.codes)
    fields = [Field(f"c{i}", "user" if i < USER_CATEGORICAL else "pair") for i in range(len(CARDINALITIES))]
    fields += [Field(f"n{i}", "user" if i < USER_NUMBERS else "pair", "numerical") for i in range(NUMBERS)]
    tasks = tuple(Task(name, "binary") for name in TASKS)
    cardinality = {f"c{i}": c for i, c in enumerate(CARDINALITIES)}
    codes, numbers = table.codes.int(), table.numbers
    return Split(
        name="generated",
        schema=Schema(tasks, tuple(fields), cardinality, history=0, texts=[""]),
        items=Items(torch.zeros(1, 0, dtype=torch.int32), torch.zeros(1, 0)),
        user_cat=codes[:, :USER_CATEGORICAL].contiguous(),
        user_num=numbers[:, :USER_NUMBERS].contiguous(),
        history=torch.zeros(rows, 0, dtype=torch.int32),
        start=torch.arange(rows + 1),
        item=torch.zeros(rows, dtype=torch.int32),
        pair_cat=codes[:, USER_CATEGORICAL:].contiguous(),
        pair_num=numbers[:, USER_NUMBERS:].contiguous(),
        user=torch.arange(rows, dtype=torch.int32),
        labels={name: table.labels[:, i].contiguous() for i, name in enumerate(TASKS)},
        truth={},
        cold_user=torch.zeros(rows, dtype=torch.bool),
        cold_item=torch.zeros(rows, dtype=torch.bool),
    )


class Loader:
    """Whole batches by index. The loaders that libraries propose collate row by row, which would be all that is timed.

    Gives (columns by name, labels), as torch-rechub wants it, or ([B, 79], labels by task), as LibMTL does.
    """

    def __init__(self, table: Table, *, shuffle: bool, columns: bool) -> None:
        self.table, self.shuffle, self.columns = table, shuffle, columns
        self.joint = None if columns else torch.cat([table.codes.float(), table.numbers], dim=1)

    def __len__(self) -> int:
        return -(-len(self.table.codes) // BATCH)

    def __iter__(self) -> Iterator[Any]:
        return _Batches(self._made())

    def _made(self) -> Iterator[Any]:
        rows = len(self.table.codes)
        order = torch.randperm(rows) if self.shuffle else torch.arange(rows)
        for index in torch.split(order, BATCH):
            labels = self.table.labels.index_select(0, index)
            if self.joint is None:
                codes, numbers = (x.index_select(0, index) for x in (self.table.codes, self.table.numbers))
                named = {f"c{i}": column for i, column in enumerate(codes.unbind(1))}
                yield named | {f"n{i}": column for i, column in enumerate(numbers.unbind(1))}, labels
            else:
                yield self.joint.index_select(0, index), dict(zip(TASKS, labels.unbind(1), strict=True))


class _Batches:
    """An iterator that also has the ``next`` which LibMTL calls."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        return next(self.batches)

    next = __next__


class TorchRechub(Side):
    """Its models and ``MTLTrainer``."""

    package = "torch-rechub"

    def __init__(self, architecture: str, train: Table, valid: Table) -> None:
        super().__init__(architecture, train, valid)
        from torch_rechub.basic.features import DenseFeature, SparseFeature
        from torch_rechub.models import multi_task
        from torch_rechub.trainers import MTLTrainer

        features = [SparseFeature(f"c{i}", c, EMBEDDING) for i, c in enumerate(CARDINALITIES)]
        features += [DenseFeature(f"n{i}") for i in range(NUMBERS)]
        wide = {"dims": [WIDE, WIDTH], "dropout": DROPOUT}
        towers = [{"dims": list(TOWER), "dropout": DROPOUT}] * 2
        kinds = ["classification"] * 2
        torch.manual_seed(0)
        if architecture == "shared_bottom":
            model = multi_task.SharedBottom(features, kinds, wide, towers)
        elif architecture == "mmoe":
            model = multi_task.MMOE(features, kinds, EXPERTS, wide, towers)
        else:
            experts = {"dims": [WIDTH], "dropout": DROPOUT}
            model = multi_task.PLE(features, kinds, LEVELS, EXPERTS, EXPERTS, experts, towers)
        self.trainer = MTLTrainer(model, kinds, optimizer_params={"lr": LR, "weight_decay": 0.0})
        self.loaders = Loader(train, shuffle=True, columns=True), Loader(valid, shuffle=False, columns=True)

    def epoch(self) -> None:
        self.trainer.train_one_epoch(self.loaders[0])

    def evaluate(self) -> list[float]:
        return [float(x) for x in self.trainer.evaluate(self.trainer.model, self.loaders[1])]


class DeepCTR(Side):
    """Its models with their ``fit`` and ``evaluate``."""

    package = "deepctr-torch"

    def __init__(self, architecture: str, train: Table, valid: Table) -> None:
        super().__init__(architecture, train, valid)
        from deepctr_torch import models
        from deepctr_torch.inputs import DenseFeat, SparseFeat

        features = [SparseFeat(f"c{i}", c, embedding_dim=EMBEDDING) for i, c in enumerate(CARDINALITIES)]
        features += [DenseFeat(f"n{i}", 1) for i in range(NUMBERS)]
        common = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "l2_reg_dnn": 0, "dnn_dropout": DROPOUT}
        common |= {"dnn_use_bn": True, "task_names": TASKS, "tower_dnn_hidden_units": TOWER}
        if architecture == "shared_bottom":
            self.model = models.SharedBottom(features, bottom_dnn_hidden_units=(WIDE, WIDTH), **common)
        elif architecture == "mmoe":
            shape = {"expert_dnn_hidden_units": (WIDE, WIDTH), "gate_dnn_hidden_units": ()}
            self.model = models.MMOE(features, num_experts=EXPERTS, **shape, **common)
        else:
            shape = {"expert_dnn_hidden_units": (WIDTH,), "gate_dnn_hidden_units": (), "num_levels": LEVELS}
            counts = {"shared_expert_num": EXPERTS, "specific_expert_num": EXPERTS}
            self.model = models.PLE(features, **shape, **counts, **common)
        self.model.compile("adam", ["binary_crossentropy"] * 2, metrics=["auc"])
        self.x = [
            {f"c{i}": c for i, c in enumerate(t.codes.float().numpy().T)}
            | {f"n{i}": c for i, c in enumerate(t.numbers.numpy().T)}
            for t in (train, valid)
        ]

    def epoch(self) -> None:
        self.model.fit(self.x[0], self.train.labels.numpy(), batch_size=BATCH, epochs=1, verbose=0)

    def evaluate(self) -> list[float]:
        return [float(self.model.evaluate(self.x[1], self.valid.labels.numpy(), BATCH)["auc"])]  # of both tasks in one

    def aucs(self) -> list[float]:
        predicted, labels = self.model.predict(self.x[1], BATCH), self.valid.labels.numpy()
        return [float(auc(labels[:, i], predicted[:, i]) or 0) for i in range(len(TASKS))]


class LibMTL(Side):
    """Its ``Trainer`` with equal weights. It has no input layer, no AUC, and a PLE only for ResNets.

    It needs help to run at all: it imports a name that torchvision no longer has, and wants a first GPU.
    """

    package = "LibMTL"
    architectures = ("shared_bottom", "mmoe")

    def __init__(self, architecture: str, train: Table, valid: Table) -> None:
        super().__init__(architecture, train, valid)
        gone = types.ModuleType("torchvision.models.utils")
        gone.load_state_dict_from_url = None  # type: ignore[attr-defined]
        with_gone = {"torchvision": types.ModuleType("torchvision"), "torchvision.models": gone, gone.__name__: gone}
        sys.modules.update({k: v for k, v in with_gone.items() if k not in sys.modules})
        from LibMTL import Trainer
        from LibMTL.architecture import HPS, MMoE
        from LibMTL.loss import AbsLoss
        from LibMTL.metrics import AbsMetric
        from LibMTL.weighting import EW
        from sklearn.metrics import roc_auc_score

        class OnCpu(Trainer):  # type: ignore[misc]
            device = property(lambda self: torch.device("cpu"), lambda self, value: None)

        class Loss(AbsLoss):  # type: ignore[misc]
            def compute_loss(self, pred: Tensor, gt: Tensor) -> Tensor:
                return nn.functional.binary_cross_entropy_with_logits(pred.squeeze(1), gt)

        class Auc(AbsMetric):  # type: ignore[misc]
            def update_fun(self, pred: Tensor, gt: Tensor) -> None:
                if not pred.requires_grad:  # at evaluation only: no other library scores its training batches
                    self.record.append((pred.squeeze(1), gt))

            def score_fun(self) -> list[float]:
                if not self.record:
                    return [0.0]
                score, label = (torch.cat(x).numpy() for x in zip(*self.record, strict=True))
                return [roc_auc_score(label, score)]

        table = FeatureInputs(split(valid).schema, embedding=EMBEDDING, id_dropout=0.0).table
        nn.init.normal_(table.weight, std=EMBEDDING_STD)
        offset = torch.tensor([0, *np.cumsum(CARDINALITIES)[:-1]])

        class Input(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.offset = table, offset

            def forward(self, x: Tensor) -> Tensor:
                codes = x[:, : len(CARDINALITIES)].long() + self.offset
                return torch.cat([self.table(codes).flatten(1), x[:, len(CARDINALITIES) :]], dim=1)

        class WithInput(MMoE if architecture == "mmoe" else HPS):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.input = Input()

            def forward(self, inputs: Tensor, task_name: str | None = None) -> dict[str, Tensor]:
                return super().forward(self.input(inputs), task_name)

        width = len(CARDINALITIES) * EMBEDDING + NUMBERS
        tasks = {t: {"metrics": ["AUC"], "metrics_fn": Auc(), "loss_fn": Loss(), "weight": [1]} for t in TASKS}
        torch.manual_seed(0)
        self.trainer = OnCpu(
            tasks,
            EW,
            WithInput,
            lambda: _plain((width, WIDE, WIDTH)),
            nn.ModuleDict({t: nn.Sequential(_plain((WIDTH, *TOWER)), nn.Linear(TOWER[-1], 1)) for t in TASKS}),
            rep_grad=False,
            multi_input=False,
            optim_param={"optim": "adam", "lr": LR},
            scheduler_param=None,
            weight_args={},
            arch_args={"img_size": [width], "num_experts": [EXPERTS]},
        )
        few = Table(*(x[:512] for x in (valid.codes, valid.numbers, valid.labels)))
        self.loaders = [Loader(t, shuffle=s, columns=False) for t, s in ((train, True), (valid, False), (few, False))]

    def epoch(self) -> None:
        self.trainer.train(self.loaders[0], self.loaders[2], 1)

    def evaluate(self) -> list[float]:
        found: list[float] = []
        meter = self.trainer.meter
        meter.display = lambda **_: found.extend(meter.results[t][0] for t in TASKS)
        self.trainer.test(self.loaders[1], 0)
        del meter.display
        return found


def _plain(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers)


SIDES: dict[str, type[Side]] = {
    "engine float32": Engine,
    "engine bfloat16": EngineBfloat16,
    "torch-rechub": TorchRechub,
    "DeepCTR-Torch": DeepCTR,
    "LibMTL": LibMTL,
}
FLOORS: dict[str, type[Floor]] = {"floor float32": Floor, "floor bfloat16": FloorBfloat16}


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Swallows what libraries print: bars, losses, the device."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return stack


def main() -> None:
    """Trains one side for one epoch and prints what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("architecture", choices=ARCHITECTURES)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with quiet():
        train, valid = generate(chosen.rows, 1), generate(VALID_ROWS, 2)
        side = SIDES[chosen.side](chosen.architecture, train, valid)
        started, cpu = time.perf_counter(), time.process_time()
        side.epoch()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        aucs = side.aucs()
    peak = peak_mb(torch.device("cpu"))
    print(json.dumps({"auc": aucs, "peak_mb": peak, "wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
