"""What masks cost in quality: methods x sparsity on corrosion_field at equal epochs, beside tfmot's own pipeline.

A plain U-Net is trained dense for 25 epochs; every cell starts from it and trains 12 more (8 with
rising sparsity, 4 with fixed masks; Adam 1e-3, cosine, fresh), then is judged on the test split by
the IoU of corrosion. `dense` trains the 12 without masks. All cells keep the best of the last 4
epochs on the validation split. Finished cells are lines of docs/results/mask_quality.jsonl; a
second start goes on with the rest.

Usage: python benchmarks/mask_quality.py --data DIR/corrosion_field [--width 8] [--seeds 0 1 2]
       [--methods magnitude ...] [--sparsities 0.5 ...]
       python benchmarks/mask_quality.py --report   (docs/results/mask_quality.md from the finished cells)
       python benchmarks/mask_quality.py --quick    (drawn pictures, nothing is stored; under 45 s)
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures import build_model
from tfprune.architectures.files import load_model
from tfprune.data.arrays import SegmentationArrays, load_arrays
from tfprune.data.pipeline import steps_per_epoch
from tfprune.data.sets import open_set
from tfprune.data.steel import generate_steel
from tfprune.keras import keras
from tfprune.pruning import SCOPES
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import select_layers
from tfprune.records import atomic_path, write_json, write_text
from tfprune.training.stage import set_determinism

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.results import FOLDER, append_line, measured, read_lines
from benchmarks.training import measure_class_iou, settle_norms, train

METHODS = ("dense", "magnitude", "taylor", "movement", "random", "tfmot")
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
RESULTS = FOLDER / "mask_quality.jsonl"
BATCH = 8
CELL = ("seed", "width", "method", "sparsity", "scope")


@dataclass(frozen=True)
class Plan:
    """Epochs of each part, mask updates, Adam's first rate, and the momentum of the batch norms."""

    dense: int = 25
    ramp: int = 8
    fixed: int = 4
    warm_up: int = 2
    prunes: int = 16
    rate: float = 1e-3
    norm_momentum: float = 0.99


@dataclass(frozen=True)
class Cell:
    """One training of the comparison."""

    seed: int
    width: int
    method: str
    sparsity: float
    scope: str


def load_data(folder: Path, size: tuple[int, int]) -> dict[str, SegmentationArrays]:
    """Return the train, val and test pictures."""
    found = open_set(folder, val_share=0.12)
    return {
        split: load_arrays(pairs, found.classes, size=size, channels=found.channels)
        for split, pairs in found.splits.items()
    }


def dense_net(cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, folder: Path) -> Any:
    """Return the dense net of a seed and width, trained once and kept in `folder`."""
    path = folder / f"dense_width{cell.width}_seed{cell.seed}.keras"
    if not path.exists():
        size = data["train"].images.shape[1:3]
        classes = max(2, int(data["train"].masks[data["train"].masks < 255].max()) + 1)
        net = build_model(
            "plain_unet",
            input_size=size,
            outputs=classes,
            seed=cell.seed,
            width=cell.width,
            norm_momentum=plan.norm_momentum,
        )
        train(net, data, plan.dense, rate=plan.rate, seed=cell.seed, batch_size=BATCH)
        with atomic_path(path) as temporary:
            net.save(temporary)
    return load_model(path)


def run_cell(cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, folder: Path) -> dict[str, Any]:
    """Train one cell and return its line."""
    net = dense_net(cell, data, plan, folder)
    start_iou = measure_class_iou(net, data["test"], batch_size=BATCH)
    begin = time.perf_counter()
    epochs = plan.ramp + plan.fixed
    settings = {"rate": plan.rate, "seed": 100 + cell.seed, "batch_size": BATCH, "best_from_epoch": plan.ramp}
    if cell.method == "dense":
        train(net, data, epochs, **settings)
        final, sparsity = net, 0.0
    elif cell.method == "tfmot":
        final, sparsity = prune_by_tfmot(net, cell.sparsity, data, plan, settings)
    else:
        final, sparsity = prune_by_tfprune(net, cell, data, plan, settings)
    return {
        "seed": cell.seed,
        "width": cell.width,
        "method": cell.method,
        "scope": cell.scope,
        "sparsity": cell.sparsity,
        "wrapped_sparsity": round(sparsity, 6),
        "iou": round(measure_class_iou(final, data["test"], batch_size=BATCH), 5),
        "start_iou": round(start_iou, 5),
        "epochs": epochs,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def ramp_of(data: dict[str, SegmentationArrays], plan: Plan, *, warm_up: int) -> dict[str, int]:
    """Return the begin, end and number of mask updates, in steps."""
    steps = steps_per_epoch(len(data["train"]), BATCH)
    prunes = min(plan.prunes, (plan.ramp - warm_up) * steps)
    return {"begin_step": warm_up * steps, "end_step": plan.ramp * steps, "prunes": prunes}


def prune_by_tfprune(
    net: Any, cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, settings: dict[str, Any]
) -> tuple[Any, float]:
    """Ramp, fix, re-estimate the batch norms; return the plain net and its wrapped sparsity."""
    warm_up = plan.warm_up if cell.method == "movement" else 0
    schedule = build_schedule("polynomial", cell.sparsity, **ramp_of(data, plan, warm_up=warm_up))
    controller = MaskController(
        net, schedule, criterion=cell.method, scope=cell.scope, normalize=cell.scope == "global"
    )
    train(controller.model, data, plan.ramp + plan.fixed, **settings)
    plain = controller.strip()
    settle_norms(plain, data["train"])
    return plain, controller.total_sparsity()


def prune_by_tfmot(
    net: Any, sparsity: float, data: dict[str, SegmentationArrays], plan: Plan, settings: dict[str, Any]
) -> tuple[Any, float]:
    """Do the same by tfmot's own wrapper, masks and callback, with the same layers and the same schedule."""
    from tensorflow_model_optimization.sparsity import keras as tfmot

    masked = select_layers(net).masked
    schedule = build_schedule("polynomial", sparsity, **ramp_of(data, plan, warm_up=0))

    def wrap(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        return tfmot.prune_low_magnitude(copy, pruning_schedule=schedule) if layer.name in masked else copy

    model = keras.models.clone_model(net, clone_function=wrap)
    for source, target in zip(net.layers, model.layers, strict=True):
        target.set_weights(source.get_weights())
    train(model, data, plan.ramp + plan.fixed, callbacks=[tfmot.UpdatePruningStep()], **settings)
    for layer in model.layers:
        for weight, mask, _ in getattr(layer, "pruning_vars", []):
            weight.assign(weight * mask)
    plain = tfmot.strip_pruning(model)
    kernels = [plain.get_layer(name).kernel.numpy() for name in masked]
    return plain, 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """Return the cells asked for; a dense one has no sparsity, and tfmot knows no global ranking."""
    return [
        Cell(seed, arguments.width, method, sparsity, scope)
        for seed in arguments.seeds
        for scope in arguments.scopes
        for method in arguments.methods
        for sparsity in ([0.0] if method == "dense" else arguments.sparsities)
        if scope == "layer" or method not in ("dense", "tfmot")
    ]


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per width, method and sparsity, with the mean over seeds and the spread."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        groups.setdefault((row["width"], row["method"], row["scope"], row["sparsity"]), []).append(row["iou"])
    return [
        {
            "width": width,
            "method": method,
            "scope": scope,
            "sparsity": sparsity,
            "seeds": len(values),
            "iou_mean": round(statistics.mean(values), 4),
            "iou_low": min(values),
            "iou_high": max(values),
        }
        for (width, method, scope, sparsity), values in sorted(groups.items())
    ]


def write_report(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the table for people and the figures for machines, beside the finished cells."""
    cells, where = summarize(rows), measured(rows)
    machine = where["machine"]
    start = {
        width: [row["start_iou"] for row in rows if row["width"] == width] for width in {row["width"] for row in rows}
    }
    lines = [
        "# What masks cost in quality, method beside method",
        "",
        "`python benchmarks/mask_quality.py --data DIR/corrosion_field` (width 8, three seeds), then",
        "`--width 16 --seeds 0`. It goes on where it stopped: every finished training is a line of",
        f"[{path.name}]({path.name}), and `--report` writes this page from them without training.",
        f"{where['date']}, {machine['cpu']}, TensorFlow {machine['tensorflow']}, one core for each training",
        "(`taskset -c 0`): another number of threads rounds differently, which moves a cell by up to .007.",
        "",
        "corrosion_field at 96x96 pixels, plain U-Net, IoU of corrosion over the 196 test pictures, float32.",
        "Every cell starts from the dense net of its seed (25 epochs) and trains 12 epochs more: 8 with rising",
        "sparsity (16 mask updates, cubic; movement waits for 2 epochs first), 4 with fixed masks; Adam 1e-3,",
        "cosine, fresh state; the best of the last 4 epochs on validation. `dense` trains the same 12 epochs",
        "without masks; `tfmot` is tfmot's own wrapper, callback and `strip_pruning` on the same layers with the",
        "same schedule. Sparsity: zeros in all masked kernels together; per layer, each of them has that share, over",
        "all layers, one ranking decides (scores of a layer divided by their Euclidean norm). Mean over the seeds,",
        "below it the lowest and the highest.",
        "",
    ]
    for width in sorted(start):
        of_width = {(row["method"], row["scope"], row["sparsity"]): row for row in cells if row["width"] == width}
        sparsities = sorted({sparsity for _, _, sparsity in of_width if sparsity})
        seeds = max(row["seeds"] for row in of_width.values())
        lines += [
            f"## Width {width}, seeds: {seeds}; dense nets before these epochs: {statistics.mean(start[width]):.3f}",
            "",
            "| method | " + " | ".join(["no masks", *(f"{sparsity:.0%} zeros" for sparsity in sparsities)]) + " |",
            "|---" * (len(sparsities) + 2) + "|",
        ]
        for method, scope in itertools.product(METHODS, SCOPES):
            found = [of_width.get((method, scope, sparsity)) for sparsity in (0.0, *sparsities)]
            if any(found):
                name = method if method in ("dense", "tfmot") else f"{method}, {_RANKED[scope]}"
                lines.append(f"| {name} | " + " | ".join(map(_spread, found)) + " |")
        lines.append("")
    write_text(path.with_suffix(".md"), "\n".join(lines))
    write_json(path.with_suffix(".json"), {**where, "cells": cells})


_RANKED = {"layer": "per layer", "global": "over all layers"}


def _spread(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    ends = f"<br>{row['iou_low']:.3f}-{row['iou_high']:.3f}" if row["seeds"] > 1 else ""
    return f"{row['iou_mean']:.3f}{ends}"


def main() -> None:
    """Run what is missing, print a table, and the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true", help="only write the page from the finished cells")
    parser.add_argument("--data", type=Path, help="the folder of corrosion_field")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES))
    parser.add_argument("--nets", type=Path, default=Path("runs/mask_quality"), help="where dense nets are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.report:
        write_report(read_lines(arguments.results), arguments.results)
        return
    if not arguments.quick and arguments.data is None:
        parser.error("--data DIR/corrosion_field is needed (or --quick)")
    with tempfile.TemporaryDirectory() as temporary:
        plan, size = Plan(), (96, 96)
        if arguments.quick:
            arguments.data, arguments.nets = Path(temporary, "steel"), Path(temporary)
            arguments.results = Path(temporary, "quick.jsonl")
            arguments.width, arguments.seeds, arguments.sparsities = 8, [0], [0.8]
            arguments.methods, arguments.scopes = ["dense", "magnitude", "tfmot"], ["layer"]
            plan, size = Plan(dense=10, ramp=3, fixed=2, warm_up=1, prunes=6, rate=5e-3, norm_momentum=0.9), (32, 32)
            generate_steel(arguments.data, classes=2, counts={"train": 96, "val": 8, "test": 16}, size=size, seed=0)
        data = load_data(arguments.data, size)
        done = {tuple(row[name] for name in CELL) for row in read_lines(arguments.results)}
        for cell in cells_of(arguments):
            if tuple(getattr(cell, name) for name in CELL) in done:
                continue
            set_determinism(cell.seed)
            row = run_cell(cell, data, plan, arguments.nets)
            keras.backend.clear_session()
            append_line(arguments.results, row)
            print(json.dumps(row), flush=True)
        write_report(read_lines(arguments.results), arguments.results)
        rows = summarize(read_lines(arguments.results))
    print(f"{'width':>5} {'method':10}{'scope':8}{'sparsity':>9}{'seeds':>6}{'IoU':>8}{'low':>8}{'high':>8}")
    for row in rows:
        print(
            f"{row['width']:>5} {row['method']:10}{row['scope']:8}{row['sparsity']:>9.2f}{row['seeds']:>6}"
            f"{row['iou_mean']:>8.4f}{row['iou_low']:>8.4f}{row['iou_high']:>8.4f}"
        )
    print(json.dumps({"cells": rows}))


if __name__ == "__main__":
    main()
