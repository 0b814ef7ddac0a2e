"""The sample images of a run: photograph, truth and what every file made of it, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.records import IGNORE_ID
from tfprune.report.folder import RunRecords, Samples
from tfprune.report.overlays import (
    IGNORED_COLOUR,
    OUTCOME_COLOURS,
    Colour,
    as_data_uri,
    class_colours,
    fit_for_screen,
    overlay_classes,
    overlay_outcomes,
)
from tfprune.report.wording import as_score

SHOWN_SAMPLES = 8


@dataclass(frozen=True)
class Tile:
    """One picture with its caption; `source` is a data URI."""

    caption: str
    remark: str
    source: str


@dataclass(frozen=True)
class SampleRow:
    """All pictures of one test image."""

    stem: str
    tiles: tuple[Tile, ...]


def show_samples(records: RunRecords) -> list[SampleRow]:
    """Return the first samples of a run as tiles; two classes are shown as outcomes, more by their colours."""
    samples = records.samples
    if samples is None:
        return []
    return [_show(samples, index, records.class_names) for index in range(min(SHOWN_SAMPLES, len(samples.stems)))]


def explain_colours(records: RunRecords) -> list[tuple[str, str]]:
    """Return (CSS colour, meaning) pairs for the samples of a run."""
    samples, names = records.samples, records.class_names
    if samples is None:
        return []
    if _is_binary(samples, names):
        target = names[1] if len(names) == 2 else "class 1"
        meanings = (f"{target}, found", f"false alarm: not {target}", f"{target}, missed")
        legend = [(_css(colour), text) for colour, text in zip(OUTCOME_COLOURS.values(), meanings, strict=True)]
    else:
        colours = class_colours(_count_classes(samples, names))
        known = [names[index] if index < len(names) else f"class {index}" for index in range(len(colours))]
        legend = [(_css(colour), name) for colour, name in zip(colours, known, strict=True) if colour is not None]
        legend.append(("", f"not coloured, and not in the mean IoU below: {known[0]}"))
    if (samples.truth == IGNORE_ID).any():
        legend.append((_css(IGNORED_COLOUR), "not judged (striped)"))
    return legend


def image_iou(truth: np.ndarray, predicted: np.ndarray, class_id: int) -> float | None:
    """Return the IoU of one class in one image, None when it is in neither mask.

    >>> image_iou(np.array([[1, 1, 0, 255]]), np.array([[1, 0, 0, 1]]), 1)
    0.5
    """
    judged = truth != IGNORE_ID
    union = np.count_nonzero(judged & ((truth == class_id) | (predicted == class_id)))
    return float(np.count_nonzero((truth == class_id) & (predicted == class_id)) / union) if union else None


def _show(samples: Samples, index: int, names: tuple[str, ...]) -> SampleRow:
    image, truth = samples.images[index], samples.truth[index]
    large, large_truth = fit_for_screen(image), fit_for_screen(truth)
    binary = _is_binary(samples, names)
    count = _count_classes(samples, names)
    colours = class_colours(count)
    truth_drawn = (
        overlay_outcomes(large, large_truth, large_truth) if binary else overlay_classes(large, large_truth, colours)
    )
    tiles = [Tile("image", "", as_data_uri(large)), Tile("truth", _shares(truth, names), as_data_uri(truth_drawn))]
    for name, masks in samples.predicted.items():
        mask = fit_for_screen(masks[index])
        drawn = overlay_outcomes(large, large_truth, mask) if binary else overlay_classes(large, mask, colours)
        tiles.append(Tile(name, _score(truth, masks[index], count), as_data_uri(drawn)))
    return SampleRow(samples.stems[index], tuple(tiles))


def _score(truth: np.ndarray, predicted: np.ndarray, classes: int) -> str:
    """Return the image's IoU in words: of class 1 among two classes, else the mean of the classes present but 0."""
    values = [image_iou(truth, predicted, class_id) for class_id in range(1, classes)]
    known = [value for value in values if value is not None]
    if not known:
        return "nothing there, nothing found"
    return f"{'IoU' if classes == 2 else 'mean IoU'} {as_score(sum(known) / len(known))}"


def _shares(truth: np.ndarray, names: tuple[str, ...]) -> str:
    judged = truth[truth != IGNORE_ID]
    share = np.count_nonzero(judged) / max(judged.size, 1)
    return f"{share * 100:.1f} % {names[1] if len(names) == 2 else 'coloured'}"


def _is_binary(samples: Samples, names: tuple[str, ...]) -> bool:
    return _count_classes(samples, names) == 2


def _count_classes(samples: Samples, names: tuple[str, ...]) -> int:
    """Return the number of classes: as named, and never fewer than the masks hold."""
    masks = (samples.truth, *samples.predicted.values())
    highest = max(int(mask[mask != IGNORE_ID].max(initial=0)) for mask in masks)
    return max(len(names), highest + 1, 2)


def _css(colour: Colour | None) -> str:
    return "" if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)
