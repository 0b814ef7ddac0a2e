"""The corrosion-pruning grid on NEA at a small scale, beside the published one.

    python benchmarks/s1_nea.py --quick           two nets of the grid and their costs, under 45 s; nothing is written
    python benchmarks/s1_nea.py --data DIR/nea    runs recipes/s1_nea_small.yaml on both splits, or goes on
    python benchmarks/s1_nea.py --record-only     records what has ended so far

The second can be stopped at any moment. It searches the grid on the random split (45 cells), then the cells of the
highest sparsity on the block split (15), then trains each dense net for as many epochs as a cell has, which says what
those epochs alone are worth. The last two write docs/results/s1_nea.{md,json,jsonl}, one line of the last per result.
The last line is {"cells": ..., "median_drop": {...}, "worst_drop": {...}, ...}, for --quick {"macs": {...}}.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, measured, read_lines, stamped  # noqa: E402
from tfprune.recipe import check_recipe, load_recipe  # noqa: E402
from tfprune.recipe.sections import Recipe  # noqa: E402
from tfprune.records import plain, read_json, write_json, write_text  # noqa: E402
from tfprune.search.recipes import search_recipe, trial_recipe  # noqa: E402
from tfprune.search.trials import load_trials  # noqa: E402

NAME = "s1_nea"
RECIPE = "s1_nea_small"
RESULTS = FOLDER / f"{NAME}.json"
COMMAND = f"python benchmarks/{NAME}.py --data DIR/nea"
SCORE = "micro_imagewise_iou"
SPARSITIES = ("0.2", "0.5", "0.9")
LONG = SPARSITIES[1:]
"""Those at which a cell trains as long as `dense, longer`."""
PRUNERS = {"linear": "linear, Taylor", "polynomial": "AGP, Taylor", "movement": "movement"}
"""Schedule of the masks -> the pruner's name."""
KEY = ("split", "kind", "architecture", "pruner", "sparsity")
"""What tells one line of the .jsonl from another."""

PUBLISHED = {
    "fpn": (0.8935, (0.8900, 0.8991, 0.6529), (0.8932, 0.8991, 0.8387), (0.8752, 0.8120, 0.8118)),
    "linknet": (0.8834, (0.8924, 0.8626, 0.8304), (0.9013, 0.9058, 0.6502), (0.8312, 0.6908, 0.6580)),
    "manet": (0.8804, (0.8864, 0.8530, 0.6594), (0.8875, 0.8834, 0.6329), (0.0671, 0.3410, 0.7739)),
    "unet": (0.8973, (0.8913, 0.8877, 0.6633), (0.8921, 0.8624, 0.8315), (0.6480, 0.6455, 0.6580)),
    "unet_plus_plus": (0.9001, (0.8978, 0.8955, 0.6535), (0.8976, 0.8928, 0.6616), (0.8374, 0.2118, 0.8001)),
}
"""The authors' final IoU on validation, NEA: dense; linear, AGP and movement at 20, 50 and 90 % each (public logs)."""


def grids() -> dict[str, Recipe]:
    """Return the recipe of each split: the grid on the random one, its highest sparsity on the block one."""
    random = load_recipe(RECIPE)
    content = random.model_dump(mode="json")
    content["name"] = f"{RECIPE}_block"
    content["data"]["split_file"] = "block_split.json"
    ranges = content["search"]["ranges"]
    ranges["channels.ratio"]["choice"] = [float(SPARSITIES[-1])]
    ranges.pop("channels.epochs")
    return {"random": random, "block": check_recipe(content, where=content["name"])}


def measure_nets() -> dict[str, Any]:
    """Count the first two dense nets of the grid."""
    from tfprune.architectures import build_model
    from tfprune.channels import measure_cost, narrowed

    recipe, macs = load_recipe(RECIPE), {}
    for given in recipe.search.ranges["architecture"].options[:2]:
        section = trial_recipe(recipe, "quick", {"architecture": given}).architecture
        net = build_model(
            section.name, input_size=tuple(recipe.data.size), outputs=2, seed=recipe.seed, **section.options
        )
        cost = measure_cost(narrowed(net, section.width_ratio, seed=recipe.seed))
        macs[section.name] = cost.macs
        print(f"{section.name:16}{cost.macs / 1e6:8.1f} M MACs {cost.parameters / 1e6:8.2f} M parameters")
    return {"macs": macs}


def cells_of(split: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the result of each trial of a search that has ended."""
    for record in load_trials(folder):
        common = {
            "split": split,
            "kind": "pruned",
            "architecture": record.values["architecture"]["name"],
            "pruner": record.values["channels"]["schedule"],
            "sparsity": str(record.values["channels.ratio"]),
            "status": record.status,
            "reason": record.reason,
            "seconds": record.seconds,
        }
        if record.status != "finished":
            yield common
            continue
        rows = read_json(folder / "trials" / record.trial / "records" / "verification.json")["rows"]
        dense, pruned = (result_of(next(row for row in rows if row["variant"] == one)) for one in ("dense", "shrunk"))
        yield {
            **common,
            **pruned,
            "val_iou": record.figures[SCORE],
            "drop_ratio": 1 - pruned["iou"] / dense["iou"],
            "dense": dense,
        }


def result_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row of the verification says of a file, on the test split."""
    return {
        **scores_of(row["scores"]),
        **{name: row["footprint"][name] for name in ("macs", "parameters", "file_bytes")},
    }


def scores_of(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of this page: micro-imagewise IoU, IoU of corrosion, share of pixels that are it."""
    (corrosion,) = list(scores["iou"])[1:]
    return {
        "iou": scores[SCORE],
        "corrosion_iou": scores["iou"][corrosion],
        "answer_ratio": scores["answer_ratio"][corrosion],
        "truth_ratio": scores["truth_ratio"][corrosion],
    }


def background_of(split: str, recipe: Recipe, data: Path, out: Path) -> dict[str, Any]:
    """Return what an answer without any corrosion scores."""
    import numpy as np

    from tfprune.objectives.counts import count_confusions
    from tfprune.objectives.scores import score_confusions
    from tfprune.run.inputs import load_inputs

    inputs = load_inputs(recipe, data, None, out)
    masks, names = inputs.arrays["test"].masks, inputs.dataset.classes.names
    scores = score_confusions(count_confusions(masks, np.zeros_like(masks), len(names)), names)
    return {**_control(split, "all background"), **scores_of(scores)}


def longer_of(split: str, recipe: Recipe, data: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the scores of each dense net after as many epochs more as a cell has."""
    from tfprune.export.conversion import export_tflite
    from tfprune.keras import keras
    from tfprune.objectives.scores import score_confusions
    from tfprune.run import train_stage
    from tfprune.run.inputs import load_inputs
    from tfprune.training.stage import set_determinism
    from tfprune.verification.quality import measure_quality
    from tfprune.verification.runtimes import open_runtime

    inputs = load_inputs(recipe, data, None, folder)
    test, names = inputs.arrays["test"], inputs.dataset.classes.names
    nets = {record.values["architecture"]["name"]: record.trial for record in load_trials(folder)}
    for name, trial in nets.items():
        place = folder / "longer" / name
        keras.backend.clear_session()
        set_determinism(recipe.seed)
        net = keras.models.load_model(folder / "trials" / trial / "models" / "dense.keras", compile=False)
        train_stage(recipe, "longer", recipe.channels, net, inputs, place, progress=None)
        path = export_tflite(net, place / "longer.tflite", scheme="float32", class_names=names)
        judged = measure_quality(open_runtime(path).classes_of, test.images, test.masks, classes=len(names))
        scores = score_confusions(judged.confusions, names)
        yield {**_control(split, "dense, longer", name), **scores_of(scores)}


def _control(split: str, kind: str, architecture: str = "") -> dict[str, Any]:
    return {"split": split, "kind": kind, "architecture": architecture, "pruner": "", "sparsity": ""}


def load_lines() -> list[dict[str, Any]]:
    """Return the results that were recorded earlier."""
    return read_lines(RESULTS.with_suffix(".jsonl"))


def add_lines(found: Sequence[dict[str, Any]]) -> None:
    """Add results to the .jsonl; what is there already stays as it is."""
    lines = load_lines()
    known = {tuple(line[name] for name in KEY) for line in lines}
    lines += [stamped(plain(line)) for line in found if tuple(line[name] for name in KEY) not in known]
    write_text(RESULTS.with_suffix(".jsonl"), "".join(f"{json.dumps(line)}\n" for line in lines))


def record(out: Path, machine: dict[str, Any] | None = None) -> dict[str, Any]:
    """Record what has ended, write the page, and return the figures."""
    for split, recipe in grids().items():
        folder = out / recipe.name
        if (folder / "environment.json").exists():
            machine = machine or read_json(folder / "environment.json")
        add_lines(list(cells_of(split, folder)))
    earlier = read_json(RESULTS) if RESULTS.exists() else {}
    lines = load_lines()
    head = {"command": COMMAND, "date": measured(lines)["date"], "machine": machine or earlier.get("machine")}
    figures = {"seed": load_recipe(RECIPE).seed, **summarize(lines, "random"), "block": summarize(lines, "block")}
    write_json(RESULTS, {**head, **figures})
    write_text(RESULTS.with_suffix(".md"), describe({**head, **figures}))
    names = ("median_drop", "worst_drop", "collapsed")
    return {"cells": len(figures["cells"]), "block_cells": len(figures["block"]["cells"])} | {
        name: figures[name] for name in names
    }


def summarize(lines: Sequence[dict[str, Any]], split: str) -> dict[str, Any]:
    """Return the figures of one split: drops by sparsity, the cells, and the rows to stand beside them."""
    ours = [line for line in lines if line["split"] == split]
    cells = [line for line in ours if line["kind"] == "pruned" and line["status"] == "finished"]
    drops = {one: [cell["drop_ratio"] for cell in cells if cell["sparsity"] == one] for one in SPARSITIES}
    empty = next((line for line in ours if line["kind"] == "all background"), None)
    longer = {line["architecture"]: line["iou"] for line in ours if line["kind"] == "dense, longer"}
    later = {
        one: [1 - cell["iou"] / longer.get(cell["architecture"], math.nan) for cell in cells if cell["sparsity"] == one]
        for one in LONG
    }
    return {
        "median_drop": {one: statistics.median(values) for one, values in drops.items() if values},
        "worst_drop": {one: max(values) for one, values in drops.items() if values},
        "median_drop_from_longer": {
            one: statistics.median(values) for one, values in later.items() if values and not math.isnan(sum(values))
        },
        "collapsed": [
            " ".join(cell[name] for name in KEY[2:])
            for cell in cells
            if cell["answer_ratio"] < 0.25 * cell["truth_ratio"] or (empty and cell["iou"] <= empty["iou"])
        ],
        "cells": cells,
        "failed": [line for line in ours if line["kind"] == "pruned" and line["status"] != "finished"],
        "all_background": empty,
        "longer": [line for line in ours if line["kind"] == "dense, longer"],
    }


def describe(found: dict[str, Any]) -> str:
    """Return the page for people."""
    machine = found["machine"] or {}
    lines = [
        "# The corrosion-pruning grid on NEA, small",
        "",
        f"Command: `{found['command']}` ({found['date']}, {machine.get('cpu')}, one core, TensorFlow "
        f"{machine.get('tensorflow')}, seed {found['seed']}).",
        f"Figures for machines: [{NAME}.json]({NAME}.json); results one by one: [{NAME}.jsonl]({NAME}.jsonl).",
        "",
        *_setting(),
        "",
        *_against_bounds(found),
        "",
        "## Random split",
        "",
        *_table(found),
        "",
        "The authors' runs (ResNet-101, 512x288, three classes, 350 epochs, masks in place): final IoU on validation.",
        "",
        *_published(),
        "",
        "## Block split",
        "",
        "Training and test pictures lie 15 frames and more apart in the video; on the random split most test pictures",
        "have a near twin in train.",
        "",
        *(_table(found["block"]) if found["block"]["cells"] else ["No cell has ended yet."]),
    ]
    return "\n".join(lines) + "\n"


def _setting() -> list[str]:
    recipe = load_recipe(RECIPE)
    ramp, all_epochs = recipe.channels.ramp_epochs, recipe.channels.epochs
    (fewer,) = recipe.search.ranges["channels.epochs"].options
    return [
        f"[The recipe](../../tfprune/recipes/{RECIPE}.yaml): ResNet-18 encoders at {recipe.architecture.width_ratio} "
        f"of their width, from scratch, pictures of {recipe.data.size[1]}x{recipe.data.size[0]};",
        f"{recipe.training.epochs} epochs for each dense net, shared by its cells; in a cell {ramp} epochs in which",
        "masks close on whole channels, with all that is coupled to them, and after their removal",
        f"{all_epochs - ramp} epochs on the smaller net, {fewer - ramp} at .2. Taylor scores over all layers say how",
        "many channels a layer keeps, the pruner which ones. One seed. Scores are of the exported float32 files on the",
        "test pictures; validation alone chose epochs and settings. *IoU* is micro-imagewise, as published;",
        "*change* is relative to the dense net of that architecture; *answered* is the share of pixels called",
        f"corrosion. *dense, longer* has trained for {all_epochs} epochs more, as long as a cell at .5 and .9.",
        "Cells of before 2026-11-30 took equal shares of all layers where scores are equal; now wide layers give more.",
    ]


def _against_bounds(found: dict[str, Any]) -> list[str]:
    cells, block = len(found["cells"]), len(found["block"]["cells"])
    said = [f"**{cells} of 45 cells and {block} of 15 on the block split have ended.**"]
    for part, place in ((found, "At"), (found["block"], "On the block split, at")):
        for one, median in part["median_drop"].items():
            count = sum(cell["sparsity"] == one for cell in part["cells"])
            longer = part["median_drop_from_longer"].get(one)
            also = "" if longer is None else f"; against the dense net trained as long, median {_percent(longer)}"
            said.append(
                f"{place} {one}: median {_percent(median)} against dense, worst {_percent(part['worst_drop'][one])} "
                f"(cells: {count}){also}."
            )
    collapsed = [*found["collapsed"], *(f"{one} (block)" for one in found["block"]["collapsed"])]
    if cells:
        said.append(
            "Collapsed (an IoU not above that of answering background everywhere, or less than a quarter of the true "
            f"share answered): {', '.join(collapsed) or 'none'}."
        )
    return said + ([] if cells == 45 and block == 15 else ["The rest is not done: the same command goes on."])


def _table(found: dict[str, Any]) -> list[str]:
    heads = ("net", "pruner", "sparsity", "IoU", "change", "IoU of corrosion", "answered", "MACs, M", "file, KiB")
    rows = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    if found["all_background"]:
        empty = found["all_background"]
        rows.append(f"| all background | | | {_score(empty['iou'])} | | .000 | .000 | | |")
        rows.append(f"| truth | | | | | | {_score(empty['truth_ratio'])} | | |")
    for name in PUBLISHED:
        cells = [cell for cell in found["cells"] if cell["architecture"] == name]
        if not cells:
            continue
        dense = cells[0]["dense"]
        rows.append(_row(name, "dense", "0", dense))
        for longer in (line for line in found["longer"] if line["architecture"] == name):
            rows.append(_row(name, "dense, longer", "0", {**dense, **longer}, 1 - longer["iou"] / dense["iou"]))
        for cell in sorted(cells, key=lambda one: (one["sparsity"], list(PRUNERS).index(one["pruner"]))):
            rows.append(_row(name, PRUNERS[cell["pruner"]], cell["sparsity"], cell, cell["drop_ratio"]))
    return rows


def _row(name: str, pruner: str, sparsity: str, row: dict[str, Any], drop: float | None = None) -> str:
    cells = (
        *(name, pruner, sparsity.lstrip("0") or "0", _score(row["iou"]), "" if drop is None else _percent(drop)),
        *(_score(row["corrosion_iou"]), _score(row["answer_ratio"])),
        *(f"{row['macs'] / 1e6:.1f}", f"{row['file_bytes'] / 1024:,.0f}"),
    )
    return f"| {' | '.join(cells)} |"


def _published() -> list[str]:
    rows = ["| net | dense | pruner | .2 | .5 | .9 |", "|---|---:|---|---:|---:|---:|"]
    for name, (dense, *pruned) in PUBLISHED.items():
        for pruner, scores in zip(PRUNERS.values(), pruned, strict=True):
            drops = (f"{_score(score)} ({_percent(1 - score / dense)})" for score in scores)
            rows.append(f"| {name} | {_score(dense)} | {pruner} | {' | '.join(drops)} |")
    return rows


def _score(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def _percent(drop_ratio: float) -> str:
    """Return a drop as a change: minus means worse."""
    return f"{-100 * drop_ratio:+.1f} %"


def run(data: Path, out: Path) -> None:
    """Run both grids and the controls, recording each result as it comes."""
    recipes = grids()

    def say(text: str) -> None:
        print(text, flush=True)
        record(out)

    for split, recipe in recipes.items():
        add_lines([background_of(split, recipe, data, out)])
        search_recipe(recipe, data=data, out=out, say=say)
    for split, recipe in recipes.items():
        for line in longer_of(split, recipe, data, out / recipe.name):
            add_lines([line])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two nets and their costs alone; nothing is written")
    parser.add_argument("--data", type=Path, help="the folder of nea")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="folder for the runs")
    parser.add_argument("--record-only", action="store_true", help="run nothing, record what has ended")
    options = parser.parse_args()
    if options.quick:
        figures = measure_nets()
    else:
        if not options.record_only:
            run(options.data, options.out)
        figures = record(options.out)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
