"""The records of a run folder, read as plain values; what is absent is listed, not guessed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from tfprune.errors import InputError
from tfprune.records import read_json

STAGE_ORDER = ("train", "prune", "fine_tune")

PARTS = {
    "records/run.json": "the times and best epochs of the stages",
    "records/verification.json": "all figures measured on the exported files",
    "records/sparsity.json": "the sparsity of the layers (nothing was pruned, or pruning has not ended)",
    "environment.json": "the versions and the processor",
    "data.json": "the description of the data",
}


@dataclass(frozen=True)
class Row:
    """One exported file with its figures; None is what was not measured. Ratios and scores lie in 0-1."""

    variant: str
    scheme: str
    file: str
    class_names: tuple[str, ...]
    iou: Mapping[str, float | None] = field(default_factory=dict)
    dice: Mapping[str, float | None] = field(default_factory=dict)
    mean_iou: float | None = None
    mean_dice: float | None = None
    keras_mean_iou: float | None = None
    boundary_iou: Mapping[str, float | None] = field(default_factory=dict)
    sensitivity: Mapping[str, float | None] = field(default_factory=dict)
    specificity: Mapping[str, float | None] = field(default_factory=dict)
    pixel_accuracy: float | None = None
    balanced_accuracy: float | None = None
    kaggle_dice: Mapping[str, float | None] = field(default_factory=dict)
    file_bytes: int | None = None
    gzip_bytes: int | None = None
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    float_ops: tuple[str, ...] | None = None
    median_ms: float | None = None
    p95_ms: float | None = None
    latency_runs: int | None = None
    faster_ratio: float | None = None
    faster_low: float | None = None
    faster_high: float | None = None
    equal_ratio: float | None = None
    worst_image_ratio: float | None = None
    arena_bytes: int | None = None
    convolution_share_ratio: float | None = None

    @property
    def name(self) -> str:
        """What people read, such as "pruned int8"; a variant that says its scheme itself is not made to repeat it."""
        return self.variant if self.variant.endswith(f"_{self.scheme}") else f"{self.variant} {self.scheme}"

    @property
    def is_integer(self) -> bool:
        """Whether the scheme computes with integers."""
        return self.scheme.startswith("int")


@dataclass(frozen=True)
class Samples:
    """Test images with their truth and what each file made of them."""

    stems: tuple[str, ...]
    images: np.ndarray
    truth: np.ndarray
    predicted: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RunRecords:
    """All a report needs of one run folder. `missing` says what is absent, in words.

    `regularization`, `quantization` and `target` are empty for a run without, and not missing then.
    """

    folder: Path
    run: dict[str, Any]
    verification: dict[str, Any]
    sparsity: dict[str, Any]
    regularization: dict[str, Any]
    quantization: dict[str, Any]
    target: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    recipe: str
    rows: tuple[Row, ...]
    histories: dict[str, dict[str, np.ndarray]]
    samples: Samples | None
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name, or its folder's."""
        return str(self.run.get("name") or self.folder.resolve().name)

    @property
    def dataset(self) -> dict[str, Any]:
        """What verification says of the data it used."""
        return self.verification.get("dataset") or {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes in order of their ids."""
        return tuple(self.dataset.get("class_names") or ())


def read_run(folder: str | Path) -> RunRecords:
    """Return the records of a run folder.

    Raises:
        InputError: there is no such folder, nothing of a run is in it, or a record cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder; give the folder that `tfprune run` wrote")
    parts = {part: _read_record(folder / part) for part in PARTS}
    histories = _read_histories(folder, parts["records/run.json"].get("stages") or [])
    if not histories and not any(parts.values()):
        raise InputError(
            f"{folder}: not a run folder (no records/, no stages/); give the folder that `tfprune run` wrote"
        )
    recipe_path = folder / "recipe.yaml"
    verification = parts["records/verification.json"]
    rows = read_rows(verification)
    samples = _read_samples(folder / "records" / "samples.npz", rows)
    stages = parts["records/run.json"].get("stages") or []
    expected = set(PARTS)
    if stages and "prune" not in [stage.get("name") for stage in stages]:
        expected -= {"records/sparsity.json"}  # it has ended, and had no masks
    missing = [f"{part}: {meaning}" for part, meaning in PARTS.items() if part in expected and not parts[part]]
    if not histories:
        missing.append("stages/*/history.csv: the training curves")
    if samples is None:
        missing.append("records/samples.npz: the sample images")
    if not recipe_path.is_file():
        missing.append("recipe.yaml: the recipe")
    return RunRecords(
        folder=folder,
        run=parts["records/run.json"],
        verification=verification,
        sparsity=parts["records/sparsity.json"],
        regularization=_read_record(folder / "records" / "regularization.json"),
        quantization=_read_record(folder / "records" / "quantization.json"),
        target=_read_record(folder / "records" / "target.json"),
        environment=parts["environment.json"],
        data=parts["data.json"],
        recipe=recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else "",
        rows=rows,
        histories=histories,
        samples=samples,
        missing=tuple(missing),
    )


def read_rows(verification: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return the files of a verification record (`records/verification.json`) in its order."""
    return tuple(_read_row(row, verification) for row in verification.get("rows") or [])


def reference_row(rows: Sequence[Row]) -> Row | None:
    """Return the row all others are compared with: dense float32, else the first."""
    return next((row for row in rows if (row.variant, row.scheme) == ("dense", "float32")), rows[0] if rows else None)


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); delete it and start the run again") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: holds a {type(record).__name__}, not the named values of a record")
    return record


def _read_row(record: Mapping[str, Any], verification: Mapping[str, Any]) -> Row:
    footprint = record.get("footprint") or {}
    scores = record.get("scores") or {}
    agreement = record.get("agreement") or {}
    latency = record.get("latency") or {}
    return Row(
        variant=str(record.get("variant", "?")),
        scheme=str(record.get("scheme", "?")),
        file=str(record.get("file", "")),
        class_names=tuple((verification.get("dataset") or {}).get("class_names") or scores.get("iou") or ()),
        iou=scores.get("iou") or {},
        dice=scores.get("dice") or {},
        mean_iou=scores.get("mean_iou"),
        mean_dice=scores.get("mean_dice"),
        boundary_iou=scores.get("boundary_iou") or {},
        sensitivity=scores.get("sensitivity") or {},
        specificity=scores.get("specificity") or {},
        **{key: scores.get(key) for key in ("pixel_accuracy", "balanced_accuracy")},
        kaggle_dice=scores.get("kaggle_dice") or {},
        keras_mean_iou=(record.get("keras_scores") or {}).get("mean_iou"),
        **{key: footprint.get(key) for key in ("file_bytes", "gzip_bytes", "parameters", "nonzero_parameters", "macs")},
        float_ops=None if footprint.get("float_ops") is None else tuple(footprint["float_ops"]),
        median_ms=latency.get("median_ms"),
        p95_ms=latency.get("p95_ms"),
        latency_runs=latency.get("runs"),
        faster_ratio=latency.get("ratio_to_first"),
        faster_low=latency.get("ratio_low"),
        faster_high=latency.get("ratio_high"),
        equal_ratio=agreement.get("equal_ratio"),
        worst_image_ratio=agreement.get("worst_image_ratio"),
        arena_bytes=record.get("arena_bytes"),
        convolution_share_ratio=record.get("convolution_share_ratio"),
    )


def _read_histories(folder: Path, stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Return the columns of each stage's history, stages in the order they ran; empty cells become NaN."""
    order = [str(stage.get("name")) for stage in stages] + list(STAGE_ORDER)
    found = {path.parent.name: path for path in sorted(folder.glob("stages/*/history.csv"))}
    histories = {}
    for name in sorted(found, key=lambda stage: (order.index(stage) if stage in order else len(order), stage)):
        with found[name].open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        columns = {
            key: np.array([_as_float(line[key]) for line in lines]) for key in (lines[0] if lines else ()) if key
        }
        if "epoch" in columns:
            histories[name] = columns
    return histories


def _as_float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _read_samples(path: Path, rows: Sequence[Row]) -> Samples | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        images, truth = arrays["image"], arrays["truth"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path}: not readable as samples ({error}); delete it and start the run again") from error
    keys = {f"{row.variant}_{row.scheme}": row.name for row in rows}
    predicted = {name: arrays[key] for key, name in keys.items() if key in arrays}
    for name, masks in {"truth": truth, **predicted}.items():
        if masks.shape != images.shape[:3]:
            raise InputError(
                f"{path}: {name} has shape {masks.shape}, the images {images.shape[:3]}; they must be equal"
            )
    stems = arrays.get("stems", [f"sample {index + 1}" for index in range(len(images))])
    return Samples(tuple(str(stem) for stem in stems), images, truth, predicted)
