"""Ways into int8, side by side: calibration, operators left float, training with rounding, zeros kept or not.

    python benchmarks/quantization.py --quick                    drawn pictures, one seed, under 45 s on an idle machine
    python benchmarks/quantization.py --data DIR --nets FOLDER   corrosion_field and neu_seg in DIR, three seeds
    python benchmarks/quantization.py --report                   docs/results/quantization.md from what is finished

It goes on where it stopped: each finished cell is a line of docs/results/quantization.jsonl, nets are kept in FOLDER.
Every figure is of a .tflite file on the whole test split (LiteRT with XNNPACK, one thread). Nothing is timed: `tfprune
verify MODEL --keep-float K` times its files in turns.

The last line is {"cells": [...]}: per set and way the mean IoU over the seeds, its difference to float32, bytes, zeros.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, append_line, measured, read_lines  # noqa: E402
from benchmarks.training import train  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.architectures.files import load_model  # noqa: E402
from tfprune.data import generate_steel  # noqa: E402
from tfprune.data.arrays import SegmentationArrays, load_arrays  # noqa: E402
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch  # noqa: E402
from tfprune.data.sets import open_set  # noqa: E402
from tfprune.export.calibration import spread  # noqa: E402
from tfprune.export.card import read_card  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras, tf  # noqa: E402
from tfprune.objectives.scores import score_confusions  # noqa: E402
from tfprune.pruning.controller import MaskController  # noqa: E402
from tfprune.pruning.norms import reestimate_batch_norm  # noqa: E402
from tfprune.pruning.schedules import build_schedule  # noqa: E402
from tfprune.quantization.training import quantize_model  # noqa: E402
from tfprune.records import atomic_path, write_json, write_text  # noqa: E402
from tfprune.training.stage import set_determinism  # noqa: E402
from tfprune.verification.footprint import measure_footprint  # noqa: E402
from tfprune.verification.quality import measure_quality  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = FOLDER / "quantization.jsonl"
COMMAND = "python benchmarks/quantization.py"
BATCH, SPARSITY, KEPT, CALIBRATION = 16, 0.8, (1, 2, 4), 100
CELL = ("set", "seed", "way")


@dataclass(frozen=True)
class Problem:
    """A set, the net for it, and how long its parts train, in epochs."""

    name: str
    size: tuple[int, int]
    net: dict[str, int]
    dense: int
    ramp: int
    fixed: int
    rounding: int
    rate: float = 1e-4
    dense_rate: float = 1e-3
    norm_momentum: float = 0.99


PROBLEMS = (
    Problem("corrosion_field", (96, 96), {"width": 8}, dense=25, ramp=6, fixed=2, rounding=4),
    Problem("neu_seg", (64, 64), {"width": 8, "depth": 3}, dense=20, ramp=6, fixed=2, rounding=4),
)
QUICK = Problem(
    "drawn",
    (32, 32),
    {"width": 4, "depth": 2},
    dense=12,
    ramp=2,
    fixed=1,
    rounding=1,
    rate=1e-3,
    dense_rate=1e-2,
    norm_momentum=0.9,
)

WAYS = {
    "float32": "the dense net, not rounded",
    "float32, longer": "the dense net trained as long as with rounding, without it",
    "PTQ": "the dense net, calibrated (int8)",
    "PTQ, longer": "the longer trained net, calibrated",
    "PTQ, clipped": "calibrated, a ten-thousandth of the values at either end left out of each range",
    **{f"keep_float {count}": f"calibrated, the {count} operators that cost most in float32" for count in KEPT},
    "QAT": "the dense net trained with rounding",
    "QAT, 1e-5": "the same at a tenth of the rate",
    "QAT of tfmot": "as QAT, with tfmot's quantize_model",
    "pruned float32": "80 % zeros in the masked layers, not rounded",
    "pruned PTQ": "the pruned net, calibrated",
    "pruned QAT": "the pruned net trained with rounding, zeros free to grow back",
    "pruned PQAT": "the pruned net trained with rounding, zeros kept",
}


NOTES = (
    "On these nets calibration alone loses next to nothing: kernels are rounded such that errors cancel. What the",
    "training with rounding gains on corrosion_field is beyond what as many epochs without it gain; on neu_seg it",
    "loses, by .009 in the worst seed at 1e-4 and by .003 at 1e-5, where recipes begin. tfmot's way, which trains",
    "norms beside kernels, does not: here they are folded into kernels first. Pruned zeros stay when they are asked",
    "to; left free, a third of them goes in four epochs. Operators kept float gain a thousandth at most, since",
    "there is no more to gain, and cost up to a ninth of the file (corrosion_field) or three fifths (neu_seg).",
)


@dataclass(frozen=True)
class Bench:
    """One set at one seed: its pictures, and the nets, made when a way first asks for them and kept in a folder."""

    problem: Problem
    seed: int
    arrays: dict[str, SegmentationArrays]
    names: tuple[str, ...]
    folder: Path

    def net(self, kind: str) -> Any:
        """Return the net `dense`, `longer` or `pruned`."""
        path = self.folder / f"{self.problem.name}_{kind}_seed{self.seed}.keras"
        if not path.exists():
            set_determinism(self.seed)
            made = {"dense": self._dense, "longer": self._longer, "pruned": self._pruned}[kind]()
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                made.save(temporary)
        return load_model(path)

    def fit(self, model: Any, epochs: int, rate: float, *, scale: float = 1.0, **settings: Any) -> Any:
        """Train in place with flips, cross entropy + Dice, Adam on a cosine; the best epoch on validation stays."""

        def scaled(batches: Any) -> Any:
            return batches if scale == 1 else batches.map(lambda images, *rest: (images * scale, *rest))

        options = {"rate": rate, "seed": self.seed, "batch_size": BATCH, **settings}
        train(model, self.arrays, epochs, prepare=scaled, **options)
        return model

    def calibration(self) -> np.ndarray:
        """Return the pictures that set ranges."""
        return spread(self.arrays["train"].images, CALIBRATION)

    def round(self, kind: str, *, rate: float | None = None, **options: Any) -> Any:
        """Return a net trained with rounding."""
        set_determinism(self.seed)
        quantized = quantize_model(self.net(kind), self.calibration(), **options)
        return self.fit(quantized, self.problem.rounding, rate or self.problem.rate)

    def _dense(self) -> Any:
        channels = self.arrays["train"].images.shape[-1]
        model = build_model(
            "plain_unet",
            input_size=self.problem.size,
            channels=channels,
            outputs=len(self.names),
            seed=self.seed,
            norm_momentum=self.problem.norm_momentum,
            **self.problem.net,
        )
        return self.fit(model, self.problem.dense, self.problem.dense_rate)

    def _longer(self) -> Any:
        return self.fit(self.net("dense"), self.problem.rounding, self.problem.rate)

    def _pruned(self) -> Any:
        steps = self.problem.ramp * steps_per_epoch(len(self.arrays["train"]), BATCH)
        schedule = build_schedule("polynomial", SPARSITY, begin_step=0, end_step=steps, prunes=min(16, steps))
        controller = MaskController(self.net("dense"), schedule)
        epochs = self.problem.ramp + self.problem.fixed
        self.fit(controller.model, epochs, self.problem.dense_rate, best_from_epoch=self.problem.ramp)
        reestimate_batch_norm(controller.model, evaluation_batches(self.arrays["train"], batch_size=32))
        return controller.strip()


def round_by_tfmot(bench: Bench) -> Any:
    """Return tfmot's own quantization-aware net, trained as ours."""
    from tensorflow_model_optimization.python.core.quantization.keras.quantize import quantize_model as by_tfmot

    dense = bench.net("dense")
    # its registry does not know Rescaling: pixels come in scaled
    inner = keras.Model(dense.layers[1].output, dense.output)
    set_determinism(bench.seed)
    return bench.fit(by_tfmot(inner), bench.problem.rounding, bench.problem.rate, scale=dense.layers[1].scale)


def convert_tfmot(model: Any, path: Path) -> Path:
    """Write tfmot's net as an int8 file, by the converter's own rules."""
    shape = (1, *model.input_shape[1:])
    function = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(
        tf.TensorSpec(shape, tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())
    return path


def files_of(bench: Bench, way: str, folder: Path) -> Path:
    """Return the .tflite file of a way."""
    path = folder / f"{way.replace(' ', '_').replace(',', '')}.tflite"
    if way == "QAT of tfmot":
        return convert_tfmot(round_by_tfmot(bench), path)
    models: dict[str, Callable[[], Any]] = {
        "float32, longer": lambda: bench.net("longer"),
        "PTQ, longer": lambda: bench.net("longer"),
        "QAT": lambda: bench.round("dense"),
        "QAT, 1e-5": lambda: bench.round("dense", rate=1e-5),
        "pruned float32": lambda: bench.net("pruned"),
        "pruned PTQ": lambda: bench.net("pruned"),
        "pruned QAT": lambda: bench.round("pruned", keep_zeros=False),
        "pruned PQAT": lambda: bench.round("pruned"),
    }
    options: dict[str, Any] = {"clip": 1e-4} if way == "PTQ, clipped" else {}
    if way.startswith("keep_float"):
        options = {"keep_float": int(way.split()[1])}
    return export_tflite(
        models.get(way, lambda: bench.net("dense"))(),
        path,
        scheme="float32" if "float32" in way else "int8",
        class_names=bench.names,
        calibration=bench.calibration(),
        **options,
    )


def run_cell(bench: Bench, way: str) -> dict[str, Any]:
    """Make the file of a way and judge it."""
    begin, test = time.process_time(), bench.arrays["test"]
    with tempfile.TemporaryDirectory() as folder:
        path = files_of(bench, way, Path(folder))
        options = {"head": "logits", "preprocessing": (1 / 255, 0.0)} if "tfmot" in way else {}
        file = open_runtime(path, **options)
        quality = measure_quality(file.classes_of, test.images, test.masks, classes=len(bench.names))
        scores = score_confusions(quality.confusions, bench.names)
        footprint = measure_footprint(path)
        card = (read_card(path) or {}) if "tfmot" not in way else {}
    return {
        "set": bench.problem.name,
        "seed": bench.seed,
        "way": way,
        "mean_iou": round(scores["mean_iou"], 5),
        "iou": {name: None if value is None else round(value, 5) for name, value in scores["iou"].items()},
        "file_bytes": footprint.file_bytes,
        "zeros": round(1 - footprint.nonzero_parameters / footprint.parameters, 5),
        "float_ops": len(footprint.float_ops or ()),
        "kept_float": [row["tensor"] for row in card.get("kept_float", ())],
        "seconds": round(time.process_time() - begin, 1),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per set and way; differences are to the float32 file of the same net and seed."""
    floats = {(row["set"], row["seed"], row["way"]): row["mean_iou"] for row in rows}
    cells = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for way in WAYS:
            found = [row for row in rows if (row["set"], row["way"]) == (name, way)]
            origin = "pruned float32" if way.startswith("pruned") else "float32"
            lost = [
                row["mean_iou"] - floats[name, row["seed"], origin]
                for row in found
                if (name, row["seed"], origin) in floats
            ]
            if found:
                cells.append(
                    {
                        "set": name,
                        "way": way,
                        "seeds": len(found),
                        "mean_iou": round(statistics.mean(row["mean_iou"] for row in found), 4),
                        "difference": round(statistics.mean(lost), 4) if lost else None,
                        "worst": round(min(lost), 4) if lost else None,
                        **{
                            key: round(statistics.mean(row[key] for row in found), 4)
                            for key in ("file_bytes", "zeros", "float_ops")
                        },
                    }
                )
    return cells


def write_report(path: Path) -> None:
    """Write the tables for people and the figures for machines, beside the finished cells."""
    rows = read_lines(path)
    cells, where = summarize(rows), measured(rows)
    machine = where["machine"]
    lines = [
        "# Ways into int8",
        "",
        f"`{COMMAND} --data DIR --nets FOLDER`, {where['date']}, {machine['cpu']}, TensorFlow "
        f"{machine['tensorflow']}, tfmot {machine['tensorflow-model-optimization']}, one core for each training.",
        f"Cells that are finished stand in [{path.name}]({path.name}); what is missing here has not been run.",
        "",
        "Plain U-Nets: corrosion_field at 96x96, width 8, depth 4, 25 epochs; neu_seg at 64x64, width 8, depth 3, 20",
        "epochs. Training with rounding: 4 epochs more, Adam on a cosine from 1e-4, best epoch on validation. Pruned:",
        "80 % zeros in the masked layers, ranked together, 6 epochs of ramp and 2 with fixed masks. Every figure is of",
        "the file on the whole test split (LiteRT, XNNPACK, one thread). Difference: to the float32 file of the same",
        "dense or pruned net, mean over the seeds, then the worst seed. Zeros: of all parameters in the file.",
        "",
    ]
    for name in dict.fromkeys(cell["set"] for cell in cells):
        lines += [
            f"## {name}",
            "",
            "| way | seeds | mean IoU | difference | worst | KiB | zeros | float operators |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for cell in (cell for cell in cells if cell["set"] == name):
            change, worst = ("–" if cell[key] is None else f"{cell[key]:+.4f}" for key in ("difference", "worst"))
            lines.append(
                f"| {cell['way']} | {cell['seeds']} | {cell['mean_iou']:.4f} | {change} | {worst} "
                f"| {cell['file_bytes'] / 1024:.0f} | {cell['zeros']:.1%} | {cell['float_ops']:.0f} |"
            )
        lines.append("")
    lines += [*NOTES, "", "Ways:", "", *(f"- {way}: {meaning}" for way, meaning in WAYS.items()), ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    write_json(path.with_suffix(".json"), {**where, "cells": cells})


def benches(arguments: argparse.Namespace, temporary: Path) -> list[Bench]:
    """Return what is measured, seed by seed."""
    if arguments.quick:
        folder = temporary / QUICK.name
        generate_steel(folder, classes=2, counts={"train": 64, "val": 8, "test": 16}, size=QUICK.size, seed=0)
        problems, seeds, places = (QUICK,), [0], {QUICK.name: folder}
    else:
        problems = [problem for problem in PROBLEMS if problem.name in arguments.sets]
        seeds, places = arguments.seeds, {problem.name: arguments.data / problem.name for problem in problems}
    loaded = {}
    for problem in problems:
        found = open_set(places[problem.name], val_share=0.12)
        arrays = {
            split: load_arrays(pairs, found.classes, size=problem.size, channels=found.channels)
            for split, pairs in found.splits.items()
        }
        loaded[problem.name] = (arrays, tuple(found.classes.names))
    return [Bench(problem, seed, *loaded[problem.name], arguments.nets) for seed in seeds for problem in problems]


def main() -> None:
    """Run what is missing, print a table, and the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true", help="only write the page from the finished cells")
    parser.add_argument("--data", type=Path, help="the folder that holds corrosion_field and neu_seg")
    parser.add_argument("--sets", nargs="+", default=[problem.name for problem in PROBLEMS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--nets", type=Path, default=Path("runs/quantization"), help="where nets are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.report:
        write_report(arguments.results)
        return
    if not arguments.quick and arguments.data is None:
        parser.error("--data DIR is needed (or --quick)")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.quick:
            arguments.nets, arguments.results = Path(temporary), Path(temporary, "quick.jsonl")
            arguments.ways = [
                "float32",
                "PTQ",
                "keep_float 1",
                "QAT",
                "pruned float32",
                "pruned PTQ",
                "pruned PQAT",
            ]
        for bench in benches(arguments, Path(temporary)):
            done = {tuple(row[key] for key in CELL) for row in read_lines(arguments.results)}
            for way in arguments.ways:
                if (bench.problem.name, bench.seed, way) in done:
                    continue
                row = run_cell(bench, way)
                keras.backend.clear_session()
                append_line(arguments.results, row)
                print(json.dumps(row), flush=True)
        cells = summarize(read_lines(arguments.results))
        if not arguments.quick:
            write_report(arguments.results)
    print(f"{'set':16}{'way':18}{'seeds':>6}{'mean IoU':>10}{'to float':>10}{'KiB':>8}{'zeros':>8}")
    for cell in cells:
        change = "" if cell["difference"] is None else f"{cell['difference']:+.4f}"
        size = f"{cell['file_bytes'] / 1024:>8.0f}{cell['zeros']:>8.1%}"
        print(f"{cell['set']:16}{cell['way']:18}{cell['seeds']:>6}{cell['mean_iou']:>10.4f}{change:>10}{size}")
    print(json.dumps({"cells": cells}))


if __name__ == "__main__":
    main()
