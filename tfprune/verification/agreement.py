"""How often two class maps say the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """Share of equal pixels over all pictures, and in the picture where it is lowest (both 0..1)."""

    pixels: int
    equal_ratio: float
    worst_image_ratio: float


def compare_classes(first: np.ndarray, second: np.ndarray) -> Agreement:
    """Compare two stacks of class maps, uint8 (N, H, W), of the same pictures. Every pixel counts.

    Raises:
        InputError: the shapes differ, or there is nothing to compare.

    >>> first = np.array([[[0, 1]], [[1, 1]]], np.uint8)
    >>> compare_classes(first, np.array([[[0, 1]], [[0, 1]]], np.uint8))
    Agreement(pixels=4, equal_ratio=0.75, worst_image_ratio=0.5)
    """
    if first.shape != second.shape or first.ndim != 3 or not first.size:
        raise InputError(f"class maps of {first.shape} and {second.shape}; give two equal (N, H, W) that are not empty")
    equal = (first == second).mean(axis=(1, 2))
    return Agreement(pixels=int(first.size), equal_ratio=float(equal.mean()), worst_image_ratio=float(equal.min()))
