"""Every architecture in every number format: does it convert, run and agree, and what stays in floats.

    python benchmarks/export_conformance.py --quick          five small nets, under 45 s on an idle machine
    python benchmarks/export_conformance.py --minutes 20     goes on where the last call stopped
    python benchmarks/export_conformance.py --nets FOLDER --data DIR/corrosion_field     trained nets, see below
    python benchmarks/export_conformance.py --repairs      clipped ranges and float operators, for int8 that disagrees
    python benchmarks/export_conformance.py --parts        only its activations rounded to 8 bits, and only its kernels
    python benchmarks/export_conformance.py --report         docs/results/export_conformance.md from what is finished

Each finished cell is one line of docs/results/export_conformance.jsonl; a cell that stands there is not run again.
Nets are trained for 60 steps to tell three levels of brightness in drawn blocks. A pixel is *clear* when the float32
margin between its first and second class is more than two steps of the file's logits in integers (or of 8 bits over
the range of the logits, where a file has none).
A cell agrees when at least 99.9 % of the clear pixels have the class of Keras and, in the formats with integer
activations, the logits' signal-to-noise ratio is 20 dB or more. Runtime: LiteRT with XNNPACK, one thread.

`--nets` takes the dense nets of benchmarks/mask_quality.py (dense_width8_seed0.keras, ...: plain U-Nets of 96x96
pixels, 25 epochs on corrosion_field) and judges their files on the whole test split: mean IoU per number format
and of the coarse head, and for int8 the arena of TFLite Micro and its classes against LiteRT's reference kernels.

The last line is {"tried", "agree", "float_ops", "failed"}: cells, of which agree, float operators in int8
files, cells that did not convert or run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, append_line, measured, read_lines  # noqa: E402
from tests.architectures.test_conformance import SMALL  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.architectures.files import load_model  # noqa: E402
from tfprune.data.arrays import load_arrays  # noqa: E402
from tfprune.data.sets import open_set  # noqa: E402
from tfprune.errors import InputError  # noqa: E402
from tfprune.export import SCHEMES  # noqa: E402
from tfprune.export.calibration import spread  # noqa: E402
from tfprune.export.conversion import export_tflite  # noqa: E402
from tfprune.export.rounding import KERNELS, rounded_kernel  # noqa: E402
from tfprune.keras import keras, tf  # noqa: E402
from tfprune.objectives.scores import score_confusions  # noqa: E402
from tfprune.quantization.layers import LearntRange, QuantizedLayer  # noqa: E402
from tfprune.quantization.training import quantize_model  # noqa: E402
from tfprune.records import write_text  # noqa: E402
from tfprune.verification.agreement import compare_classes  # noqa: E402
from tfprune.verification.arena import measure_arena  # noqa: E402
from tfprune.verification.footprint import measure_footprint  # noqa: E402
from tfprune.verification.quality import measure_quality  # noqa: E402
from tfprune.verification.runtimes import open_runtime  # noqa: E402

RESULTS = FOLDER / "export_conformance.jsonl"
COMMAND = "python benchmarks/export_conformance.py"
CLASSES, BRIGHTNESS = ["background", "first", "second"], (60, 128, 196)
CALIBRATION, TESTED, STEPS, SIGNAL_DB = 16, 4, 60, 20
TESTED_OF_TRAINED = 60
REPAIRS: dict[str, dict[str, Any]] = {
    "as it is": {},
    **{f"clip {share:g}": {"clip": share} for share in (1e-4, 1e-3)},
    **{f"keep_float {count}": {"keep_float": count} for count in (1, 2, 4, 8)},
}
PARTS = ("activations", "kernels", "both")
PLAIN = {
    "plain_unet/relu6": {"width": 8, "depth": 2, "activation": "relu6"},
    "plain_unet/bilinear": {"width": 8, "depth": 2, "upsampling": "bilinear"},
    "plain_unet/transpose": {"width": 8, "depth": 2, "upsampling": "transpose"},
    "plain_unet/leaky_relu": {"width": 8, "depth": 2, "activation": "leaky_relu"},
    "plain_unet/swish": {"width": 8, "depth": 2, "activation": "swish"},
    "plain_unet/hard_swish": {"width": 8, "depth": 2, "activation": "hard_swish"},
    "plain_unet/residual": {"width": 8, "depth": 2, "block": "residual", "context": [1, 2]},
    "plain_unet/inverted_residual": {"width": 8, "depth": 2, "block": "inverted_residual"},
}


def draw(count: int, size: tuple[int, int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 pictures (N, H, W, 3) of blocks in three levels of brightness, and which level each pixel has."""
    generator = np.random.default_rng(seed)
    height, width = size
    levels = generator.integers(0, len(CLASSES), (count, -(-height // 8), -(-width // 8)))
    tint = generator.normal(0, 15, (*levels.shape, 3))
    blocks = (np.asarray(BRIGHTNESS)[levels][..., None] + tint).repeat(8, axis=1).repeat(8, axis=2)
    noisy = blocks + generator.normal(0, 8, blocks.shape)
    pictures = np.clip(noisy, 0, 255).astype(np.uint8)
    return pictures[:, :height, :width], levels.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def build_cell_net(name: str) -> Any:
    """Build a net and train it for a moment, so that its logits stand apart as those of real nets do."""
    if name in PLAIN:
        size, options = (32, 32), PLAIN[name]
    else:
        options, stride = SMALL[name]
        size = (stride, stride) if stride > 32 else (64, 64)
    net = build_model(name.split("/")[0], input_size=size, outputs=len(CLASSES), seed=0, norm_momentum=0.0, **options)
    seen, levels = draw(CALIBRATION, size, seed=0)
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.optimizer.learning_rate.assign(3e-3)
    net.fit(seen.astype(np.float32), levels, batch_size=8, epochs=STEPS // (CALIBRATION // 8), verbose=0)
    net(seen.astype(np.float32), training=True)  # the norms' statistics, of all pictures
    return net


def judge(
    net: Any,
    scheme: str,
    folder: Path,
    *,
    images: np.ndarray,
    calibration: np.ndarray,
    names: Sequence[str],
    **options: Any,
) -> dict[str, Any]:
    """Export one net in one number format and hold its logits on some pictures against Keras."""
    path = folder / f"{scheme}.tflite"
    wanted = net(images.astype(np.float32), training=False).numpy()
    begin = time.perf_counter()
    export_tflite(
        net,
        path,
        scheme=scheme,
        head="logits",
        class_names=names,
        calibration=calibration,
        **options,
    )
    seconds = time.perf_counter() - begin
    opened = open_runtime(path)
    found = np.stack([opened.predict(image) for image in images]).astype(np.float32)
    scale, zero_point = opened.quantization
    found = (found - zero_point) * scale if scale else found
    footprint = measure_footprint(path)
    return {
        **compare(wanted, found, scale or None, lowest_db=SIGNAL_DB if SCHEMES[scheme].calibrated else 0),
        "float_ops": list(footprint.float_ops),
        "file_bytes": footprint.file_bytes,
        "seconds": round(seconds, 1),
    }


def compare(
    wanted: np.ndarray, found: np.ndarray, step: float | None = None, *, lowest_db: float = 0
) -> dict[str, Any]:
    """Return how far logits (N, H, W, K) are from those of Keras; a step of 8 bits over these unless given."""
    step = step or (wanted.max() - wanted.min()) / 255
    ordered = np.sort(wanted, axis=-1)
    margin = (ordered[..., -1] - ordered[..., -2]) / step
    clear = margin > 2
    equal = found.argmax(-1) == wanted.argmax(-1)
    noise = ((found - wanted) ** 2).mean()
    snr_db = float(10 * np.log10((wanted**2).mean() / max(noise, 1e-20)))
    equal_ratio = float(equal[clear].mean())
    return {
        "agrees": equal_ratio >= 0.999 and snr_db >= lowest_db,
        "clear_equal_ratio": round(equal_ratio, 6),
        "steps_needed": steps_needed(margin, equal),
        "clear_ratio": round(float(clear.mean()), 4),
        "equal_ratio": round(float(equal.mean()), 6),
        "snr_db": round(snr_db, 1),
    }


def steps_needed(margin: np.ndarray, equal: np.ndarray) -> float | None:
    """Return the smallest margin, in steps, above which 99.9 % of the pixels have the class of Keras."""
    order = np.argsort(margin, axis=None)
    wrong_above = np.cumsum(~equal.ravel()[order][::-1])[::-1]
    above = np.arange(margin.size, 0, -1)
    fine = np.flatnonzero(wrong_above <= 0.001 * above)
    return round(float(margin.ravel()[order][fine[0]]), 1) if len(fine) else None


def run_cells(
    names: list[str],
    schemes: list[str],
    *,
    done: set[tuple[str, str]],
    keep: Callable[[dict[str, Any]], None],
    until: float,
) -> None:
    """Judge the cells that are not done, until the time is up."""
    for name in names:
        left = [scheme for scheme in schemes if (name, scheme) not in done]
        if not left or time.monotonic() > until:
            continue
        keras.backend.clear_session()
        gc.collect()
        net = build_cell_net(name)
        for scheme in left:
            if time.monotonic() > until:
                break
            with tempfile.TemporaryDirectory() as folder:
                size = net.input_shape[1:3]
                images, seen = draw(TESTED, size, seed=9)[0], draw(CALIBRATION, size, seed=0)[0]
                try:
                    row = judge(net, scheme, Path(folder), images=images, calibration=seen, names=CLASSES)
                except InputError as error:
                    row = {"failed": str(error)[:300]}
            keep({"net": name, "scheme": scheme, **row})


def run_repairs(names: Sequence[str], keep: Callable[[dict[str, Any]], None]) -> None:
    """Judge the int8 files of nets with ranges clipped, and with the noisiest operators kept float."""
    for name in names:
        keras.backend.clear_session()
        net = build_cell_net(name)
        size = net.input_shape[1:3]
        given = {"images": draw(TESTED, size, seed=9)[0], "calibration": draw(CALIBRATION, size, seed=0)[0]}
        for repair, options in REPAIRS.items():
            with tempfile.TemporaryDirectory() as folder:
                keep(
                    {
                        "repair": repair,
                        "net": name,
                        **judge(net, "int8", Path(folder), names=CLASSES, **given, **options),
                    }
                )


def run_parts(names: Sequence[str], keep: Callable[[dict[str, Any]], None]) -> None:
    """Judge nets that compute in float32 with nothing of int8 but rounded activations, kernels, or both.

    The arithmetic, its order, and the grid of the biases are exact: what is left is the format itself, with
    ranges as the converter takes them. Kernels are rounded as `tfprune export` does it.
    """
    for name in names:
        keras.backend.clear_session()
        net = build_cell_net(name)
        size = net.input_shape[1:3]
        images, seen = draw(TESTED, size, seed=9)[0], draw(CALIBRATION, size, seed=0)[0]
        pixels = tf.constant(images, tf.float32)
        wanted = net(pixels, training=False).numpy()
        for part in PARTS:
            quantized = quantize_model(net, seen)
            for layer in quantized.layers:
                if isinstance(layer, QuantizedLayer):
                    rounded = rounded_kernel(layer.layer) if type(layer.layer) in KERNELS else layer.rounded()
                    fixed = tf.constant(layer.kernel.numpy() if part == "activations" else rounded)
                    layer.rounded = lambda fixed=fixed: fixed
                elif isinstance(layer, LearntRange) and part == "kernels":
                    layer.call = lambda inputs, training=None: inputs
            found = quantized.call(pixels, training=False).numpy()
            keep({"net": name, "rounded": part, **compare(wanted, found, lowest_db=SIGNAL_DB)})


def judge_trained(path: Path, data: Path) -> dict[str, Any]:
    """Judge the files of a trained net on the whole test split."""
    found = open_set(data)
    net = load_model(path)
    size, names = net.input_shape[1:3], found.classes.names
    train, test = (load_arrays(found.splits[part], found.classes, size=size, channels=3) for part in ("train", "test"))
    row: dict[str, Any] = {"trained": path.stem, "test_images": len(test.images), "mean_iou": {}}
    common = {"class_names": names, "calibration": spread(train.images, 100)}
    with tempfile.TemporaryDirectory() as folder:
        files = {(scheme, "logits"): Path(folder) / f"{scheme}.tflite" for scheme in SCHEMES}
        files["int8", "coarse_class_map"] = Path(folder) / "coarse.tflite"
        for (scheme, head), file in files.items():
            export_tflite(net, file, scheme=scheme, head=head, **common)
            judged = measure_quality(open_runtime(file).classes_of, test.images, test.masks, classes=len(names))
            name = scheme if head == "logits" else f"{scheme}, {head}"
            row["mean_iou"][name] = round(score_confusions(judged.confusions, names)["mean_iou"], 5)
        int8 = files["int8", "logits"]
        maps = [
            np.stack([model.classes_of(image) for image in test.images])
            for model in (open_runtime(int8, runtime=name) for name in ("micro", "litert-reference", "litert"))
        ]
        footprint = measure_footprint(int8)
        row |= {
            "file_bytes": footprint.file_bytes,
            "arena_bytes": measure_arena(int8),
            "peak_activation_bytes": footprint.peak_activation_bytes,
            "micro_equals_reference_ratio": compare_classes(maps[0], maps[1]).equal_ratio,
            "micro_equals_xnnpack_ratio": compare_classes(maps[0], maps[2]).equal_ratio,
            "float_ops": list(footprint.float_ops),
        }
    return row | {"conformance": conform_trained(net, train.images, test.images, names)}


def conform_trained(net: Any, train: np.ndarray, test: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Judge a trained net in every number format on 60 pictures of the test split."""
    images, seen = spread(test, TESTED_OF_TRAINED), spread(train, 100)
    with tempfile.TemporaryDirectory() as folder:
        return {
            scheme: judge(net, scheme, Path(folder), images=images, calibration=seen, names=names) for scheme in SCHEMES
        }


def read_rows() -> list[dict[str, Any]]:
    """Return the finished cells, those of trained nets among them."""
    rows = read_lines(RESULTS)
    trained = [row for row in rows if "trained" in row]
    of_trained = [
        {"net": row["trained"], "scheme": scheme, **cell}
        for row in trained
        for scheme, cell in row.get("conformance", {}).items()
    ]
    return [*trained, *of_trained, *(row for row in rows if {"scheme", "repair", "rounded"} & set(row))]


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return the figures of the last line."""
    cells = [row for row in rows if "scheme" in row]
    return {
        "tried": len(cells),
        "agree": sum(row.get("agrees", False) for row in cells),
        "float_ops_int8": sum(len(row.get("float_ops", ())) for row in cells if row["scheme"] == "int8"),
        "failed": sum("failed" in row for row in cells),
    }


def write_report(rows: list[dict[str, Any]]) -> None:
    """Write the page for people and the figures for machines."""
    where = measured(read_lines(RESULTS))
    machine = where["machine"]
    figures = {"command": COMMAND, **where, "summary": summary(rows), "rows": rows}
    write_text(RESULTS.with_suffix(".json"), json.dumps(figures, indent=1) + "\n")
    lines = [
        "# Every architecture in every number format",
        "",
        f"`{COMMAND} --minutes 60` and `--nets FOLDER --data DIR/corrosion_field` ({where['date']}, {machine['cpu']}, "
        f"TensorFlow {machine['tensorflow']}, ai-edge-litert {machine['ai-edge-litert']}). Other work ran on the "
        "machine: no times.",
        "",
        "## Trained nets on photographs of corroded steel",
        "",
        "Plain U-Nets of width 8 (96x96 pixels, 25 epochs, benchmarks/mask_quality.py), three seeds; mean IoU of the "
        "files on the test split:",
        "",
        *_trained_lines([row for row in rows if "trained" in row]),
        "",
        "## Logits against Keras: the trained nets, and every architecture after 60 steps",
        "",
        "*Clear pixels*: float margin above two steps of the logits; *agrees*: 99.9 % of them have the class of Keras, "
        f"and formats with integer activations keep a signal-to-noise ratio of {SIGNAL_DB} dB. *Steps for 99.9 %*: "
        "the margin above which so many pixels have the class of Keras.",
        "",
        *_scheme_lines([row for row in rows if "scheme" in row]),
        "",
        "| net | scheme | agrees | clear pixels equal | steps for 99.9 % | clear | all equal | signal, dB "
        "| float operators | KiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_cell_line(row) for row in rows if "scheme" in row]
    lines += _part_lines([row for row in rows if "rounded" in row])
    lines += _repair_lines([row for row in rows if "repair" in row])
    counts = summary(rows)
    lines += [
        "",
        f"In short: of {counts['tried']} cells {counts['agree']} agree and {counts['failed']} failed to convert or "
        f"run; the int8 files have {counts['float_ops_int8']} float operators.",
    ]
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def _scheme_lines(cells: list[dict[str, Any]]) -> list[str]:
    lines = ["| scheme | nets | convert and run | agree | signal, dB: lowest | median |", "|---|---|---|---|---|---|"]
    for scheme in SCHEMES:
        tried = [row for row in cells if row["scheme"] == scheme]
        ran = [row for row in tried if "failed" not in row]
        if ran:
            signal = [row["snr_db"] for row in ran]
            agree = sum(row["agrees"] for row in ran)
            lines.append(
                f"| {scheme} | {len(tried)} | {len(ran)} | {agree} | {min(signal)} | {statistics.median(signal):.1f} |"
            )
    return [
        *lines,
        "",
        "int16x8 has the weights of int8 to the bit: what int8 loses beyond it is the rounding of activations to",
        "8 bits. How many pixels that turns depends on the pictures: where the three levels of brightness were cut",
        "out of one continuous range, so that many pixels lie between two classes, the twelve nets kept 98.2 to",
        "99.9 % of the clear pixels in int8 (one reached 99.9 %) and 99.2 to 100 % in int16x8 (ten did; 2026-11-21).",
    ]


def _part_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    return [
        "",
        "## int8 that disagrees: what 8 bits alone cost",
        "",
        f"`{COMMAND} --parts`: the net computes in float32, and only its activations are rounded to 8 bits, or",
        "only its kernels, over the ranges that calibration finds. A file rounds both. Where rounding the activations",
        "alone says no, no better kernels and no better arithmetic help: that net needs more than 8 bits, and int16x8",
        "is the way, unless rounding its kernels alone says no as well.",
        "Each net is trained anew, and so its figures differ a little from those above.",
        "",
        "| net | rounded to 8 bits | agrees | clear pixels equal | steps for 99.9 % | signal, dB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['net']} | {row['rounded']} | {'yes' if row['agrees'] else 'no'} | {row['clear_equal_ratio']:.3%} "
            f"| {row['steps_needed']} | {row['snr_db']} |"
            for row in sorted(rows, key=lambda row: (row["net"], PARTS.index(row["rounded"])))
        ),
    ]


def _repair_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    return [
        "",
        "## int8 that disagrees, with ranges clipped and operators kept float",
        "",
        f"`{COMMAND} --repairs`: *clip*, the share of a tensor's values at either end that its range leaves out;",
        "*keep_float*, how many of the noisiest operators compute in float32. Each net is trained once for its rows.",
        "",
        "| net | repair | agrees | clear pixels equal | steps for 99.9 % | signal, dB | operators with float |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['net']} | {row['repair']} | {'yes' if row['agrees'] else 'no'} | {row['clear_equal_ratio']:.3%} "
            f"| {row['steps_needed']} | {row['snr_db']} | {len(row['float_ops'])} |"
            for row in rows
        ),
    ]


def _cell_line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['net']} | {row['scheme']} | failed: {row['failed']} | | | | | | | |"
    floats = ", ".join(row["float_ops"]) or "none"
    return (
        f"| {row['net']} | {row['scheme']} | {'yes' if row['agrees'] else 'no'} | {row['clear_equal_ratio']:.3%} "
        f"| {row['steps_needed']} | {row['clear_ratio']:.1%} | {row['equal_ratio']:.2%} | {row['snr_db']} | {floats} "
        f"| {row['file_bytes'] / 1024:,.0f} |"
    )


def _trained_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["(not measured yet)"]
    names = list(rows[0]["mean_iou"])
    lines = ["| net | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {row['trained']} | " + " | ".join(f"{row['mean_iou'][name]:.4f}" for name in names) + " |" for row in rows
    ]
    lines += ["", "The int8 files in TFLite Micro, on every picture of the test split:", ""]
    lines += ["| net | file, bytes | arena, bytes | predicted peak | classes as LiteRT's reference | as XNNPACK |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        ratio = row["arena_bytes"] / row["peak_activation_bytes"]
        lines.append(
            f"| {row['trained']} | {row['file_bytes']:,} | {row['arena_bytes']:,} "
            f"| {row['peak_activation_bytes']:,} (arena {ratio:.2f}x) | {row['micro_equals_reference_ratio']:.3%} "
            f"| {row['micro_equals_xnnpack_ratio']:.3%} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five small nets in float32 and int8; nothing is written")
    parser.add_argument("--minutes", type=float, default=60, help="no new cell is begun after so long")
    parser.add_argument("--nets", type=Path, help="folder of dense_*.keras, trained nets")
    parser.add_argument("--data", type=Path, help="the corrosion_field set, for --nets")
    parser.add_argument("--repairs", action="store_true", help="try what might help the int8 files that disagree")
    parser.add_argument("--parts", action="store_true", help="tell what rounding activations and kernels costs each")
    parser.add_argument("--report", action="store_true", help="only write the page")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        print(json.dumps({key: value for key, value in row.items() if key != "seconds"}), flush=True)
        rows.append(row)
        if not options.quick:
            append_line(RESULTS, row)

    until = time.monotonic() + 60 * options.minutes
    if options.quick:
        run_cells(list(PLAIN)[:5], ["float32", "int8"], done=set(), keep=keep, until=until)
    elif options.nets:
        finished = {row["trained"] for row in read_rows() if "trained" in row}
        for path in sorted(options.nets.glob("dense_width8_*.keras")):
            if path.stem not in finished:
                keep(judge_trained(path, options.data))
    elif options.repairs or options.parts:
        run, key = (run_repairs, "repair") if options.repairs else (run_parts, "rounded")
        found = read_rows()
        tried = {row["net"] for row in found if key in row}
        unequal = [row["net"] for row in found if row.get("scheme") == "int8" and not row.get("agrees", True)]
        run([name for name in unequal if name not in tried], keep)
    elif not options.report:
        done = {(row["net"], row["scheme"]) for row in read_rows() if "scheme" in row}
        run_cells([*PLAIN, *SMALL], list(SCHEMES), done=done, keep=keep, until=until)
    if not options.quick:
        rows = read_rows()
        write_report(rows)
    print(json.dumps(summary(rows)))


if __name__ == "__main__":
    main()
