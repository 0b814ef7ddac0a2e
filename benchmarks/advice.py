"""Whether advice before training holds for the trained file, and what each method buys on each target.

    python benchmarks/advice.py --quick    three nets for a moment, under 45 s; nothing is written
    python benchmarks/advice.py            writes docs/results/advice.{md,json}

Predicted is what `tfprune advise` measures: the untrained net, or the variant of it that the cell names, exported
with random pictures. Found is the file of the net after training on drawn pictures, from other first weights, with
the zeros and channels that its trained weights ask for, exported with its own pictures. Times are of two sets of
files, the ones predicted and those found, each taking turns in one process, on one thread.
The last line is {"file": worst error, "arena": worst error, "spearman": of the times, ...}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.export_conformance import CLASSES, draw  # noqa: E402
from benchmarks.results import FOLDER, page_head  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.records import write_json, write_text  # noqa: E402
from tfprune.run.folder import environment_record  # noqa: E402
from tfprune.targets.advice import VARIANTS, advise, export_untrained, gains, measure_on, stem_of  # noqa: E402
from tfprune.verification.arena import measure_arena  # noqa: E402
from tfprune.verification.footprint import measure_footprint  # noqa: E402
from tfprune.verification.latency import measure_latency  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = FOLDER / "advice.json"
COMMAND = "python benchmarks/advice.py"
PLAIN = "plain_unet"
CELLS: dict[str, tuple[str, int, dict[str, Any], str]] = {
    "plain 4": (PLAIN, 48, {"width": 4, "depth": 2}, "dense"),
    "plain 8": (PLAIN, 64, {"width": 8, "depth": 3}, "dense"),
    "plain 32, half the channels": (PLAIN, 48, {"width": 32, "depth": 2}, "-50 % channels"),
    "plain 16, a quarter": (PLAIN, 96, {"width": 16, "depth": 2}, "-75 % channels"),
    "plain 16, zeros": (PLAIN, 64, {"width": 16, "depth": 3}, "90 % zeros"),
    "plain 16, coarse classes": (PLAIN, 96, {"width": 16, "depth": 2}, "coarse classes"),
    "plain 24, half the picture": (PLAIN, 96, {"width": 24, "depth": 3}, "half picture"),
    "bilinear 8": (PLAIN, 96, {"width": 8, "depth": 3, "upsampling": "bilinear"}, "dense"),
    "transposed 16": (PLAIN, 96, {"width": 16, "depth": 3, "upsampling": "transpose"}, "-25 % channels"),
    "sparse_unet 16": ("sparse_unet", 96, {"width": 16, "depth": 2}, "dense"),
}
"""Name -> architecture, pixels a side, options, variant of `tfprune advise`."""

QUICK = ("plain 4", "plain 8", "plain 32, half the channels")
PICTURES, CALIBRATION = 32, 16
TARGETS = ("ethos-u55", "tflm", "x86-cpu")


def trained(architecture: str, size: int, options: dict[str, Any], *, steps: int) -> Any:
    """Return a net, trained for some steps on drawn pictures of three brightnesses."""
    net = build_model(architecture, input_size=(size, size), outputs=len(CLASSES), seed=0, norm_momentum=0.9, **options)
    images, levels = draw(PICTURES, (size, size), seed=0)
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.optimizer.learning_rate.assign(3e-3)
    net.fit(images.astype(np.float32), levels, batch_size=8, epochs=max(1, steps * 8 // PICTURES), verbose=0)
    return net


def export_cell(name: str, folder: Path, *, steps: int) -> dict[str, Path]:
    """Write the files of a cell, what advice makes of the untrained net and what training leaves."""
    architecture, size, options, variant = CELLS[name]
    make, differs = VARIANTS[variant]
    untrained = build_model(architecture, input_size=(size, size), outputs=len(CLASSES), seed=1, **options)
    stem, head = name.replace(" ", "_").replace(",", ""), differs.get("head", "logits")
    predicted, found = folder / f"{stem}_predicted.tflite", folder / f"{stem}_found.tflite"
    export_untrained(make(untrained), predicted, scheme="int8", head=head)
    model = make(trained(architecture, size, options, steps=steps))
    seen, _ = draw(CALIBRATION, tuple(model.input_shape[1:3]), seed=1)
    export_tflite(model, found, scheme="int8", head=head, class_names=CLASSES, calibration=seen)
    return {"predicted": predicted, "found": found}


def measure_files(files: dict[str, Path]) -> dict[str, Any]:
    """Return bytes, arena and MACs of the predicted and the found file, and by how much the prediction is off."""
    row: dict[str, Any] = {}
    for kind, path in files.items():
        footprint = measure_footprint(path)
        row[kind] = {"file_bytes": footprint.file_bytes, "arena_bytes": measure_arena(path), "macs": footprint.macs}
    for quantity in ("file_bytes", "arena_bytes"):
        row[f"{quantity}_error"] = row["predicted"][quantity] / row["found"][quantity] - 1
    return row


def time_files(cells: dict[str, dict[str, Path]], *, runs: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of all files, each set taking turns in a measurement of its own."""
    times: dict[str, dict[str, float]] = {}
    for kind in ("predicted", "found"):
        calls: dict[str, Callable[[], float]] = {}
        for name, files in cells.items():
            runtime = open_runtime(files[kind], threads=1)
            calls[name] = partial(runtime.time, np.zeros((*runtime.input_size, runtime.channels), np.uint8))
        times[kind] = {name: row.median_ms for name, row in measure_latency(calls, runs=runs).items()}
    return times


def reproduce(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what each variant of a plain U-Net of 2 M parameters costs on Ethos-U55, TFLite Micro and XNNPACK."""
    net = build_model(PLAIN, input_size=(96, 96), outputs=2, seed=0)
    advice = advise(net, TARGETS[0], folder)
    files = {row.variant: folder / f"{stem_of(row.variant)}.tflite" for row in advice.rows}
    tables = {TARGETS[0]: advice.rows, **{target: measure_on(target, files)[0] for target in TARGETS[1:]}}
    return {target: [{**asdict(row), "gains": gains(row, rows[0])} for row in rows] for target, rows in tables.items()}


def summarize(rows: dict[str, Any], times: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the worst errors and the rank correlations of the times found with those predicted, and with MACs."""
    names = list(rows)
    found = [times["found"][name] for name in names]
    return {
        "file": max(abs(row["file_bytes_error"]) for row in rows.values()),
        "arena": max(abs(row["arena_bytes_error"]) for row in rows.values()),
        "spearman": float(spearmanr([times["predicted"][name] for name in names], found).statistic),
        "spearman_of_macs": float(spearmanr([rows[name]["predicted"]["macs"] for name in names], found).statistic),
    }


def write_report(record: dict[str, Any]) -> None:
    summary = record["summary"]
    lines = [
        *page_head(
            "Does advice before training hold?",
            record,
            RESULTS,
            note=f"load {record['load']:.1f} when times were taken; seeds 0 and 1",
        ),
        "*Predicted* is the file that `tfprune advise` makes of the untrained net; *found* is that of the same net,",
        f"from other first weights, after {record['steps']} training steps, with the zeros and channels that those",
        "weights ask for. int8, one thread, XNNPACK; arenas are of TFLite Micro. Training changes which channels go,",
        "and every value, but no shape. Each set of files took turns in one process; times are medians.",
        "",
        f"Files are off by at most {summary['file']:.2%}, arenas by {summary['arena']:.2%}. Ranked by time, predicted",
        f"and found agree with a Spearman coefficient of {summary['spearman']:.3f}; MACs alone reach "
        f"{summary['spearman_of_macs']:.3f}.",
        "",
        "| net | file, bytes | found | off | arena, bytes | found | off | ms | found |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in record["rows"].items():
        a, b, times = row["predicted"], row["found"], record["times"]
        lines.append(
            f"| {name} | {a['file_bytes']:,} | {b['file_bytes']:,} | {row['file_bytes_error']:+.1%} "
            f"| {a['arena_bytes']:,} | {b['arena_bytes']:,} | {row['arena_bytes_error']:+.1%} "
            f"| {times['predicted'][name]:.3f} | {times['found'][name]:.3f} |"
        )
    lines += ["", "## What each method buys on each target", ""]
    lines += [
        "A plain U-Net of 2 M parameters at 96x96, untrained, int8, logits out. In bold what is 5 % smaller and more",
        "on the device: Ethos-U55 by Vela's estimates, TFLite Micro's arena and XNNPACK's times as measured here.",
        "",
    ]
    for target, rows in record["targets"].items():
        lines += [f"### {target}", "", "| variant | file, KiB | flash, KiB | memory, KiB | M MACs | ms |"]
        lines += ["|---|---:|---:|---:|---:|---:|", *(_line(row) for row in rows), ""]
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")


def _line(row: dict[str, Any]) -> str:
    cells = []
    for field, word, unit, form in (
        ("file_bytes", "file", 1024, ",.0f"),
        ("flash_bytes", "flash", 1024, ",.0f"),
        ("memory_bytes", "memory", 1024, ",.0f"),
        ("macs", "MACs", 1e6, ",.0f"),
        ("time_ms", "time", 1, ".2f"),
    ):
        value, gain = row[field], row["gains"].get(word)
        text = "" if value is None else format(value / unit, form)
        cells.append(f"**{text}** ({gain:.1f}x)" if gain else text)
    return f"| {row['variant']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three nets for a moment; nothing is written")
    quick = parser.parse_args().quick
    steps, runs = (4, 20) if quick else (60, 200)
    with tempfile.TemporaryDirectory() as temporary:
        cells, rows = {}, {}
        for name in QUICK if quick else CELLS:
            keras.backend.clear_session()
            cells[name] = export_cell(name, Path(temporary), steps=steps)
            rows[name] = measure_files(cells[name])
            print(f"{name:30}{rows[name]}", flush=True)
        targets = {} if quick else reproduce(Path(temporary))
        load = os.getloadavg()[0]
        times = time_files(cells, runs=runs)
    summary = summarize(rows, times)
    if not quick:
        record = {"command": COMMAND, "date": date.today().isoformat(), "machine": environment_record(), "load": load}
        record |= {"steps": steps, "runs": runs, "summary": summary, "rows": rows, "times": times, "targets": targets}
        write_json(RESULTS, record)
        write_report(record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
