"""What half of the channels is worth in a file and on a clock: ten nets before and after.

    python benchmarks/channel_sizes.py --quick    one net, under 45 s; nothing is written
    python benchmarks/channel_sizes.py            goes on with docs/results/channel_sizes.{md,json}

Half of the groups go, widths stay multiples of 8. The float32 .tflite files are run on one thread,
in turns in one process. Weights are random: this is about size and speed, not quality.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.channels.topologies import randomize  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.channels import Selection, measure_cost, remove_channels  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.verification.latency import measure_latency  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "channel_sizes.json"
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
            calls[name] = partial(runtime.predict, pixels)
            row["runtime"] = runtime.description
            row[name] = {"file_bytes": path.stat().st_size, "parameters": cost.parameters, "macs": cost.macs}
        latency = measure_latency(calls, runs=runs)
    for name in calls:
        row[name]["median_ms"] = round(latency[name].median_ms, 2)
        row[name]["bytes_per_parameter"] = round(row[name]["file_bytes"] / row[name]["parameters"], 3)
        row[name]["ns_per_kilomac"] = round(1e9 * latency[name].median_ms / row[name]["macs"], 2)
    row["faster"] = round(latency["after"].ratio_to_first, 2)
    return row


def write_report(rows: dict[str, dict[str, Any]]) -> None:
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"rows": rows, "machine": machine}, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# What half of the channels is worth in a .tflite file",
        "",
        "Float32, 128x128 pixels, one thread, widths in multiples of 8, random weights, both files in turns in one",
        f"process ({next(iter(rows.values()))['runtime']}, a machine of {os.cpu_count()} cores that others used too).",
        "`python benchmarks/channel_sizes.py`",
        "",
        "| net | bytes | after | bytes/parameter | MACs left | ms before | after | faster | ns per 1000 MACs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        a, b = row["before"], row["after"]
        lines.append(
            f"| {name} | {a['file_bytes']:,} | {b['file_bytes']:,} "
            f"| {a['bytes_per_parameter']} -> {b['bytes_per_parameter']} | {b['macs'] / a['macs']:.1%} "
            f"| {a['median_ms']} | {b['median_ms']} | {row['faster']}x "
            f"| {a['ns_per_kilomac']} -> {b['ns_per_kilomac']} |"
        )
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one net; nothing is written")
    options = parser.parse_args()
    rows = {}
    if RESULTS.exists() and not options.quick:
        rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    for architecture, encoder in NETS[:1] if options.quick else NETS:
        name = f"{architecture}/{encoder}" if encoder else architecture
        if name in rows:
            continue
        keras.backend.clear_session()
        rows[name] = measure(architecture, encoder, runs=10 if options.quick else 30)
        print(f"{name:28}", rows[name], flush=True)
        if not options.quick:
            write_report(rows)
    print(json.dumps({name: {key: row[key] for key in ("faster", "before", "after")} for name, row in rows.items()}))


if __name__ == "__main__":
    main()
