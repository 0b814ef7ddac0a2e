"""Pictures and masks of one split as arrays in memory, all of one size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tfprune.data.faults import FileFault
from tfprune.data.folders import Pair
from tfprune.data.images import read_image, read_mask
from tfprune.data.masks import ClassTable
from tfprune.data.sets import SegmentationSet
from tfprune.records import IGNORE_ID


@dataclass(frozen=True)
class SegmentationArrays:
    """Images uint8 (N, H, W, C) and masks uint8 (N, H, W) of class ids, `IGNORE_ID` where not judged."""

    stems: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def load_arrays(
    pairs: Sequence[Pair], classes: ClassTable, *, size: tuple[int, int], channels: int
) -> SegmentationArrays:
    """Return all pairs resized to `size` (height, width), in the order given.

    Pictures are resized bilinearly with antialiasing, masks take the nearest pixel. The aspect is not kept.

    Raises:
        InputError: a file cannot be read, a mask is of another size than its picture, or holds ids in no class.
    """
    height, width = size
    images = np.empty((len(pairs), height, width, channels), np.uint8)
    masks = np.empty((len(pairs), height, width), np.uint8)

    def load(position: int) -> None:
        images[position], masks[position] = _load_pair(pairs[position], classes, (width, height), channels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(load, range(len(pairs))):  # raises the first fault in the order of the pairs
            pass
    return SegmentationArrays(tuple(pair.stem for pair in pairs), images, masks)


def _load_pair(
    pair: Pair, classes: ClassTable, width_height: tuple[int, int], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    image = read_image(pair.image, channels)
    mask = read_mask(pair.mask, classes, judged=pair.judged)
    if image.shape[:2] != mask.shape:
        raise FileFault("mask_size", str(pair.mask), mask_size_message(image.shape, mask.shape))
    if mask.shape != width_height[::-1]:
        picture = Image.fromarray(image[..., 0] if channels == 1 else image)
        image = np.asarray(picture.resize(width_height, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.fromarray(mask).resize(width_height, Image.Resampling.NEAREST))
    return image.reshape(*mask.shape, channels), mask


def mask_size_message(image_shape: Sequence[int], mask_shape: Sequence[int]) -> str:
    """Return the text for a mask that is not as large as its picture; shapes begin with height and width."""
    return f"is {mask_shape[1]}x{mask_shape[0]} pixels (width x height), its image is {image_shape[1]}x{image_shape[0]}"


def count_classes(masks: np.ndarray, classes: ClassTable) -> dict[str, int]:
    """Return the number of pixels of each class; ignored ones are counted nowhere.

    >>> count_classes(np.array([[0, 1, 1, 255]], np.uint8), ClassTable(("steel", "rust")))
    {'steel': 1, 'rust': 2}
    """
    counts = np.bincount(masks.ravel(), minlength=IGNORE_ID + 1)
    return {name: int(counts[number]) for number, name in enumerate(classes.names)}


def class_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Return each class's share (0-1) of the judged pixels, rounded to six digits.

    >>> class_shares({"steel": 3, "rust": 1})
    {'steel': 0.75, 'rust': 0.25}
    """
    total = sum(counts.values())
    return {name: round(count / total, 6) if total else 0.0 for name, count in counts.items()}


def describe_set(found: SegmentationSet, arrays: Mapping[str, SegmentationArrays]) -> dict[str, Any]:
    """Return the record of a data set: classes, counts per split, and of each loaded split size and class shares."""
    splits: dict[str, dict[str, Any]] = {name: {"images": len(pairs)} for name, pairs in found.splits.items()}
    for name, loaded in arrays.items():
        splits[name] = {
            "images": len(loaded),
            "size": list(loaded.masks.shape[1:]),
            "class_shares": class_shares(count_classes(loaded.masks, found.classes)),
            "ignored_ratio": round(float(np.mean(loaded.masks == IGNORE_ID)), 6) if len(loaded) else 0.0,
        }
    return {
        "name": found.name,
        "class_names": list(found.classes.names),
        "channels": found.channels,
        "ignore_index": found.classes.ignore_index,
        "splits": splits,
    }
