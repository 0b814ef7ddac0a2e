"""Confusion counts of anything that turns a picture into a class map, over a test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError
from tfprune.objectives.counts import count_confusions


@dataclass(frozen=True)
class Quality:
    """What was predicted, uint8 (N, H, W), and its confusion counts, int64 (N, K, K), rows are the truth."""

    confusions: np.ndarray
    predicted: np.ndarray


def measure_quality(
    classify: Callable[[np.ndarray], np.ndarray], images: np.ndarray, masks: np.ndarray, *, classes: int
) -> Quality:
    """Classify every picture and count against its mask; pixels of IGNORE_ID are not judged.

    Args:
        classify: uint8 (H, W, C) -> uint8 (H, W), such as `TFLiteModel.classes_of`.
        images: uint8 (N, H, W, C).
        masks: uint8 (N, H, W).
        classes: K, two for a model with one output.

    Raises:
        InputError: there is nothing to judge, or a size or class id does not fit.
    """
    if not len(images) or len(images) != len(masks):
        raise InputError(f"{len(images)} images and {len(masks)} masks; give one mask per image, and at least one")
    predicted = np.empty(masks.shape, np.uint8)
    for index, image in enumerate(images):
        ids = classify(image)
        if ids.shape != masks.shape[1:]:
            raise InputError(f"image {index}: the class map is {ids.shape} and the mask is {masks.shape[1:]}")
        predicted[index] = ids
    return Quality(confusions=count_confusions(masks, predicted, classes), predicted=predicted)
