"""Commands that measure .tflite files: verify, bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tfprune.cli.given import tflite_files, with_float_curve
from tfprune.cli.options import (
    BLANK_IS_EMPTY,
    FOLDER,
    HEAD,
    JSON,
    MIN_PIXELS,
    MODEL,
    OFFSET,
    RANDOM_WALKER,
    RUNTIME,
    RUNTIME_PYTHON,
    SCALE,
    SIZE,
    THREADS,
    TRUST,
    read_foreign,
)

_USUAL_DROP = 0.01


@click.command()
@click.argument("files", metavar="FILES...", nargs=-1, required=True, type=MODEL)
@click.option("--data", required=True, type=FOLDER, help="Folder with the pictures and masks to judge on.")
@click.option("--against", type=MODEL, metavar="DENSE", help="Model to compare FILES with, such as the dense net.")
@click.option("--split", default="test", show_default=True, type=click.Choice(["train", "val", "test"]))
@click.option("--split-file", help="JSON with lists of file stems per split, inside --data.")
@click.option("--min-iou", type=click.FloatRange(0, 1), help="Exit 1 when a file's mean IoU is below this.")
@click.option("--max-drop", type=float, help="Exit 1 when it is lower than DENSE's by more than this; default: .01.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), help="Exit 1 when a smaller share of pixels has DENSE's class."
)
@click.option(
    "--keep-float", type=click.IntRange(1), help="Judge int8 files of one Keras MODEL with 0 to K operators in float."
)
@click.option("--together", is_flag=True, help="Also judge the mean of the FILES' probabilities.")
@MIN_PIXELS
@RANDOM_WALKER
@BLANK_IS_EMPTY
@click.option("--scores", "show_scores", is_flag=True, help="Print sensitivity, specificity and more per class.")
@RUNTIME
@click.option(
    "--also", multiple=True, metavar="RUNTIME", help="Also classify with this runtime and compare; repeatable."
)
@RUNTIME_PYTHON
@THREADS
@JSON
@SIZE
@SCALE
@OFFSET
@HEAD
@TRUST
def verify(
    files: tuple[Path, ...],
    data: Path,
    against: Path | None,
    split: str,
    split_file: str | None,
    min_iou: float | None,
    max_drop: float | None,
    min_agreement: float | None,
    keep_float: int | None,
    together: bool,
    min_pixels: int,
    random_walker: tuple[float, float] | None,
    blank_is_empty: bool,
    show_scores: bool,
    runtime: str,
    also: tuple[str, ...],
    runtime_python: str | None,
    threads: int,
    json_file: Path | None,
    size: tuple[int, int] | None,
    scale: Any,
    offset: Any,
    head: str | None,
    trust: bool,
) -> None:
    """Judge .tflite FILES on a split: quality, size, latency.

    Latency is measured with the files taking turns, and compared with the first
    file or with DENSE. A Keras model is exported first, as float32 (as int8 if
    it was trained with rounding). Exit code 1 when a bound is not kept.

    --keep-float K says where a Keras model's int8 file loses its signal, and
    judges files with 0 to K of those operators in float32. --scale, --offset
    and --head say what .tflite files of other tools take and give.
    """
    from rich.console import Console

    from tfprune.data import open_set
    from tfprune.errors import FindingError, InputError
    from tfprune.records import write_json
    from tfprune.report.summary import summarise_verification
    from tfprune.verification.answers import PostProcessing
    from tfprune.verification.proof import prove_folder

    if against is None and (max_drop is not None or min_agreement is not None):
        raise InputError("--max-drop and --min-agreement compare with a model: give --against DENSE")

    def names() -> Sequence[str]:
        return open_set(data, split_file=split_file).classes.names

    given = files if against is None else (against, *files)
    if keep_float and len(given) > 1:
        raise InputError("--keep-float judges the files of one Keras model; give that model alone")
    if keep_float:
        made = with_float_curve(files[0], keep_float, data, split_file=split_file, size=size, trust=trust)
    else:
        made = tflite_files(given, names, size=size, trust=trust)
    with made as converted:
        record = prove_folder(
            converted,
            data,
            split=split,
            split_file=split_file,
            runtime=runtime,
            also=also,
            threads=threads,
            python=runtime_python,
            processing=PostProcessing(min_pixels, random_walker or None, blank_is_empty),
            together=together,
            foreign=read_foreign(converted, scale, offset, head),
        )
    console = Console(highlight=False, markup=False)
    console.print(summarise_verification(record))
    console.print(_cost_table(record["rows"]))
    if show_scores or together:
        console.print(_scores_table(record))
    for agreement in record["agreement"]:
        _print_agreement(console, agreement)
    if json_file:
        write_json(json_file, record)
    drop = _USUAL_DROP if max_drop is None else max_drop
    findings = _findings(record["rows"], against is not None, min_iou, drop, min_agreement)
    if findings:
        raise FindingError("\n".join(findings))


@click.command()
@click.argument("files", metavar="FILES...", nargs=-1, required=True, type=MODEL)
@click.option("--runs", default=50, show_default=True, type=click.IntRange(3), help="Rounds to measure.")
@RUNTIME
@RUNTIME_PYTHON
@THREADS
@JSON
@SIZE
@TRUST
def bench(
    files: tuple[Path, ...],
    runs: int,
    runtime: str,
    runtime_python: str | None,
    threads: int,
    json_file: Path | None,
    size: tuple[int, int] | None,
    trust: bool,
) -> None:
    """Time .tflite FILES against the first one, taking turns.

    Prints medians over the rounds, and the ratio within a round with its 10th
    and 90th percentile. A Keras model is exported first, as float32 (as int8 if
    it was trained with rounding).
    """
    from rich.console import Console

    from tfprune.records import write_json
    from tfprune.report.wording import as_ratio, as_three_figures
    from tfprune.verification.benching import bench_files

    with tflite_files(files, lambda: None, size=size, trust=trust) as converted:
        record = bench_files(
            converted,
            runtime=runtime,
            threads=threads,
            python=runtime_python,
            runs=runs,
            names=[str(path) for path in files],
        )
    table = _new_table("file", "median\nms", "p95\nms", "times\nas fast", "10-90 %", "of conv.\nrate")
    for row in record["rows"]:
        latency = row["latency"]
        spread = f"{as_ratio(latency['ratio_low'])}-{as_ratio(latency['ratio_high'])}"
        times = (as_three_figures(latency["median_ms"]), as_three_figures(latency["p95_ms"]))
        share = _percent(row["convolution_share_ratio"])
        table.add_row(row["file"], *times, as_ratio(latency["ratio_to_first"]), spread, share)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"{record['rows'][0]['runtime']}; {runs} rounds", style="dim")
    if json_file:
        write_json(json_file, record)


def _findings(
    rows: Sequence[Mapping[str, Any]],
    has_dense: bool,
    min_iou: float | None,
    max_drop: float,
    min_agreement: float | None,
) -> list[str]:
    findings = []
    for row in rows[1:] if has_dense else rows:
        iou = row["scores"]["mean_iou"]
        if min_iou is not None and iou < min_iou:
            findings.append(f"{row['file']}: mean IoU below {min_iou}: it is {iou:.4f}")
        if has_dense and rows[0]["scores"]["mean_iou"] - iou > max_drop:
            dense = rows[0]["scores"]["mean_iou"]
            findings.append(f"{row['file']}: mean IoU {iou:.4f} is more than {max_drop} below {dense:.4f}")
        equal = row["agreement_with_first"]["equal_ratio"]
        if min_agreement is not None and equal < min_agreement:
            findings.append(
                f"{row['file']}: {equal:.4%} of the pixels are as DENSE has them, below {min_agreement:.2%}"
            )
    return findings


def _new_table(*heads: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, overflow="fold", justify="right" if index else "left")
    return table


def _cost_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    from tfprune.report.wording import as_kib, as_three_figures

    has_arena = any("arena_bytes" in row for row in rows)
    arena = ["Micro's\narena, KiB"] if has_arena else []
    heads = ("p95\nms", "of conv.\nrate", "activations\npeak, KiB", *arena, "float\nops", "pixels as\nthe first")
    table = _new_table("", *heads)
    for row in rows:
        footprint, measured = row["footprint"], [as_kib(row.get("arena_bytes"))] if has_arena else []
        floats = "-" if footprint["float_ops"] is None else str(len(footprint["float_ops"]))
        table.add_row(
            f"{row['variant']} {row['scheme']}",
            as_three_figures(row["latency"]["p95_ms"]),
            _percent(row.get("convolution_share_ratio")),
            as_kib(footprint["peak_activation_bytes"]),
            *measured,
            floats,
            f"{row['agreement_with_first']['equal_ratio']:.2%}",
        )
    return table


def _scores_table(record: Mapping[str, Any]) -> Any:
    """Return the scores of each file, each class against the rest, and what an all-empty answer would score."""
    from tfprune.report.folder import read_rows
    from tfprune.report.wording import as_score

    table = _new_table("", "Sens", "Spec", "Acc", "BAcc", "F1", "Jacc", "edge\nIoU", "Dice, 1\nif empty")
    judged = [(row.name, record["rows"][index]["scores"]) for index, row in enumerate(read_rows(record))]
    judged += [("together", record["together"]["scores"])] if "together" in record else []
    for title, scores in judged:
        table.add_row(title, "", "", as_score(scores["pixel_accuracy"]), *[""] * 4, _dice(scores, "score"))
        for name in record["dataset"]["class_names"][1:]:
            sensitivity, specificity = scores["sensitivity"][name], scores["specificity"][name]
            both = None if None in (sensitivity, specificity) else (sensitivity + specificity) / 2
            edge = (scores.get("boundary_iou") or {}).get(name)
            cells = (both, scores["dice"][name], scores["iou"][name], edge)
            table.add_row(f"  {name}", as_score(sensitivity), as_score(specificity), "", *map(as_score, cells), "")
    table.add_row("all empty", *[""] * 7, _dice(judged[0][1], "all_empty"))
    return table


def _dice(scores: Mapping[str, Any], key: str) -> str:
    from tfprune.report.wording import as_score

    return as_score(scores["kaggle_dice"][key])


def _print_agreement(console: Any, agreement: Mapping[str, Any]) -> None:
    names = agreement["names"]
    if len(names) > 1:
        table = _new_table(f"{agreement['variant']}: equal pixels, %", *map(str, range(1, len(names) + 1)))
        for number, (name, row) in enumerate(zip(names, agreement["equal_ratio"], strict=True), 1):
            table.add_row(f"{number} {name}", *(f"{100 * value:.2f}" for value in row))
        console.print("")
        console.print(table)
    for name, reason in agreement["failed"].items():
        console.print(f"! {name}: {reason}", style="bold")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
