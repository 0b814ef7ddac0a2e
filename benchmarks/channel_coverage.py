"""Which nets lose half of their channels exactly: every architecture on every encoder, and the hard cases.

    python benchmarks/channel_coverage.py --quick         twelve small nets, under 45 s
    python benchmarks/channel_coverage.py --minutes 30    goes on where the last call stopped
    python benchmarks/channel_coverage.py --only 'fpn/*'  some cells

Each finished cell is one line of docs/results/channel_coverage.jsonl; a cell that stands there is not
run again. Weights are random, with random batch-norm statistics; 64x64 pixels (96x96 for PSPNet and
InceptionV3). Half of the groups of every family go, chosen at random, without rounding. Exact means:
logits of the masked original and of the rebuilt model differ by at most 1e-5 of their scale, float32.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, append_line, measured, read_lines  # noqa: E402
from tests.channels.random_graphs import random_graph  # noqa: E402
from tests.channels.topologies import TOPOLOGIES, randomize  # noqa: E402
from tfprune.architectures import ARCHITECTURES, ENCODERS, build_model  # noqa: E402
from tfprune.channels import Plan, Selection, measure_cost, remove_channels  # noqa: E402
from tfprune.errors import InputError, TfpruneError  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = FOLDER / "channel_coverage.jsonl"
ONE_PER_FAMILY = (
    *("resnet18", "seresnet18", "resnext50", "vgg16", "densenet121"),
    *("inceptionv3", "mobilenet", "mobilenetv2", "efficientnetb0"),
)
APPLICATIONS = (
    *("MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetV2B0"),
    *("ConvNeXtTiny", "ResNet50V2", "DenseNet121"),
)
WITHOUT_ENCODER = ("plain_unet", "sparse_unet", "fcn", "lraspp")
FUZZ_GRAPHS, FUZZ_BLOCK = 500, 50
QUICK = (
    *("hard/nested", "hard/siamese", "hard/unet_plus_plus", "hard/attention_ops", "hard/slices_and_split"),
    *("hard/channel_shuffle", "hard/grouped", "hard/flatten_dense", "hard/cbam", "hard/dynamic_size"),
    *("plain_unet/-", "unet/mobilenetv2"),
)
TARGET = 0.71
"""Share of the multiplications that should go wherever no layer keeps channels together or whole."""

Cell = Callable[[], dict[str, Any]]


def build_net(architecture: str, encoder: str, *, outputs: int = 3, **options: Any) -> Any:
    size = 96 if architecture == "pspnet" or encoder == "inceptionv3" else 64
    if encoder != "-":
        options["encoder"] = encoder
    return randomize(build_model(architecture, input_size=(size, size), outputs=outputs, seed=0, **options))


def build_application(name: str) -> Any:
    """Put a classifier's body under a segmentation head."""
    body = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3))
    x = keras.layers.UpSampling2D(32, interpolation="bilinear")(
        keras.layers.Conv2D(3, 1, name="small_logits")(body.output)
    )
    return randomize(keras.Model(body.input, x, name=name))


def remove_half(model: Any) -> dict[str, Any]:
    """Remove half of the channels and record what came of it."""
    start = time.perf_counter()
    try:
        removal = remove_channels(model, Selection(ratio=0.5), criterion="random")
    except InputError as error:
        return {"outcome": "refused", "reason": str(error)}
    except TfpruneError as error:
        return {"outcome": "wrong", "reason": str(error)}
    before, after = (measure_cost(net, input_size=(64, 64)) for net in (model, removal.model))
    short = 1 - after.macs / before.macs < TARGET
    return {
        "outcome": "exact",
        "difference": removal.equality.difference,
        "macs_removed": round(1 - after.macs / before.macs, 4),
        "parameters_removed": round(1 - after.parameters / before.parameters, 4),
        **({"why_less": why_less(removal.plan)} if short else {}),
        "frozen_after_check": list(removal.plan.opaque),
        "seconds": round(time.perf_counter() - start, 1),
        "model": removal.model,
    }


def why_less(plan: Plan) -> dict[str, float]:
    """Return what keeps multiplications, each with its share of those that are left, for a net below the target."""
    kept: dict[str, float] = {}
    if not plan.macs_after:
        return {"the plan of a net without a fixed input size counts no multiplications": 1.0}
    for layer in plan.layers:
        share = layer.macs_after / layer.macs if layer.macs else 0.0
        if layer.frozen:
            reason = layer.reason.split("': ", 1)[-1]
        elif share > 0.4:
            reason = "falls with one side only: depthwise, first layers, heads"
        else:
            continue
        kept[reason] = kept.get(reason, 0.0) + layer.macs_after / plan.macs_after
    return {reason: round(share, 3) for reason, share in sorted(kept.items(), key=lambda item: -item[1])}


def convert(encoder: str, *, outputs: int, scheme: str) -> dict[str, Any]:
    """Remove half of a U-Net's channels, convert what is left, and run the file."""
    result = remove_half(build_net("unet", encoder, outputs=outputs))
    if result["outcome"] != "exact":
        return result
    smaller = result["model"]
    pixels = np.random.default_rng(0).integers(0, 256, (16, *smaller.input_shape[1:])).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"class_{i}" for i in range(max(outputs, 2))]
        calibration = pixels if scheme == "int8" else None
        path = export_tflite(
            smaller,
            Path(folder) / "net.tflite",
            scheme=scheme,
            head="logits",
            class_names=names,
            calibration=calibration,
        )
        size_bytes = path.stat().st_size
        found = np.asarray(open_runtime(path).predict(pixels[0]), np.float32).reshape(-1)
    expected = smaller.predict(pixels[:1].astype(np.float32), verbose=0).reshape(-1)
    if scheme == "float32":
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        result |= {"tflite_difference": difference}
        if difference > 1e-4:
            result |= {"outcome": "wrong", "reason": "the .tflite file computes something else"}
    return {**result, "tflite_bytes": size_bytes}


def fuzz(first: int) -> dict[str, Any]:
    """Cut a block of random graphs."""
    counts = {"exact": 0, "refused": 0, "wrong": 0}
    worst, reasons = 0.0, []
    for seed in range(first, first + FUZZ_BLOCK):
        result = remove_half(random_graph(seed))
        counts[result["outcome"]] += 1
        worst = max(worst, result.get("difference", 0.0))
        if "reason" in result:
            reasons.append(f"{seed}: {result['reason']}")
        keras.backend.clear_session()
    return {
        "outcome": "wrong" if counts["wrong"] else "exact",
        "graphs": counts,
        "difference": worst,
        "reasons": reasons,
    }


def cells() -> Iterator[tuple[str, Cell]]:
    """Yield the name of every cell and what runs it, small encoders first."""
    for name, build in TOPOLOGIES.items():
        yield f"hard/{name}", lambda build=build: remove_half(randomize(build()))
    for name in WITHOUT_ENCODER:
        yield f"{name}/-", lambda name=name: remove_half(build_net(name, "-"))
    for name in APPLICATIONS:
        yield f"applications/{name}", lambda name=name: remove_half(build_application(name))
    for first in range(0, FUZZ_GRAPHS, FUZZ_BLOCK):
        yield f"fuzz/{first}-{first + FUZZ_BLOCK - 1}", lambda first=first: fuzz(first)
    nets = [(name, {}) for name in ARCHITECTURES if name not in WITHOUT_ENCODER]
    nets += [(name, {"decoder": "transpose"}) for name in ("unet", "linknet")]
    for encoder in sorted(ENCODERS, key=lambda name: name not in ONE_PER_FAMILY):
        for net, options in nets:
            name = f"{net}{'_transpose' if options else ''}/{encoder}"
            yield (
                name,
                lambda net=net, encoder=encoder, options=options: remove_half(build_net(net, encoder, **options)),
            )
        if encoder in ONE_PER_FAMILY:
            for outputs in (1, 3):
                for scheme in ("float32", "int8"):
                    yield (
                        f"tflite_{scheme}_{outputs}/{encoder}",
                        lambda encoder=encoder, outputs=outputs, scheme=scheme: convert(
                            encoder, outputs=outputs, scheme=scheme
                        ),
                    )


def run_cell(name: str, cell: Cell) -> dict[str, Any]:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    try:
        result = cell()
    except Exception as error:
        # A fault of any kind is a result here: the table must say so, and the next cell still counts.
        result = {"outcome": "wrong", "reason": f"{type(error).__name__}: {error}"}
    result.pop("model", None)
    gc.collect()
    line = f"{name:32} {result['outcome']:8}"
    if "macs_removed" in result:
        line += f" {result['difference']:.1e}  MACs -{result['macs_removed']:.1%}  {result['seconds']:.0f} s"
    print(line, result.get("reason", "")[:200], flush=True)
    return {"cell": name, **result}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count outcomes; random graphs count one each, and shares are those of the segmentation nets."""
    outcomes = [row["outcome"] for row in rows if "graphs" not in row]
    counts = {
        kind: outcomes.count(kind) + sum(row["graphs"][kind] for row in rows if "graphs" in row)
        for kind in ("exact", "refused", "wrong")
    }
    shares = [
        row["macs_removed"]
        for row in rows
        if row["cell"].split("/")[0] in {*ARCHITECTURES, "unet_transpose", "linknet_transpose"}
        and "macs_removed" in row
    ]
    return {"tried": sum(counts.values()), **counts, "min_macs_removed": min(shares, default=None)}


def write_report(rows: list[dict[str, Any]]) -> None:
    """Write the table for people; the figures for machines are the lines themselves."""
    nets, where = list(dict.fromkeys(row["cell"].split("/")[0] for row in rows)), measured(rows)
    machine = where["machine"]
    encoders = [name for name in ENCODERS if any(row["cell"].endswith(f"/{name}") for row in rows)]
    by_cell = {row["cell"]: row for row in rows}
    segmentation = [net for net in nets if any(f"{net}/{encoder}" in by_cell for encoder in encoders)]
    counts = summary(rows)
    lines = [
        "# Channels removed: which nets, and how exactly",
        "",
        f"{counts['tried']} nets and random graphs were tried: {counts['exact']} exact, {counts['refused']} refused, "
        f"{counts['wrong']} wrong. At least {counts['min_macs_removed']:.1%} of the",
        "multiplications of the segmentation nets went.",
        "",
    ]
    lines += [
        "Half of the groups of every family go, at random, without rounding; random weights and norm statistics;",
        "64x64 pixels (96x96 for PSPNet and InceptionV3). A cell gives the share of multiplications removed when",
        "the logits of the rebuilt model equal those of the masked original within 1e-5 of their scale in float32;",
        "`tflite` cells say that the file was written and ran (and, float32, agreed within 1e-4). An empty cell was",
        "not run. Written by `python benchmarks/channel_coverage.py`, which goes on where it stopped",
        f"({where['date']}, {machine['cpu']}, TensorFlow {machine['tensorflow']}).",
        "",
        "| encoder | " + " | ".join(segmentation) + " |",
        "|---" * (len(segmentation) + 1) + "|",
    ]
    for encoder in encoders:
        lines.append(
            f"| {encoder} | " + " | ".join(_cell(by_cell.get(f"{net}/{encoder}")) for net in segmentation) + " |"
        )
    lines += ["", "| other nets | multiplications removed | largest difference | |", "|---|---|---|---|"]
    for row in rows:
        if row["cell"].split("/")[0] not in segmentation:
            note = _graphs(row) or row.get("reason") or _why(row)
            lines.append(f"| {row['cell']} | {_cell(row)} | {row.get('difference', float('nan')):.1e} | {note} |")
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _graphs(row: dict[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in row.get("graphs", {}).items() if count)


def _why(row: dict[str, Any]) -> str:
    return "; ".join(f"{reason}: {share:.0%} of what is left" for reason, share in row.get("why_less", {}).items())


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['macs_removed']:.1%}" if "macs_removed" in row else row["outcome"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="twelve small nets; nothing is written")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no new cell after this long")
    parser.add_argument("--only", default="*", help="pattern of cells")
    options = parser.parse_args()
    start = time.monotonic()
    if options.quick:
        print(json.dumps(summary([run_cell(name, cell) for name, cell in cells() if name in QUICK])))
        return
    for name, cell in cells():
        # read anew for each cell: another process may be working on other cells
        if fnmatchcase(name, options.only) and name not in {row["cell"] for row in finished()}:
            if time.monotonic() - start > 60 * options.minutes:
                break
            append_line(RESULTS, run_cell(name, cell))
    write_report(finished())
    print(json.dumps(summary(finished())))


def finished() -> list[dict[str, Any]]:
    """Return the cells that were run, in this call or earlier ones."""
    return list({row["cell"]: row for row in read_lines(RESULTS)}.values())


if __name__ == "__main__":
    main()
