"""What half of the channels is worth in a file and on a clock: ten nets before and after.

    python benchmarks/channel_sizes.py --quick    one net, under 45 s; nothing is written
    python benchmarks/channel_sizes.py            writes docs/results/channel_sizes.{md,json}

Half of the groups go, widths stay multiples of 8. The float32 .tflite files are run on one thread,
in turns in one process. Weights are random: this is about size and speed, not quality.
The last line is {net: {"before": figures, "after": figures, "faster": ratio, ...}}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, page_head  # noqa: E402
from tests.channels.topologies import randomize  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.channels import Selection, measure_cost, remove_channels  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.records import write_json, write_text  # noqa: E402
from tfprune.run.folder import environment_record  # noqa: E402
from tfprune.verification.latency import measure_latency  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = FOLDER / "channel_sizes.json"
NETS = (
    *(("plain_unet", None), ("unet", "mobilenetv2"), ("unet", "resnet18"), ("unet", "efficientnetb0")),
    *(("fpn", "mobilenetv2"), ("linknet", "resnet18"), ("linknet", "mobilenetv2"), ("unet", "mobilenet")),
    *(("unet", "densenet121"), ("unet_plus_plus", "mobilenetv2")),
)


def measure(architecture: str, encoder: str | None, *, runs: int) -> dict[str, Any]:
    """Convert one net before and after, and time both files."""
    options = {} if encoder is None else {"encoder": encoder}
    dense = randomize(build_model(architecture, input_size=(128, 128), outputs=3, seed=0, **options))
    small = remove_channels(dense, Selection(ratio=0.5, multiple_of=8)).model
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        calls, pixels = {}, np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
        for name, model in (("before", dense), ("after", small)):
            path = export_tflite(model, Path(folder) / f"{name}.tflite", class_names=["a", "b", "c"], head="logits")
            runtime, cost = open_runtime(path, threads=1), measure_cost(model)
            calls[name] = partial(runtime.time, pixels)
            row["runtime"] = runtime.description
            row[name] = {"file_bytes": path.stat().st_size, "parameters": cost.parameters, "macs": cost.macs}
        latency = measure_latency(calls, runs=runs)
    for name in calls:
        row[name]["bytes_per_parameter"] = round(row[name]["file_bytes"] / row[name]["parameters"], 3)
        row[name]["median_ms"] = round(latency[name].median_ms, 2)
        row[name]["ns_per_kilomac"] = round(1e9 * latency[name].median_ms / row[name]["macs"], 2)
    after = latency["after"]
    row.update(faster=round(after.ratio_to_first, 2), faster_low=round(after.ratio_low, 2))
    row.update(faster_high=round(after.ratio_high, 2))
    return row


def write_report(rows: dict[str, dict[str, Any]], *, runs: int, load: float) -> None:
    runtime = next(iter(rows.values()))["runtime"]
    command = "python benchmarks/channel_sizes.py"
    record = {"command": command, "date": date.today().isoformat(), "load_at_start": load, "runs": runs}
    record |= {"machine": environment_record(), "rows": rows}
    write_json(RESULTS, record)
    lines = [
        *page_head(
            "What half of the channels is worth in a .tflite file",
            record,
            RESULTS,
            note=f"load {load:.1f} at the start",
        ),
        "Half of the channel groups of each net go, those of the smallest weights; widths stay multiples of 8. Float32",
        "files for one picture of 128x128 pixels, with random weights: this is about size and speed, not quality. Both",
        f"files, before and after, are called in turns in one process, {runs} times each, on {runtime}.",
        "",
        "## Size",
        "",
        "| net | file before, bytes | after, bytes | left | bytes per parameter, before | after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        a, b = row["before"], row["after"]
        lines.append(
            f"| {name} | {a['file_bytes']:,} | {b['file_bytes']:,} | {b['file_bytes'] / a['file_bytes']:.1%} "
            f"| {a['bytes_per_parameter']:.3f} | {b['bytes_per_parameter']:.3f} |"
        )
    lines += [
        "",
        "## Time",
        "",
        "Milliseconds are medians of a call. *Faster* is the median over the rounds of before/after; its 10th and 90th",
        "percentile beside it. Nanoseconds are per thousand multiply-accumulates (MACs): where there are more after",
        "than before, the time fell by less than the arithmetic did.",
        "",
        "| net | MACs left | before, ms | after, ms | faster | 10th | 90th | ns per 1000 MACs, before | after |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        a, b = row["before"], row["after"]
        lines.append(
            f"| {name} | {b['macs'] / a['macs']:.1%} | {a['median_ms']:.2f} | {b['median_ms']:.2f} "
            f"| {row['faster']:.2f}x | {row['faster_low']:.2f}x | {row['faster_high']:.2f}x "
            f"| {a['ns_per_kilomac']:.1f} | {b['ns_per_kilomac']:.1f} |"
        )
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one net; nothing is written")
    options = parser.parse_args()
    runs, load = 10 if options.quick else 30, os.getloadavg()[0]
    rows = {}
    for architecture, encoder in NETS[:1] if options.quick else NETS:
        name = f"{architecture}/{encoder}" if encoder else architecture
        keras.backend.clear_session()
        rows[name] = measure(architecture, encoder, runs=runs)
        print(f"{name:28}{rows[name]}", flush=True)
    if not options.quick:
        write_report(rows, runs=runs, load=load)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
