"""Which pictures set the ranges of an integer file, and how many.

A class that few pictures show may be in none of a hundred taken evenly; where it is bright, its values are cut off. So
pictures are taken class by class, and as many as it takes until more of them hardly widen the ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.arrays import SegmentationArrays, load_arrays
from tfprune.data.sets import open_set

FIRST, MOST = 16, 256
"""Pictures that ranges are looked at first, and at most."""

_WIDER, _FEW = 0.02, 0.05
"""Ranges have converged when twice the pictures widen at most 5 % of them by more than 2 %."""

_LOADED = 512


@dataclass(frozen=True)
class Calibration:
    """The pictures (N, H, W, C) that set ranges, and the record of how they were chosen."""

    pictures: np.ndarray
    record: dict[str, Any]


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` of the images, evenly spread over them in order; the same ones each time.

    >>> spread(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    chosen = np.linspace(0, len(images) - 1, min(count, len(images)))
    return images[chosen.round().astype(int)]


def by_class(masks: np.ndarray, classes: int) -> np.ndarray:
    """Return the indices of all pictures, drawn from one class after the other, the rarest first; always the same.

    The first n of them show every class about n / classes times, as far as there are pictures of it.

    Args:
        masks: uint8 (N, H, W), class ids.
        classes: number of classes.
    """
    order = np.random.default_rng(0).permutation(len(masks))
    shown = np.stack([(masks[order] == number).any((1, 2)) for number in range(classes)], 1)
    queues = [list(order[shown[:, number]]) for number in np.argsort(shown.sum(0), kind="stable")]
    queues.append(list(order))  # pictures without any class that is judged
    chosen: dict[int, None] = {}
    while any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue:
                chosen[queue.pop(0)] = None
    return np.asarray(list(chosen), int)


def choose_calibration(
    images: np.ndarray, masks: np.ndarray, *, class_names: Sequence[str], count: int | None = None, model: Any = None
) -> Calibration:
    """Choose pictures class by class, `count` of them or until the ranges of `model` converge.

    Args:
        images: uint8 (N, H, W, C) of the training split.
        masks: uint8 (N, H, W) of class ids.
        class_names: names of class 0, 1, ...
        count: how many; None: until twice as many widen at most 5 % of the model's ranges by more than 2 %,
            256 at most.
        model: a functional tf_keras model that takes the images; not needed with a count.
    """
    order = by_class(masks, len(class_names))
    record: dict[str, Any] = {"chosen": "by class, the rarest first"}
    if count is None:
        count, growth = _converged(model, images[order[:MOST]])
        record["share_of_ranges_widened"] = growth
    picked = order[:count]
    shown = {name: int((masks[picked] == number).any((1, 2)).sum()) for number, name in enumerate(class_names)}
    record |= {"pictures": len(picked), "pictures_with_class": shown}
    return Calibration(images[picked], record)


def _converged(model: Any, images: np.ndarray) -> tuple[int, dict[str, float]]:
    """Return how many of the images it takes, and number of pictures -> share of the ranges that they widened."""
    from tfprune.quantization.training import observe_ranges

    observe = observe_ranges(model)
    seen, ranges, growth = min(FIRST, len(images)), observe(images[:FIRST]), {}
    while seen < len(images):
        more = observe(images[seen : 2 * seen])
        wider = np.stack([np.minimum(ranges[:, 0], more[:, 0]), np.maximum(ranges[:, 1], more[:, 1])], 1)
        before, after = np.ptp(ranges, 1), np.ptp(wider, 1)
        seen, ranges = min(2 * seen, len(images)), wider
        share = float((after > (1 + _WIDER) * np.maximum(before, 1e-12)).mean())
        growth[str(seen)] = round(share, 4)
        if share <= _FEW:
            break
    return seen, growth


def read_calibration(
    folder: str | Path,
    *,
    size: tuple[int, int],
    channels: int,
    class_names: list[str] | None = None,
    split_file: str | None = None,
) -> tuple[tuple[str, ...], SegmentationArrays]:
    """Return the class names of a set, and up to 512 of its train pictures, evenly spread, with their masks at `size`.

    Raises:
        InputError: when the folder is no data set.
    """
    found = open_set(folder, class_names=class_names, split_file=split_file)
    pairs = found.splits["train"]
    chosen = [pairs[index] for index in spread(np.arange(len(pairs)), _LOADED)]
    return found.classes.names, load_arrays(chosen, found.classes, size=size, channels=channels)
