"""What is answered for a picture: of one file, or the mean of several, and cleaned afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.export import CLASS_MAPS
from tfprune.verification.runtimes import TFLiteModel


@dataclass(frozen=True)
class PostProcessing:
    """What is done to an answer.

    Attributes:
        min_pixels: connected regions of fewer pixels become class 0; 0 keeps all.
        random_walker: (low, high): where all but class 0 have less than `low` together it is class 0, where a class
            has more than `high` it is that class, and random walks decide in between; None asks the largest.
        blank_is_empty: a picture of one single value, in which nothing was measured, is class 0 everywhere.
    """

    min_pixels: int = 0
    random_walker: tuple[float, float] | None = None
    blank_is_empty: bool = False

    def __post_init__(self) -> None:
        if self.min_pixels < 0:
            raise InputError(f"min_pixels is {self.min_pixels}; give a number of pixels from 0")
        if self.random_walker is not None and not 0 < self.random_walker[0] < self.random_walker[1] < 1:
            low, high = self.random_walker
            raise InputError(f"random_walker takes two probabilities, 0 < low < high < 1, not {low} and {high}")


AS_IT_IS = PostProcessing()
"""Nothing is done."""


def answer(models: Sequence[TFLiteModel], image: np.ndarray, *, processing: PostProcessing = AS_IT_IS) -> np.ndarray:
    """Return class ids, uint8 (H, W), of a picture, uint8 (H, W, C): of the mean of the models' probabilities.

    Raises:
        InputError: a file gives class maps, and probabilities are needed; or the files do not fit each other.
    """
    if processing.blank_is_empty and image.min() == image.max():
        return np.zeros(image.shape[:2], np.uint8)
    if len(models) == 1 and processing.random_walker is None:
        ids = models[0].classes_of(image)
    else:
        _check_alike(models)
        probabilities = np.mean([probabilities_of(model, image) for model in models], axis=0)
        if processing.random_walker is None:
            ids = probabilities.argmax(axis=-1).astype(np.uint8)
        else:
            ids = walk(probabilities, *processing.random_walker)
    return drop_small(ids, processing.min_pixels) if processing.min_pixels else ids


def probabilities_of(model: TFLiteModel, image: np.ndarray) -> np.ndarray:
    """Return the probability of each class, float32 (H, W, K); K is 2 for a file with one output.

    Raises:
        InputError: the file gives a class map.
    """
    if model.head in CLASS_MAPS:
        raise InputError(f"{model.path} gives class maps, and probabilities are needed; export it with another head")
    values = model.predict(image).astype(np.float32)
    scale, zero_point = model.quantization
    values = (values - zero_point) * np.float32(scale) if scale else values
    if values.shape[-1] == 1:
        second = values if model.head == "probabilities" else 1 / (1 + np.exp(-values))
        return np.concatenate([1 - second, second], axis=-1)
    if model.head == "probabilities":
        return values
    grown = np.exp(values - values.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def walk(probabilities: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return class ids, uint8 (H, W), of probabilities (H, W, K): sure pixels, and random walks between them.

    Source: Grady 2006, "Random walks for image segmentation", in the form of scikit-image, on the probability of
    all classes but class 0. Where no class but one is sure, the rest has the most probable class. With two classes
    and `high` .5 the walks can only add to the other class: in a picture that the net has no answer to they may add
    all of it (docs/results/systems.md).
    """
    random_walker = _of_scikit_image("segmentation", "random_walker")
    foreground = 1 - probabilities[..., 0]
    likely = probabilities.argmax(axis=-1)
    seeds = np.where(foreground < low, 1, 0)
    for number in range(1, probabilities.shape[-1]):
        seeds[probabilities[..., number] > high] = number + 1
    present = np.unique(seeds[seeds > 0])
    if (seeds > 0).all() or len(present) < 2:
        return np.where(seeds > 0, seeds - 1, likely).astype(np.uint8)
    # scikit-image takes labels 1, 2, ... without gaps; pixels that no seed can be reached from come back as -1
    walked = random_walker(foreground, np.searchsorted(present, seeds) + 1 - (seeds == 0), mode="cg_j", tol=1e-8)
    found = present[np.maximum(walked, 1) - 1] - 1
    return np.where(walked > 0, found, likely).astype(np.uint8)


def drop_small(ids: np.ndarray, min_pixels: int) -> np.ndarray:
    """Return class ids, uint8 (H, W), in which connected regions (by corners too) of fewer pixels are class 0.

    >>> drop_small(np.array([[1, 0, 2], [1, 0, 0]], np.uint8), 2).tolist()
    [[1, 0, 0], [1, 0, 0]]
    """
    regions = _of_scikit_image("measure", "label")(ids, background=0, connectivity=2)
    small = np.bincount(regions.ravel()) < min_pixels
    small[0] = False
    return np.where(small[regions], 0, ids).astype(np.uint8)


def _of_scikit_image(module: str, name: str) -> Any:
    try:
        return getattr(import_module(f"skimage.{module}"), name)
    except ImportError:  # a board need not have it
        raise InputError(
            "random walks and minimum regions need scikit-image; pip install scikit-image, or leave them out"
        ) from None


def _check_alike(models: Sequence[TFLiteModel]) -> None:
    first = models[0]
    for model in models[1:]:
        ours, theirs = ((one.input_size, one.channels, one.outputs) for one in (first, model))
        if ours != theirs or (model.card and first.card and model.card["classes"] != first.card["classes"]):
            raise InputError(
                f"{model.path} and {first.path} cannot answer together: they take or give different things "
                "(picture size, channels, classes)"
            )
