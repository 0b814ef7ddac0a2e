"""Class maps of pictures that are larger than what a file takes, tile by tile at full resolution."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from tfprune.errors import InputError


def classes_in_tiles(
    classify: Callable[[np.ndarray], np.ndarray], image: np.ndarray, *, size: tuple[int, int], overlap: int
) -> np.ndarray:
    """Return the class map uint8 (H, W) of a picture uint8 (H, W, C), put together from overlapping tiles.

    A pixel has the class it got in the tile in which it lies deepest: nets see too little at their borders. A
    picture that is smaller than a tile is continued with its border pixels.

    Args:
        classify: uint8 (h, w, C) -> uint8 (h, w), of the size of a tile.
        size: (h, w) of a tile.
        overlap: pixels that neighbouring tiles share, or a few more.

    Raises:
        InputError: the overlap is not from 0 to half of a tile.
    """
    if not 0 <= overlap <= min(size) // 2:
        raise InputError(f"overlap is {overlap} pixels; the file takes tiles of {size}: give 0 to {min(size) // 2}")
    height, width = image.shape[:2]
    missing = [max(0, side - have) for side, have in zip(size, (height, width), strict=True)]
    padded = np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")
    classes = np.empty(padded.shape[:2], np.uint8)
    rows, columns = (_cuts(have, side, overlap) for have, side in zip(padded.shape[:2], size, strict=True))
    for top, (first_row, last_row) in rows.items():
        for left, (first_column, last_column) in columns.items():
            tile = classify(np.ascontiguousarray(padded[top : top + size[0], left : left + size[1]]))
            own = tile[first_row - top : last_row - top, first_column - left : last_column - left]
            classes[first_row:last_row, first_column:last_column] = own
    return classes[:height, :width]


def _cuts(length: int, side: int, overlap: int) -> dict[int, tuple[int, int]]:
    """Return start of a tile -> the part (first, behind the last) it decides, along one axis.

    >>> _cuts(10, 4, 1)
    {0: (0, 3), 3: (3, 6), 6: (6, 10)}
    """
    count = max(1, -(-(length - overlap) // (side - overlap)))
    starts = [round(index * (length - side) / max(1, count - 1)) for index in range(count)]
    ends = [(start + side + following) // 2 for start, following in pairwise(starts)]
    return dict(zip(starts, zip([0, *ends], [*ends, length], strict=True), strict=True))
