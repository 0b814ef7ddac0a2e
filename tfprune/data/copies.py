"""A train split made larger by turned copies of all its pictures, or smaller by leaving out those that show nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tfprune.data.arrays import SegmentationArrays
from tfprune.errors import InputError, look_up
from tfprune.records import IGNORE_ID

Turn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _roll(stacked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shifts = rng.integers(0, stacked.shape[1:3])
    return np.roll(stacked, shifts, axis=(1, 2))


COPIES: dict[str, Turn] = {
    "horizontal": lambda stacked, rng: stacked[:, :, ::-1],
    "vertical": lambda stacked, rng: stacked[:, ::-1],
    "both": lambda stacked, rng: stacked[:, ::-1, ::-1],
    "roll": _roll,
}
"""Name of a copy -> what it does to (1, H, W, ...); `roll` shifts by a random way, what leaves comes in again."""


def add_copies(arrays: SegmentationArrays, kinds: Sequence[str], *, seed: int) -> SegmentationArrays:
    """Return the pictures and masks, and behind them a copy of all for each of `kinds`.

    Raises:
        InputError: a kind is not in `COPIES`.

    >>> pixels = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    >>> arrays = SegmentationArrays(("a",), pixels[..., None], pixels)
    >>> add_copies(arrays, ["horizontal"], seed=0).masks.tolist()
    [[[0, 1], [2, 3]], [[1, 0], [3, 2]]]
    """
    stems, images, masks = list(arrays.stems), [arrays.images], [arrays.masks]
    for number, kind in enumerate(kinds):
        turn = look_up("copy", kind, COPIES)
        for index, stem in enumerate(arrays.stems):
            for stacked, given in ((images, arrays.images), (masks, arrays.masks)):
                # the same generator for a picture and its mask
                rng = np.random.default_rng((seed, number, index))
                stacked.append(turn(given[index : index + 1], rng))
            stems.append(f"{stem}_{kind}")
    return SegmentationArrays(tuple(stems), np.concatenate(images), np.concatenate(masks))


def drop_empty(arrays: SegmentationArrays) -> SegmentationArrays:
    """Return the pictures whose masks show another class than class 0.

    Raises:
        InputError: when no picture is left.
    """
    shown = ((arrays.masks != 0) & (arrays.masks != IGNORE_ID)).any(axis=(1, 2))
    if not shown.any():
        raise InputError("data.drop_empty: every train mask shows class 0 alone")
    stems = tuple(stem for stem, keep in zip(arrays.stems, shown, strict=True) if keep)
    return SegmentationArrays(stems, arrays.images[shown], arrays.masks[shown])
