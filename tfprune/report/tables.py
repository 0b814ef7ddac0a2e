"""The tables of a report as plain values: what a cell shows, its exact value, its difference to the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.report.folder import Row, RunRecords, reference_row
from tfprune.report.wording import (
    UNKNOWN,
    as_change,
    as_count,
    as_duration,
    as_kib,
    as_millions,
    as_percent,
    as_ratio,
    as_score,
    as_signed,
    as_stage,
    as_three_figures,
)


@dataclass(frozen=True)
class Cell:
    """One figure: its text, the exact value of the record, a remark and whether that is good (+1) or bad (-1)."""

    text: str
    value: float | str | None = None
    remark: str = ""
    tone: int = 0


@dataclass(frozen=True)
class Line:
    """One quantity over all files; `unit` says what the numbers are."""

    label: str
    unit: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Lines that belong together."""

    title: str
    lines: tuple[Line, ...]


def list_figures(rows: Sequence[Row]) -> list[Group]:
    """Return all figures of the verified files, one line per quantity and one cell per file."""
    reference = reference_row(rows)
    if reference is None:
        return []
    groups = [
        Group("Quality on the test images (0 to 1, higher is better)", tuple(_quality_lines(rows, reference))),
        Group("Size", tuple(_size_lines(rows, reference))),
        Group("Work and time per image", tuple(_time_lines(rows, reference))),
        Group("Same as the Keras model it came from", tuple(_agreement_lines(rows))),
    ]
    return [group for group in groups if any(cell.value is not None for line in group.lines for cell in line.cells)]


def _quality_lines(rows: Sequence[Row], reference: Row) -> list[Line]:
    def scores(label: str, read: Callable[[Row], float | None]) -> Line:
        cells = [_score_cell(read(row), read(reference), is_reference=row is reference) for row in rows]
        return Line(label, "", tuple(cells))

    names = list(reference.class_names or reference.iou)
    lines = [scores(f"IoU {name}", lambda row, name=name: row.iou.get(name)) for name in [*names[1:], *names[:1]]]
    lines.append(scores("mean IoU", lambda row: row.mean_iou))
    if len(names) == 2:
        lines.append(scores(f"Dice {names[1]}", lambda row: row.dice.get(names[1])))
    lines.append(scores("mean Dice", lambda row: row.mean_dice))
    if len(names) == 2:  # with IoU and Dice these are (11) to (17) of arXiv 2210.07451
        lines += [
            scores(f"sensitivity (recall), {names[1]}", lambda row: row.sensitivity.get(names[1])),
            scores(f"specificity, {names[1]}", lambda row: row.specificity.get(names[1])),
            scores("pixel accuracy (1 - error)", lambda row: row.pixel_accuracy),
            scores("balanced accuracy", lambda row: row.balanced_accuracy),
        ]
    if reference.boundary_iou:
        for name in names[1:]:
            lines.append(scores(f"boundary IoU {name}", lambda row, name=name: row.boundary_iou.get(name)))
    empty = reference.kaggle_dice.get("all_empty")
    if empty:  # only where some class is absent from some picture
        lines.append(scores("Dice per image and class, 1 if both empty", lambda row: row.kaggle_dice.get("score")))
        lines.append(Line("the same of an all-empty answer", "", tuple(Cell(as_score(empty), empty) for _ in rows)))
        lines.append(
            scores("Dice per image and class that is there", lambda row: row.kaggle_dice.get("defect_positive"))
        )
    return lines


def _score_cell(value: float | None, reference: float | None, *, is_reference: bool) -> Cell:
    if value is None or reference is None or is_reference:
        return Cell(as_score(value), value)
    difference = value - reference
    tone = 0 if abs(difference) < 0.0005 else 1 if difference > 0 else -1
    return Cell(as_score(value), value, as_signed(difference), tone)


def _size_lines(rows: Sequence[Row], reference: Row) -> list[Line]:
    def sizes(label: str, unit: str, key: str, write: Callable[[float | None], str]) -> Line:
        return Line(label, unit, tuple(_size_cell(row, reference, key, write) for row in rows))

    lines = [
        sizes("file", "KiB", "file_bytes", as_kib),
        sizes("file, gzipped", "KiB", "gzip_bytes", as_kib),
        sizes("parameters", "", "parameters", as_count),
        sizes("non-zero parameters", "", "nonzero_parameters", as_count),
    ]
    if any(row.arena_bytes for row in rows):
        lines.append(sizes("arena of TFLite Micro", "KiB", "arena_bytes", as_kib))
    return lines


def _size_cell(row: Row, reference: Row, key: str, write: Callable[[float | None], str]) -> Cell:
    value, first = getattr(row, key), getattr(reference, key)
    if value is None or not first or row is reference:
        return Cell(write(value), value)
    change = as_change(value, first)
    return Cell(write(value), value, change, 0 if change == "same" else 1 if value < first else -1)


def _time_lines(rows: Sequence[Row], reference: Row) -> list[Line]:
    lines = [
        Line("MACs", "million", tuple(_size_cell(row, reference, "macs", as_millions) for row in rows)),
        Line("time, median", "ms", tuple(Cell(as_three_figures(row.median_ms), row.median_ms) for row in rows)),
        Line("time, 95th percentile", "ms", tuple(Cell(as_three_figures(row.p95_ms), row.p95_ms) for row in rows)),
        Line(
            f"times as fast as {rows[0].name}", "paired", tuple(_speed_cell(row, first=row is rows[0]) for row in rows)
        ),
    ]
    if any(row.convolution_share_ratio is not None for row in rows):
        shares = (row.convolution_share_ratio for row in rows)
        cells = tuple(Cell(as_percent(share, 0), share) for share in shares)
        lines.append(Line("of this machine's convolution rate", "", cells))
    if any(row.is_integer and row.float_ops is not None for row in rows):
        lines.append(Line("ops left in float", "", tuple(_float_ops_cell(row) for row in rows)))
    return lines


def _speed_cell(row: Row, *, first: bool) -> Cell:
    if first or None in (row.faster_ratio, row.faster_low, row.faster_high):
        return Cell(as_ratio(row.faster_ratio), row.faster_ratio)
    spread = f"{as_ratio(row.faster_low)} to {as_ratio(row.faster_high)}"
    tone = 1 if row.faster_low > 1 else -1 if row.faster_high < 1 else 0
    return Cell(as_ratio(row.faster_ratio), row.faster_ratio, spread, tone)


def _float_ops_cell(row: Row) -> Cell:
    if not row.is_integer or row.float_ops is None:
        return Cell(UNKNOWN)
    return Cell(str(len(row.float_ops)), len(row.float_ops))


def _agreement_lines(rows: Sequence[Row]) -> list[Line]:
    equal = [Cell(as_percent(row.equal_ratio, 2), row.equal_ratio) for row in rows]
    worst = [Cell(as_percent(row.worst_image_ratio, 2), row.worst_image_ratio) for row in rows]
    drift = []
    for row in rows:
        known = row.mean_iou is not None and row.keras_mean_iou is not None
        difference = (row.mean_iou or 0.0) - (row.keras_mean_iou or 0.0) if known else None
        drift.append(Cell(as_signed(difference), difference))
    return [
        Line("pixels with the same class", "all images", tuple(equal)),
        Line("pixels with the same class", "worst image", tuple(worst)),
        Line("mean IoU, file minus Keras model", "", tuple(drift)),
    ]


@dataclass(frozen=True)
class Matrix:
    """Pixels with the same class, between all that claim to be one net; `failed` is name -> reason."""

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failed: Mapping[str, str]


def list_agreements(verification: Mapping[str, Any]) -> list[Matrix]:
    """Return a matrix for each variant that was judged in more than one way (Keras, number formats, runtimes)."""
    return [
        Matrix(
            str(one["variant"]),
            tuple(one["names"]),
            tuple(tuple(as_percent(share, 2) for share in row) for row in one["equal_ratio"]),
            one.get("failed") or {},
        )
        for one in verification.get("agreement") or []
        if len(one["names"]) > 1 or one.get("failed")
    ]


def list_target_rows(target: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return (what, a text for each file) of the figures that the run's target has."""
    rows = target.get("rows") or []
    shown = [("operators that map", [f"{row['operators'] - row['unmapped']} of {row['operators']}" for row in rows])]
    for label, key, write in (
        ("flash, KiB", "flash_bytes", as_kib),
        ("working memory, KiB", "memory_bytes", as_kib),
        ("time, ms", "time_ms", as_three_figures),
    ):
        if any(row.get(key) is not None for row in rows):
            shown.append((label, [write(row.get(key)) for row in rows]))
    return shown if rows else []


@dataclass(frozen=True)
class LayerBar:
    """How much of one layer is zero; `share` in 0-1."""

    layer: str
    weights: str
    nonzero: str
    share: float
    percent: str


def list_layers(sparsity: Mapping[str, Any]) -> list[LayerBar]:
    """Return the masked layers in the order of the record."""
    bars = []
    for layer in sparsity.get("layers") or []:
        share = layer.get("sparsity") or 0.0
        counts = (as_count(layer.get("weights")), as_count(layer.get("nonzero")))
        bars.append(LayerBar(str(layer.get("layer", "?")), *counts, share, as_percent(share)))
    return bars


def group_dense_layers(sparsity: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return reason -> (layer, number of weights) of all layers that stayed dense."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for layer in sparsity.get("dense") or []:
        entry = (str(layer.get("layer", "?")), as_count(layer.get("weights")))
        reasons.setdefault(str(layer.get("reason") or "no reason recorded"), []).append(entry)
    return reasons


def describe_regularization(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (term, text) pairs: each regularizer with its strengths, the ramp, the layers; empty without a record.

    >>> describe_regularization({"weights": {"l2": {"strength": 0.1}}, "layers": ["a", "b"], "ramp_epochs": 5})
    [('l2', 'strength 0.1'), ('ramp', 'strengths rise from 0 over 5 epochs'), ('layers', '2: a, b')]
    """
    if not record:
        return []
    named = {**record.get("weights", {}), **{f"gradients: {k}": v for k, v in record.get("gradients", {}).items()}}
    pairs = [
        (name, ", ".join(f"{key} {value}" for key, value in parameters.items()) or "as they are")
        for name, parameters in named.items()
    ]
    if record.get("ramp_epochs"):
        pairs.append(("ramp", f"strengths rise from 0 over {record['ramp_epochs']} epochs"))
    layers = record.get("layers") or []
    pairs.append(("layers", f"{len(layers)}: {', '.join(layers)}"))
    reasons: dict[str, list[str]] = {}
    for layer in record.get("left_alone") or []:
        reasons.setdefault(layer["reason"], []).append(layer["layer"])
    return pairs + [(f"left alone, {reason}", ", ".join(names)) for reason, names in reasons.items()]


def list_stages(records: RunRecords) -> list[dict[str, str]]:
    """Return what each stage took and reached; epochs are counted from 1."""
    stages = []
    for stage in records.run.get("stages") or []:
        best = stage.get("best_epoch")
        stages.append(
            {
                "name": as_stage(str(stage.get("name", "?"))),
                "epochs": as_count(stage.get("epochs")),
                "time": as_duration(stage.get("seconds")),
                "best_epoch": UNKNOWN if best is None or best < 0 else str(best + 1),
                "best_score": as_score(stage.get("best_val_mean_iou")),
            }
        )
    return stages


def flatten(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a record as (name, text) pairs; lists are joined, what is unknown is left out.

    >>> flatten({"cpu": "x", "splits": {"train": 3, "test": [1, 2]}, "none": None})
    [('cpu', 'x'), ('splits train', '3'), ('splits test', '1, 2')]
    """
    pairs: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}".replace("_", " ") if prefix else str(key)
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{name} ")
        elif isinstance(value, list):
            pairs.append((name, ", ".join(map(str, value))))
        elif value is not None:
            pairs.append((name, as_score(value) if isinstance(value, float) else str(value)))
    return pairs
