"""Accuracy kept when channels go to a budget: criteria and controls, judged on the exported files.

Every cell starts from the dense net of its seed (plain U-Net, trained here first where it is missing: until more epochs
bring little) and goes through the channel stage of a recipe as `tfprune run` does: removal to a share of
the MACs, then epochs that follow the dense net. `dense` is that net as it is, `dense_longer` after as many epochs
more without removal, `random` draws the channels by lot, `width_scaled` is the net narrowed alike to as many MACs and
trained from scratch for all epochs together. Judged: IoU of the float32 and int8 .tflite files on the test split, of
corrosion, or the mean over the classes of a set with more of them (camvid). A stopped training goes on; finished
cells are lines of docs/results/channels_budget.jsonl.

Usage: python benchmarks/channels_budget.py --data DIR/corrosion_field (or camvid) [--width 8] [--seeds 0 1 2]
       [--variants taylor ...] [--shares 0.5 0.25 0.1] [--epochs 36] [--way iterative] [--undistilled] [--nets DIR]
       python benchmarks/channels_budget.py --latency   (time against MACs at 128 and 256 pixels)
       python benchmarks/channels_budget.py --report    (the page from the finished cells)
       python benchmarks/channels_budget.py --quick     (drawn pictures, nothing is stored; under 45 s)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, append_line, measured, read_lines  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.architectures.files import load_model  # noqa: E402
from tfprune.channels import WAYS, Selection, measure_cost, remove_channels  # noqa: E402
from tfprune.data.steel import generate_steel  # noqa: E402
from tfprune.errors import InputError  # noqa: E402
from tfprune.export.calibration import spread  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras, tf  # noqa: E402
from tfprune.objectives.scores import score_confusions  # noqa: E402
from tfprune.recipe import check_recipe  # noqa: E402
from tfprune.recipe.sections import Recipe  # noqa: E402
from tfprune.records import atomic_path  # noqa: E402
from tfprune.run import train_stage  # noqa: E402
from tfprune.run.inputs import Inputs, build_dense, check_stages, load_inputs  # noqa: E402
from tfprune.run.shrinking import Shrinker  # noqa: E402
from tfprune.run.stages import train_longer  # noqa: E402
from tfprune.silence import quiet_stderr  # noqa: E402
from tfprune.training.stage import set_determinism  # noqa: E402
from tfprune.verification.latency import measure_latency  # noqa: E402
from tfprune.verification.quality import measure_quality  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

VARIANTS = ("dense", "dense_longer", "magnitude", "taylor", "random", "width_scaled")
WHOLE, REMOVED = VARIANTS[:2], ("magnitude", "taylor")
SHARES = (0.5, 0.25, 0.1)
DENSE_EPOCHS = {"corrosion_field": 60, "camvid": 120, "steel": 2}
"""Epochs of the dense nets; camvid has half as many pictures."""
RATE = 5e-3
RESULTS = FOLDER / "channels_budget.jsonl"
CELL = ("set", "width", "seed", "variant", "share", "way", "epochs", "rate", "distilled")
PICTURES: dict[str, dict[str, Any]] = {
    "corrosion_field": {"size": [96, 96], "augment": ["HorizontalFlip", "VerticalFlip"], "val_share": 0.12},
    "camvid": {"size": [96, 128], "augment": ["HorizontalFlip"]},
    "steel": {"size": [32, 32], "augment": ["HorizontalFlip"]},
}
"""How the pictures of a set are read; `steel` is drawn for --quick."""
LATENCY_SIZES, MULTIPLES, FILTERS = (128, 256), (8, 16, 32), (4, 8, 12, 16, 24, 32, 48, 64)


def recipe_of(cell: dict[str, Any]) -> Recipe:
    """Return the recipe whose stages a cell runs."""
    content: dict[str, Any] = {
        "name": cell["variant"],
        "seed": cell["seed"],
        "data": PICTURES[cell["set"]],
        "architecture": {"name": "plain_unet", "width": cell["width"]},
        "loss": [{"cross_entropy": {}}, {"dice": {}}],
        "training": {"epochs": DENSE_EPOCHS[cell["set"]], "learning_rate": RATE},
        "channels": {
            "epochs": cell["epochs"] or 1,
            "learning_rate": cell["rate"],
            "budget": f"macs<={cell['share'] or 1:g}x",
            "multiple_of": 1,
            "way": cell["way"],
            "criterion": "magnitude" if cell["variant"] == "magnitude" else "taylor",
        },
        "controls": [cell["variant"]] if cell["variant"] in ("random", "width_scaled") else [],
    }
    if not cell["distilled"]:
        content["channels"]["distillation"] = None
    return check_recipe(content)


def train_cell(cell: dict[str, Any], recipe: Recipe, inputs: Inputs, net: Any, folder: Path) -> Any:
    """Return the net of a cell, trained."""
    run_stage = partial(train_stage, recipe, inputs=inputs, folder=folder, progress=None)
    if cell["variant"] == "dense":
        return net
    if cell["variant"] == "dense_longer":
        return train_longer(recipe, net, run_stage)[0]
    shrinker = Shrinker(recipe, inputs, net, check_stages(recipe, inputs, net).remove, run_stage, folder)
    if recipe.controls:
        target = shrinker.remove(net).model
        return shrinker.controls(net, target)[cell["variant"]][0]
    return shrinker.shrink(net)[0]


def open_dense(cell: dict[str, Any], recipe: Recipe, inputs: Inputs, nets: Path, work: Path) -> Any:
    """Return the dense net of a cell's seed, trained first if it is not there."""
    path = nets / f"{cell['set']}_width{cell['width']}_seed{cell['seed']}.keras"
    if not path.exists():
        net = build_dense(recipe, inputs, None)
        train_stage(recipe, "training", recipe.training, net, inputs=inputs, folder=work / path.stem, progress=None)
        with atomic_path(path) as temporary:
            net.save(temporary)
    return load_model(path)


def judge(model: Any, inputs: Inputs) -> dict[str, float]:
    """Return the IoU of the float32 and int8 files on the test split, and their bytes."""
    test, found = inputs.arrays["test"], {}
    names = inputs.dataset.classes.names
    with tempfile.TemporaryDirectory() as folder:
        for scheme in ("float32", "int8"):
            path = export_tflite(
                model,
                Path(folder, f"{scheme}.tflite"),
                scheme=scheme,
                class_names=names,
                calibration=spread(inputs.arrays["train"].images, 100),
            )
            quality = measure_quality(open_runtime(path).classes_of, test.images, test.masks, classes=len(names))
            scores = score_confusions(quality.confusions, names)
            found[f"iou_{scheme}"] = round(scores["iou"][names[1]] if len(names) == 2 else scores["mean_iou"], 5)
            found[f"bytes_{scheme}"] = path.stat().st_size
    return found


def run_cell(cell: dict[str, Any], inputs: Inputs, nets: Path, work: Path) -> dict[str, Any]:
    """Train and judge one cell; return its line."""
    set_determinism(cell["seed"])
    recipe = recipe_of(cell)
    net = open_dense(cell, recipe, inputs, nets, work)
    whole = measure_cost(net).macs
    begin = time.perf_counter()
    model = train_cell(cell, recipe, inputs, net, work / "_".join(str(cell[name]) for name in CELL))
    cost = measure_cost(model)
    return {
        **cell,
        **judge(model, inputs),
        "macs_share": round(cost.macs / whole, 4),
        "parameters": cost.parameters,
        "peak_activation_bytes_int8": cost.peak_activation_bytes_int8,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def latency_rows(sizes: Sequence[int], shares: Sequence[float], *, runs: int) -> list[dict[str, Any]]:
    """Return how time follows MACs: float32, XNNPACK, one thread, width 16, channels in multiples of a few numbers."""
    rows = []
    for size in sizes:
        dense = build_model("plain_unet", input_size=(size, size), outputs=2, width=16, seed=0)
        nets: dict[Any, Any] = {"dense": dense}
        for share, multiple in product(shares, MULTIPLES):
            selection = Selection(budget=f"macs<={share}x", multiple_of=multiple)
            with suppress(InputError):  # so few are out of reach in steps so large
                nets[share, multiple] = remove_channels(dense, selection, check=False).model
        with tempfile.TemporaryDirectory() as folder:
            opened = {}
            for name, net in nets.items():
                path = export_tflite(net, Path(folder, f"{len(opened)}.tflite"), class_names=["a", "b"])
                opened[name] = open_runtime(path, threads=1)
            picture = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
            times = measure_latency({name: partial(model.time, picture) for name, model in opened.items()}, runs=runs)
        macs = {name: measure_cost(net).macs for name, net in nets.items()}
        for name in list(nets)[1:]:
            fewer = macs["dense"] / macs[name]
            rows.append(
                {
                    "size": size,
                    "share": name[0],
                    "multiple_of": name[1],
                    "times_fewer_macs": round(fewer, 3),
                    "times_as_fast": round(times[name].ratio_to_first, 3),
                    "low": round(times[name].ratio_low, 3),
                    "high": round(times[name].ratio_high, 3),
                    "efficiency": round(times[name].ratio_to_first / fewer, 3),
                    "dense_ms": round(times["dense"].median_ms, 3),
                    "runtime": opened[name].description,
                }
            )
    return rows


def filter_rows(*, size: int, runs: int) -> list[dict[str, Any]]:
    """Return the time of one 3x3 convolution of 32 channels by the number of its filters; float32, one thread."""
    calls = {}
    for filters in FILTERS:
        image = keras.Input((size, size, 32), batch_size=1)
        net = keras.Model(image, keras.layers.Conv2D(filters, 3, padding="same")(image))
        with quiet_stderr():
            content = tf.lite.TFLiteConverter.from_keras_model(net).convert()
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        calls[filters] = partial(time_invoke, interpreter)
    times = measure_latency(calls, runs=runs)
    return [{"filters": filters, "ms": round(times[filters].median_ms, 4)} for filters in FILTERS]


def time_invoke(interpreter: Interpreter) -> float:
    """Return the seconds of one run."""
    begin = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - begin


def cells_of(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the cells asked for, seed by seed; those without removal have no share, those without a way none."""
    return [
        {
            "set": arguments.data.name,
            "width": arguments.width,
            "seed": seed,
            "variant": variant,
            "share": share,
            "way": arguments.way if variant in REMOVED else "one_shot",
            "epochs": 0 if variant == "dense" else arguments.epochs,
            "rate": RATE if variant == "dense" else arguments.rate,
            "distilled": not arguments.undistilled and variant in (*REMOVED, "random"),
        }
        for seed in arguments.seeds
        for variant in arguments.variants
        for share in ([None] if variant in WHOLE else arguments.shares)
    ]


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per kind of cell: mean and ends over seeds, and the losses against both dense nets of a seed."""
    kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    whole: dict[tuple[Any, ...], float] = {}
    for row in rows:
        kinds.setdefault(tuple(row[name] for name in CELL if name != "seed"), []).append(row)
        if row["variant"] in WHOLE:
            whole[_whole(row, row["variant"])] = row["iou_float32"]
    summary = []
    for members in kinds.values():
        row = {name: members[0][name] for name in CELL if name != "seed"}
        row["seeds"] = len(members)
        row["macs_share"] = round(statistics.mean(member["macs_share"] for member in members), 3)
        for scheme in ("float32", "int8"):
            values = [member[f"iou_{scheme}"] for member in members]
            row |= {f"{scheme}_mean": round(statistics.mean(values), 4)}
            row |= {f"{scheme}_low": min(values), f"{scheme}_high": max(values)}
        row["int8_kib"] = round(statistics.mean(member["bytes_int8"] for member in members) / 1024, 1)
        for variant in WHOLE:
            pairs = [(whole.get(_whole(member, variant)), member["iou_float32"]) for member in members]
            losses = [before - after for before, after in pairs if before is not None]
            row[f"below_{variant}"] = round(statistics.mean(losses), 4) if losses else None
        summary.append(row)
    return sorted(summary, key=lambda row: (row["set"], row["width"], -(row["share"] or 1), row["variant"]))


def _whole(row: dict[str, Any], variant: str) -> tuple[Any, ...]:
    """Return what tells apart the whole net that a cell is compared with; the longer one had as many epochs."""
    return variant, row["set"], row["width"], row["seed"], row["epochs"] if variant == "dense_longer" else 0


def write_report(path: Path) -> list[dict[str, Any]]:
    """Write the page for people and the figures for machines beside the finished cells; return the summary."""
    rows = read_lines(path)
    trained = [row for row in rows if "variant" in row]
    cells, where = summarize(trained), measured(trained)
    latency, filters = ([row for row in rows if key in row] for key in ("size", "filters"))
    lines = [
        "# Channels to a budget: what is kept",
        "",
        textwrap.fill(
            "`python benchmarks/channels_budget.py --data DIR/corrosion_field` (width 8; then `--width 16 "
            "--seeds 0`, and `--data DIR/camvid --seeds 0 --epochs 72`), `--way`, `--rate`, `--undistilled` as "
            "rows say, `--latency`. It goes on where it stopped: every finished training is a line of "
            f"[{path.name}]({path.name}), and `--report` writes this page. {where['date']}, "
            f"{where['machine']['cpu']}, TensorFlow {where['machine']['tensorflow']}, one core per training; the same "
            "dense nets come out of both processors.",
            110,
        ),
        "",
        textwrap.fill(
            "corrosion_field at 96x96 pixels, IoU of corrosion on 196 test pictures; camvid at 128x96, mean "
            "IoU of 11 classes on 233. Plain U-Nets, judged by their .tflite files. Every cell starts from the "
            f"`dense` net of its seed (rate {RATE:g}; {DENSE_EPOCHS['corrosion_field']} epochs, and "
            f"{DENSE_EPOCHS['camvid']} on camvid, which has half as many pictures) and trains the epochs of its "
            "row (Adam, cosine, the best on validation), following the dense net or not. The way iterative "
            "halves the MACs in each round. `dense_longer` trains without removal, `random` draws the same "
            "share of every layer by lot and removes it at once, `width_scaled` is as narrow everywhere and trains "
            "from scratch for both together. Mean over the seeds, lowest and highest in brackets. Below dense, below "
            "longer: what is lost of the IoU of `dense`, and of `dense_longer` after as many epochs, of the same "
            "seed, float32.",
            110,
        ),
        "",
        "| set | width | share of MACs | variant | way | epochs | rate | follows dense | seeds | float32 | int8 "
        "| int8 file, KiB | below dense | below longer |",
        "|---" * 14 + "|",
        *(_line(row) for row in cells),
        "",
    ]
    if latency:
        lines += [
            "## Time against MACs",
            "",
            f"Plain U-Net, width 16, the same share of every layer removed, float32, {latency[0]['runtime']}; the",
            "nets take turns. Efficiency = times as fast / times fewer MACs. Where a multiple is missing, so few MACs",
            "are out of its reach.",
            "",
            "| processor | pixels | dense, ms | multiples of | times fewer MACs | times as fast | efficiency |",
            "|---" * 7 + "|",
            *(
                f"| {row['cpu']} | {row['size']} | {row['dense_ms']} | {row['multiple_of']} | "
                f"{row['times_fewer_macs']} | {row['times_as_fast']} ({row['low']}-{row['high']}) | "
                f"{row['efficiency']} |"
                for row in latency
            ),
            "",
            "One 3x3 convolution of 32 channels at 128x128 by the number of its filters, in the same runtime, in ms.",
            "On processors with AVX-512 fewer than 16 filters cost as much as 16, and 24 more than 32: there, remove",
            "in multiples of 16 or 32.",
            "",
            "| processor |" + "".join(f" {filters} filters |" for filters in FILTERS),
            "|---" * (1 + len(FILTERS)) + "|",
            *(
                f"| {cpu} |" + "".join(f" {row['ms']:.3f} |" for row in filters if row["cpu"] == cpu)
                for cpu in dict.fromkeys(row["cpu"] for row in filters)
            ),
            "",
        ]
    path.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    found = {**where, "cells": cells, "latency": latency, "filters": filters}
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return cells


def _line(row: dict[str, Any]) -> str:
    def spread_of(scheme: str) -> str:
        ends = f" ({row[f'{scheme}_low']:.3f}-{row[f'{scheme}_high']:.3f})" if row["seeds"] > 1 else ""
        return f"{row[f'{scheme}_mean']:.3f}{ends}"

    below = " | ".join("" if (lost := row[f"below_{name}"]) is None else f"{lost:+.3f}" for name in WHOLE)
    follows = "yes" if row["distilled"] else "no"
    way = row["way"] if row["variant"] in REMOVED else ""
    return (
        f"| {row['set']} | {row['width']} | {row['macs_share']:.3f} | {row['variant']} | {way} | {row['epochs']} | "
        f"{row['rate']:g} | {follows} | {row['seeds']} | {spread_of('float32')} | {spread_of('int8')} | "
        f"{row['int8_kib']} | {below} |"
    )


def quick(arguments: argparse.Namespace, folder: Path) -> None:
    """Set up drawn pictures and a net that is hardly trained."""
    arguments.data, arguments.nets, arguments.results = folder / "steel", folder, folder / "quick.jsonl"
    arguments.work, arguments.epochs, arguments.seeds = folder / "work", 2, [0]
    arguments.variants, arguments.shares = ["taylor", "width_scaled"], [0.25]
    generate_steel(arguments.data, classes=2, counts={"train": 48, "val": 8, "test": 16}, size=(32, 32), seed=0)
    net = build_model("plain_unet", input_size=(32, 32), outputs=2, width=arguments.width, seed=0)
    with atomic_path(folder / f"steel_width{arguments.width}_seed0.keras") as temporary:
        net.save(temporary)


def main() -> None:
    """Run what is missing, print a table, and the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--quick", "--report", "--latency", "--undistilled"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--data", type=Path, help="the folder of corrosion_field or camvid")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--way", choices=tuple(WAYS), default="iterative")
    parser.add_argument(
        "--nets", type=Path, default=Path("runs/channels_budget/dense"), help="where the dense nets lie"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/channels_budget"), help="where trainings are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not (arguments.quick or arguments.report or arguments.latency) and (
        arguments.data is None or arguments.data.name not in PICTURES
    ):
        parser.error("--data DIR/corrosion_field or --data DIR/camvid is needed (or --quick, --latency, --report)")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.quick:
            quick(arguments, Path(temporary))
        if arguments.latency or arguments.quick:
            settings = {"runs": 20} if arguments.quick else {"runs": 200}
            sizes, shares = ((64,), (0.25,)) if arguments.quick else (LATENCY_SIZES, SHARES)
            add_lines(arguments.results, [*latency_rows(sizes, shares, **settings), *filter_rows(size=128, **settings)])
        if not arguments.latency and not arguments.report:
            first = cells_of(arguments)[0]
            inputs = load_inputs(recipe_of(first), arguments.data, None, arguments.work)
            done = {tuple(row.get(name) for name in CELL) for row in read_lines(arguments.results)}
            for cell in cells_of(arguments):
                if tuple(cell[name] for name in CELL) not in done:
                    add_lines(arguments.results, [run_cell(cell, inputs, arguments.nets, arguments.work)])
                    keras.backend.clear_session()
        rows = write_report(arguments.results)
        latency = [row for row in read_lines(arguments.results) if "size" in row]
    for row in rows:
        print(_line(row))
    print(json.dumps({"cells": rows, "latency": latency}))


def add_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append finished cells, and print them."""
    for row in rows:
        append_line(path, row)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
