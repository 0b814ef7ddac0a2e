"""What the composite regularizer buys before and after pruning, beside its competitors, at equal epochs.

Sets: `branches`, thin lines drawn by tfprune, and `corrosion_field` where --data names its folder. A plain U-Net is
trained without a regularizer (`dense`), with R (orthogonality), H (gradients under a quantile set to zero), both, L2,
L1 on gamma and group lasso; then 50 and 90 % of the filters of each masked layer are masked, with the regularizer
still on, and the net is fine-tuned. Judged on the test split: IoU of class 1, redundancy (mean |cosine| between two
filters of a layer) and the share of near-zero gradients of the task. Strengths come from --search, short trainings
of seed 100 judged on the validation split. Finished cells are lines of docs/results/regularizer.jsonl, searched
strengths of regularizer_search.jsonl; a second start goes on with the rest.

Usage: python benchmarks/regularizer.py --search [--data DIR/corrosion_field]
       python benchmarks/regularizer.py [--data DIR/corrosion_field] [--seeds 0 1 2] [--methods both ...]
       python benchmarks/regularizer.py --report   (docs/results/regularizer.md and .json from the finished cells)
       python benchmarks/regularizer.py --quick    (small drawn pictures, nothing is stored; under 45 s)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures import build_model
from tfprune.architectures.files import load_model
from tfprune.data.arrays import SegmentationArrays, load_arrays
from tfprune.data.branches import generate_branches
from tfprune.data.pipeline import steps_per_epoch
from tfprune.data.sets import open_set
from tfprune.keras import keras, tf
from tfprune.objectives.losses import build_loss
from tfprune.pruning.cloning import copy_weights
from tfprune.pruning.controller import MaskController
from tfprune.pruning.graph import prunable_kernel
from tfprune.pruning.masking import filters_last
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import select_layers
from tfprune.records import atomic_path, write_json, write_text
from tfprune.regularization.attaching import regularize_model
from tfprune.training.stage import set_determinism

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.results import FOLDER, append_line, measured, read_lines
from benchmarks.training import measure_class_iou, settle_norms, train

METHODS = ("dense", "orthogonality", "gradients", "both", "l2", "gamma_l1", "group_lasso")
TITLES = {
    "dense": "no regularizer",
    "orthogonality": "R: orthogonal filters",
    "gradients": "H: sparse gradients",
    "both": "R and H",
    "l2": "L2",
    "gamma_l1": "L1 on gamma",
    "group_lasso": "group lasso",
}
CANDIDATES: dict[str, tuple[float, ...]] = {
    "dense": (0.0,),
    "orthogonality": (0.1, 1.0, 10.0),
    "gradients": (0.3, 0.6, 0.9),
    "l2": (1e-5, 1e-4, 1e-3),
    "gamma_l1": (1e-5, 1e-4, 1e-3),
    "group_lasso": (1e-6, 1e-5, 1e-4),
}
SETS = ("branches", "corrosion_field")
SPARSITIES = (0.0, 0.5, 0.9)
RESULTS = FOLDER / "regularizer.jsonl"
BATCH, SEARCH_SEED, JUDGED_IMAGES = 8, 100, 64
CELL = ("set", "seed", "width", "method", "sparsity")

Strengths = Mapping[str, float]
"""Method -> lambda, or for `gradients` the share of zeros in S."""


@dataclass(frozen=True)
class Plan:
    """Epochs of each part, mask updates, Adam's first rate, and pictures per split of the drawn set."""

    dense: int = 15
    ramp: int = 3
    fixed: int = 3
    prunes: int = 8
    rate: float = 1e-3
    size: tuple[int, int] = (96, 96)
    drawn: tuple[int, int, int] = (400, 80, 160)


@dataclass(frozen=True)
class Cell:
    """One net of the comparison; at sparsity 0 it has no masks."""

    set: str
    seed: int
    width: int
    method: str
    sparsity: float


def load_sets(
    names: Sequence[str], data: Path | None, plan: Plan, folder: Path
) -> dict[str, dict[str, SegmentationArrays]]:
    """Return the train, val and test pictures of each set."""
    counts = dict(zip(("train", "val", "test"), plan.drawn, strict=True))
    folders = {}
    if "branches" in names:
        folders["branches"] = generate_branches(folder / "branches", counts=counts, size=plan.size, seed=0)
    if "corrosion_field" in names and data is not None:
        folders["corrosion_field"] = data
    sets = {}
    for name, path in folders.items():
        found = open_set(path, val_share=0.12)
        sets[name] = {
            split: load_arrays(pairs, found.classes, size=plan.size, channels=found.channels)
            for split, pairs in found.splits.items()
        }
    return sets


def regularize(net: Any, method: str, strengths: Strengths) -> Any:
    """Return the net as it is trained by a method."""
    if method == "dense":
        return net
    used = strengths_of(method, strengths)
    gradients = {"threshold": {"sparsity": used.pop("gradients")}} if "gradients" in used else None
    return regularize_model(net, {name: {"strength": value} for name, value in used.items()}, gradients)


def parts_of(method: str) -> tuple[str, ...]:
    """Return what a method needs a strength for."""
    return {"dense": (), "both": ("orthogonality", "gradients")}.get(method, (method,))


def strengths_of(method: str, strengths: Strengths) -> dict[str, float]:
    """Return the strengths that a method uses."""
    return {name: strengths[name] for name in parts_of(method)}


def trained_net(cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, strengths: Strengths, folder: Path) -> Any:
    """Return the net without masks of a cell, trained once and kept in `folder`."""
    used = "_".join(f"{value:g}" for value in strengths_of(cell.method, strengths).values())
    path = folder / f"{cell.set}_{cell.method}_{used}_width{cell.width}_seed{cell.seed}_epochs{plan.dense}.keras"
    if not path.exists():
        net = build_model(
            "plain_unet",
            input_size=plan.size,
            channels=data["train"].images.shape[-1],
            outputs=2,
            seed=cell.seed,
            width=cell.width,
            norm_momentum=0.9,
        )
        model = regularize(net, cell.method, strengths)
        train(model, data, plan.dense, rate=plan.rate, seed=cell.seed, batch_size=BATCH)
        if model is not net:
            copy_weights(model, net)
        with atomic_path(path) as temporary:
            net.save(temporary)
    return load_model(path)


def masked_net(net: Any, cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, strengths: Strengths) -> Any:
    """Return a plain net with filters masked: sparsity ramps up, stays, and the batch norms are taken anew."""
    steps = steps_per_epoch(len(data["train"]), BATCH)
    schedule = build_schedule(
        "polynomial",
        cell.sparsity,
        begin_step=0,
        end_step=plan.ramp * steps,
        prunes=min(plan.prunes, plan.ramp * steps),
    )
    controller = MaskController(regularize(net, cell.method, strengths), schedule, granularity="filter")
    epochs = plan.ramp + plan.fixed
    settings = {"rate": plan.rate, "seed": 1000 + cell.seed, "best_from_epoch": plan.ramp}
    train(controller.model, data, epochs, batch_size=BATCH, **settings)
    plain = controller.strip()
    settle_norms(plain, data["train"])
    return plain


def measure_redundancy(model: Any) -> float:
    """Return the mean |cosine| of two filters of a layer that are not all zero, averaged over the layers."""
    means = []
    for path in select_layers(model).masked:
        layer = model.get_layer(path)
        rows = filters_last(layer, getattr(layer, prunable_kernel(layer)).numpy())
        rows = rows.reshape(-1, rows.shape[-1]).T
        rows = rows[rows.any(axis=1)]
        if len(rows) > 1:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            overlap = np.abs(rows @ rows.T)
            means.append((overlap.sum() - len(rows)) / (len(rows) * (len(rows) - 1)))
    return float(np.mean(means)) if means else 0.0


def measure_near_zero(model: Any, pictures: SegmentationArrays) -> float:
    """Return the share of weights, of those not masked, whose task gradient is below 1 % of its layer's largest."""
    layers = [model.get_layer(path) for path in select_layers(model).masked]
    kernels = [getattr(layer, prunable_kernel(layer)) for layer in layers]
    loss = build_loss([{"cross_entropy": {}}, {"dice": {}}])
    sums = [np.zeros(kernel.shape) for kernel in kernels]
    for start in range(0, min(JUDGED_IMAGES, len(pictures)), BATCH):
        part = slice(start, start + BATCH)
        with tf.GradientTape() as tape:
            value = loss(pictures.masks[part], model(pictures.images[part].astype(np.float32), training=False))
        for total, gradient in zip(sums, tape.gradient(value, kernels), strict=True):
            total += gradient.numpy()
    small = living = 0
    for total, kernel in zip(sums, kernels, strict=True):
        alive = kernel.numpy() != 0
        living += alive.sum()
        small += (alive & (np.abs(total) < 0.01 * np.abs(total).max())).sum()
    return float(small / max(1, living))


def run_cell(
    cell: Cell, data: dict[str, SegmentationArrays], plan: Plan, strengths: Strengths, folder: Path
) -> dict[str, Any]:
    """Train one cell and return its line."""
    begin = time.perf_counter()
    net = trained_net(cell, data, plan, strengths, folder)
    if cell.sparsity:
        net = masked_net(net, cell, data, plan, strengths)
    return {
        **{name: getattr(cell, name) for name in CELL},
        "strengths": strengths_of(cell.method, strengths),
        "iou": round(measure_class_iou(net, data["test"], batch_size=BATCH), 5),
        "redundancy": round(measure_redundancy(net), 5),
        "near_zero_gradients": round(measure_near_zero(net, data["train"]), 5),
        "epochs": plan.dense + (plan.ramp + plan.fixed if cell.sparsity else 0),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def search(sets: Mapping[str, dict[str, SegmentationArrays]], plan: Plan, width: int, path: Path, folder: Path) -> None:
    """Train every candidate shortly, and note its IoU on the validation split, whole and with half its filters."""
    short = replace(plan, dense=6, ramp=2, fixed=1)
    done = {(row["set"], row["width"], row["method"], row["strength"]) for row in read_lines(path)}
    for name, data in sets.items():
        for method, candidates in CANDIDATES.items():
            for strength in candidates:
                if (name, width, method, strength) in done:
                    continue
                set_determinism(SEARCH_SEED)
                cell, strengths = Cell(name, SEARCH_SEED, width, method, 0.5), {method: strength}
                net = trained_net(cell, data, short, strengths, folder)
                nets = (net, masked_net(net, cell, data, short, strengths))
                whole, half = (measure_class_iou(one, data["val"], batch_size=BATCH) for one in nets)
                row = {"set": name, "width": width, "method": method, "strength": strength}
                row |= {"val_iou": round(whole, 5), "val_iou_half": round(half, 5)}
                append_line(path, row)
                print(json.dumps(row), flush=True)
                keras.backend.clear_session()


def found_strengths(rows: Sequence[dict[str, Any]], name: str, width: int) -> dict[str, float]:
    """Return for each method the strength with the best mean of both validation IoUs."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if (row["set"], row["width"]) == (name, width) and (
            row["method"] not in best or _searched(row) > _searched(best[row["method"]])
        ):
            best[row["method"]] = row
    return {method: row["strength"] for method, row in best.items()}


def _searched(row: dict[str, Any]) -> float:
    return row["val_iou"] + row["val_iou_half"]


def search_path(results: Path) -> Path:
    """Return where searched strengths lie."""
    return results.with_name(f"{results.stem}_search.jsonl")


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per set, width, method and sparsity: means over the seeds, and the spread of the IoU."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["width"], row["method"], row["sparsity"]), []).append(row)
    return [
        {
            **dict(zip(("set", "width", "method", "sparsity"), key, strict=True)),
            "strengths": group[0]["strengths"],
            "seeds": sorted(row["seed"] for row in group),
            **{
                f"{name}_mean": round(statistics.mean(row[name] for row in group), 4)
                for name in ("iou", "redundancy", "near_zero_gradients")
            },
            "iou_low": min(row["iou"] for row in group),
            "iou_high": max(row["iou"] for row in group),
        }
        for key, group in sorted(groups.items())
    ]


def write_report(results: Path) -> None:
    """Write the page for people and the figures for machines, beside the finished cells."""
    rows, searched = read_lines(results), read_lines(search_path(results))
    cells, plan, where = summarize(rows), Plan(), measured(rows)
    machine = where["machine"]
    lines = [
        "# What the composite regularizer buys, before and after pruning",
        "",
        "`python benchmarks/regularizer.py --search --data DIR/corrosion_field`, then the same without `--search`",
        f"({where['date']}; {machine['cpu']}; TensorFlow {machine['tensorflow']}; other work ran",
        f"beside it, which no figure here depends on). Finished cells: [{results.name}]({results.name}); figures for",
        f"machines: [{results.stem}.json]({results.stem}.json); `--report` writes this page from the cells.",
        "",
        f"Plain U-Net at 96x96 pixels, float32; {plan.dense} epochs from scratch with each regularizer, Adam 1e-3 on a",
        "cosine. Masked: that share of the filters of each layer (heads and kernels under 1024 weights stay whole), by",
        f"magnitude, ramped up over {plan.ramp} epochs and fine-tuned for {plan.fixed} more, the regularizer still on:",
        f"masked nets have had {plan.ramp + plan.fixed} epochs more. IoU of class 1 over the test pictures: mean over",
        "the seeds, below it the lowest and the highest. Redundancy: mean |cosine| between two filters of a layer.",
        "Near-zero gradients: share of the weights whose task gradient is below 1 % of its layer's largest. Both",
        "are of the whole nets.",
        "",
    ]
    for name, width in sorted({(row["set"], row["width"]) for row in cells}):
        lines += _table(name, width, [row for row in cells if (row["set"], row["width"]) == (name, width)])
    if searched:
        lines += ["## The search for strengths", "", "Validation IoU, whole and with half the filters masked.", ""]
        lines += ["| set | method | strength | whole | half |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['set']} | {TITLES[row['method']]} | {row['strength']:g} | {row['val_iou']:.3f} | "
            f"{row['val_iou_half']:.3f} |"
            for row in searched
        ]
        lines.append("")
    write_text(results.with_suffix(".md"), "\n".join(lines))
    write_json(results.with_suffix(".json"), {**where, "cells": cells, "search": searched})


def _table(name: str, width: int, cells: Sequence[dict[str, Any]]) -> list[str]:
    by_key = {(row["method"], row["sparsity"]): row for row in cells}
    sparsities = sorted({row["sparsity"] for row in cells})
    seeds = max(len(row["seeds"]) for row in cells)
    heads = [f"IoU, {f'{sparsity:.0%} masked' if sparsity else 'whole'}" for sparsity in sparsities]
    lines = [
        f"## {name}, width {width}, seeds: {seeds}",
        "",
        "| method | strength | " + " | ".join(heads) + " | redundancy | near-zero gradients |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for method in METHODS:
        found = [by_key.get((method, sparsity)) for sparsity in sparsities]
        if any(found):
            whole = by_key.get((method, 0.0))
            first = next(row for row in found if row)
            strength = ", ".join(f"{value:g}" for value in first["strengths"].values())
            rest = (
                [f"{whole['redundancy_mean']:.3f}", f"{whole['near_zero_gradients_mean']:.3f}"] if whole else ["", ""]
            )
            lines.append(f"| {TITLES[method]} | {strength} | " + " | ".join([*map(_spread, found), *rest]) + " |")
    return [*lines, "", *_beyond_the_spread(by_key, sparsities), ""]


def _beyond_the_spread(by_key: dict[tuple[str, float], dict[str, Any]], sparsities: Sequence[float]) -> list[str]:
    """Say which methods' seeds all lie above, or below, all seeds without a regularizer."""
    said = []
    for sparsity in sparsities:
        dense, where = by_key.get(("dense", sparsity)), f"{sparsity:.0%} masked" if sparsity else "whole"
        found = [by_key[method, sparsity] for method in METHODS[1:] if (method, sparsity) in by_key]
        if dense is None or len(dense["seeds"]) < 2 or not found:
            continue
        better = [TITLES[row["method"]] for row in found if row["iou_low"] > dense["iou_high"]]
        worse = [TITLES[row["method"]] for row in found if row["iou_high"] < dense["iou_low"]]
        parts = [f"{word} {', '.join(names)}" for word, names in (("above", better), ("below", worse)) if names]
        said.append(f"- {where}: {'; '.join(parts) or 'none'}")
    head = "Beyond the spread (every seed on one side of every seed without a regularizer):"
    return [head, "", *said] if said else []


def _spread(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    ends = f"<br>{row['iou_low']:.3f}-{row['iou_high']:.3f}" if len(row["seeds"]) > 1 else ""
    return f"{row['iou_mean']:.3f}{ends}"


def main() -> None:
    """Run what is missing, print a table, and the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--search", action="store_true", help="find strengths on the validation split")
    parser.add_argument("--report", action="store_true", help="only write the page from the finished cells")
    parser.add_argument("--data", type=Path, help="the folder of corrosion_field")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all that are there")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--nets", type=Path, default=Path("runs/regularizer"), help="where trained nets are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.report:
        write_report(arguments.results)
        return
    with tempfile.TemporaryDirectory() as temporary:
        plan, quick_strengths = Plan(), None
        if arguments.quick:
            arguments.nets, arguments.results = Path(temporary), Path(temporary, "quick.jsonl")
            arguments.data, arguments.seeds, arguments.sparsities = None, [0], [0.0, 0.5]
            arguments.methods = ["dense", "both"]
            plan = Plan(dense=5, ramp=1, fixed=1, prunes=3, rate=5e-3, size=(32, 32), drawn=(80, 8, 16))
            quick_strengths = {"orthogonality": 1.0, "gradients": 0.5}
        sets = load_sets(arguments.sets, arguments.data, plan, arguments.nets)
        if arguments.search:
            search(sets, plan, arguments.width, search_path(arguments.results), arguments.nets)
        else:
            run_cells(sets, plan, arguments, quick_strengths)
            write_report(arguments.results)
        rows, searched = summarize(read_lines(arguments.results)), read_lines(search_path(arguments.results))
    print_table(rows)
    found = {name: found_strengths(searched, name, arguments.width) for name in sets}
    print(json.dumps({"search": found} if arguments.search else {"cells": rows}))


def run_cells(
    sets: Mapping[str, dict[str, SegmentationArrays]],
    plan: Plan,
    arguments: argparse.Namespace,
    strengths: Strengths | None,
) -> None:
    """Train every cell that is not finished; without `strengths` they are those that were searched."""
    done = {tuple(row[name] for name in CELL) for row in read_lines(arguments.results)}
    searched = read_lines(search_path(arguments.results))
    for name, data in sets.items():
        found = strengths or found_strengths(searched, name, arguments.width)
        if missing := {part for method in arguments.methods for part in parts_of(method)} - set(found):
            raise SystemExit(
                f"{name}: no strengths are known for {', '.join(sorted(missing))}; run with --search first"
            )
        for seed in arguments.seeds:
            for method in arguments.methods:
                for sparsity in arguments.sparsities:
                    cell = Cell(name, seed, arguments.width, method, sparsity)
                    if tuple(getattr(cell, part) for part in CELL) in done:
                        continue
                    set_determinism(seed)
                    row = run_cell(cell, data, plan, found, arguments.nets)
                    append_line(arguments.results, row)
                    print(json.dumps(row), flush=True)
                    keras.backend.clear_session()


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the mean figures of all cells."""
    heads = ("IoU", "redundancy", "near zero")
    print(f"{'set':16}{'width':>6} {'method':14}{'masked':>7}{'seeds':>6}" + "".join(f"{head:>12}" for head in heads))
    for row in rows:
        print(
            f"{row['set']:16}{row['width']:>6} {row['method']:14}{row['sparsity']:>7.0%}{len(row['seeds']):>6}"
            f"{row['iou_mean']:>12.4f}{row['redundancy_mean']:>12.4f}{row['near_zero_gradients_mean']:>12.4f}"
        )


if __name__ == "__main__":
    main()
