"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


def real_data(name: str) -> Path:
    """Return the folder of a real set, or skip the test with the reason."""
    root = Path(os.environ.get("TFPRUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name / "dataset.json").exists():
        pytest.skip(f"the real set '{name}' is not here; set TFPRUNE_DATA to the folder that holds it")
    return root / name


@pytest.fixture(scope="session")
def discs() -> tuple[np.ndarray, np.ndarray]:
    """48 grey-on-dark discs: images uint8 (48, 32, 32, 3) and masks uint8 (48, 32, 32) of 2 classes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    images = rng.integers(0, 90, (48, 32, 32, 3)).astype(np.uint8)
    masks = np.zeros((48, 32, 32), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        y, x, radius = *rng.integers(8, 24, 2), rng.integers(4, 8)
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        mask[disc] = 1
        image[disc] += 100
    return images, masks
