"""Which models of Keras 3 load: the encoders of keras.applications, and what people put into segmentation nets.

    python benchmarks/keras3_models.py --quick    two small nets and four to be refused, under 45 s; writes nothing
    python benchmarks/keras3_models.py            all, about ten minutes; writes docs/results/keras3_models.md and .json

Each net is built and saved by Keras 3 in a process of its own, with random weights, and batch norms with the
statistics of random pictures, disturbed; then it is loaded as a user loads it (`load_model`). Equal: every tensor of
both graphs agrees within 1e-5 of its scale, in float64, on two random pictures and one of noise. Wrong would be a net
that loads and, on pictures that the loading has not seen, gives something else: by more than 1e-3 in float32.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER  # noqa: E402
from tests.architectures import keras3_zoo  # noqa: E402
from tfprune.architectures.files import read_config  # noqa: E402
from tfprune.architectures.keras3 import convert_file, difference  # noqa: E402
from tfprune.architectures.screening import refuse_lambdas  # noqa: E402
from tfprune.errors import InputError  # noqa: E402
from tfprune.keras import keras, tf  # noqa: E402
from tfprune.records import write_json, write_text  # noqa: E402
from tfprune.run.folder import cpu_name  # noqa: E402

RESULTS = FOLDER / "keras3_models"
QUICK = ("squeeze_excitation", "nested", "own_layer", "own_activation", "no_counterpart", "lambda_layer")
FLOAT32_TOLERANCE = 1e-3
"""Accepted of a converted net in float32, on other pictures, against Keras 3 in float64."""


def write_models(names: list[str], folder: Path) -> None:
    """Have Keras 3 build and save nets."""
    settings = {"TF_USE_LEGACY_KERAS": "0", "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.architectures.keras3_zoo", str(folder), *names]
    subprocess.run(command, env=os.environ | settings, capture_output=True, check=True)


def try_model(name: str, folder: Path) -> dict[str, Any]:
    """Load a net and record what came of it."""
    path = folder / f"{name}.keras"
    start = time.perf_counter()
    try:
        config, version = read_config(path)
        refuse_lambdas(config, path)
        made = convert_file(path, config, where=path.name)
    except InputError as error:
        return {"outcome": "refused", "keras": version, "reason": str(error).replace(f"{folder}{os.sep}", "")}
    seconds = time.perf_counter() - start
    with np.load(folder / f"{name}_check.npz") as check:
        inputs = [check[key] for key in check if key.startswith("input/")]
        expected = [check[key] for key in check if key.startswith("output/")]
    found = tf.nest.flatten(made.model(tf.nest.pack_sequence_as(made.model.input, inputs), training=False))
    unseen = max(difference(theirs, ours) for theirs, ours in zip(expected, found, strict=True))
    return {
        "outcome": "equal" if unseen <= FLOAT32_TOLERANCE else "wrong",
        "keras": version,
        "difference": made.difference,
        "precision": made.precision,
        "unseen_float32_difference": unseen,
        "parameters": made.model.count_params(),
        "layers": len(made.model.layers),
        "seconds": round(seconds, 1),
    }


def run(names: list[str]) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_models(names, Path(folder))
        for name in names:
            row = {"model": name, **try_model(name, Path(folder))}
            keras.backend.clear_session()
            gc.collect()
            print(_line(row), flush=True)
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    if row["outcome"] == "refused":
        return f"{row['model']:20} refused  {row['reason'][:90]}"
    numbers = f"{row['difference']:.1e}  {row['unseen_float32_difference']:.1e}  {row['layers']:4} layers"
    return f"{row['model']:20} {row['outcome']:8} {numbers}  {row['seconds']:.0f} s"


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    outcomes = [row["outcome"] for row in rows]
    return {"tried": len(rows), **{kind: outcomes.count(kind) for kind in ("equal", "refused", "wrong")}}


def write_report(rows: list[dict[str, Any]]) -> None:
    """Write the table for people and the figures for machines."""
    about = {
        "command": "python benchmarks/keras3_models.py",
        "date": date.today().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("keras", "tf_keras", "tensorflow")},
        "seed": 0,
    }
    write_json(RESULTS.with_suffix(".json"), {**about, **summary(rows), "rows": rows})
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    counts = summary(rows)
    said = f"{counts['equal']} equal, {counts['refused']} refused, {counts['wrong']} wrong"
    lines = ["# Models of Keras 3 in tf_keras", "", f"{counts['tried']} models were tried: {said}.", ""]
    lines += [
        f"`{about['command']}`, {about['date']}, {about['machine']}; {versions}; seed 0.",
        "",
        "Each net was built and saved by Keras 3 (inputs of 64x64, 96x96 for Xception and InceptionV3, 32x32 for",
        "attention; random weights; batch norms with the statistics of random pictures, disturbed) and loaded by",
        "`load_model`. The difference is the largest of any tensor of the graph, relative to its scale, in float64",
        "on random pictures, of which 1e-5 is accepted. The next column is how far the outputs of the loaded model in",
        "float32 are from those of Keras 3 in float64, on pictures that the loading had not seen: rounding. Seconds",
        "are those of `load_model`, the start of a process with Keras 3 included, beside other work on the machine.",
        "",
        "| model | parameters | layers | difference, float64 | float32, other pictures | load, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["outcome"] != "refused":
            name = row["model"] + (" (**wrong**)" if row["outcome"] == "wrong" else "")
            lines.append(
                f"| {name} | {row['parameters']:,} | {row['layers']} | {row['difference']:.1e} "
                f"| {row['unseen_float32_difference']:.1e} | {row['seconds']:.0f} |"
            )
    lines += ["", "| refused | what is said |", "|---|---|"]
    lines += [f"| {row['model']} | {row['reason']} |" for row in rows if row["outcome"] == "refused"]
    lines += ["", "mixed_precision computes in float16 in Keras 3 and in float32 here."]
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small nets; nothing is written")
    options = parser.parse_args()
    if options.quick:
        print(json.dumps(summary(run(list(QUICK)))))
        return
    rows = run(list(keras3_zoo.MODELS))
    write_report(rows)
    print(json.dumps(summary(rows)))


if __name__ == "__main__":
    main()
