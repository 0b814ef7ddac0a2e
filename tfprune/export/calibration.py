"""Which pictures set the ranges of an integer file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfprune.data.arrays import load_arrays
from tfprune.data.sets import open_set


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` of the images, evenly spread over them in order; the same ones each time.

    >>> spread(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    chosen = np.linspace(0, len(images) - 1, min(count, len(images)))
    return images[chosen.round().astype(int)]


def read_calibration(
    folder: str | Path, *, size: tuple[int, int], channels: int, count: int, class_names: list[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names of a set, and `count` of its train pictures at `size`, uint8 (N, H, W, C).

    Raises:
        InputError: when the folder is no data set.
    """
    found = open_set(folder, class_names=class_names)
    pairs = found.splits["train"]
    chosen = [pairs[index] for index in spread(np.arange(len(pairs)), count)]
    return found.classes.names, load_arrays(chosen, found.classes, size=size, channels=channels).images
