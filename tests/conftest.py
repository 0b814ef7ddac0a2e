"""Fixtures shared by all tests."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import yaml


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


TINY = {
    "name": "tiny",
    "data": {
        "generate": {"set": "steel", "classes": 2, "counts": {"train": 16, "val": 8, "test": 9}},
        "size": [32, 32],
        "augment": ["HorizontalFlip"],
        "batch_size": 8,
    },
    "architecture": {"name": "plain_unet", "width": 8, "depth": 2},
    "loss": [{"cross_entropy": {}}, {"dice": {}}],
    "training": {"epochs": 2},
    "pruning": {"epochs": 2, "final_sparsity": 0.5, "prunes": 2},
    "fine_tuning": {"epochs": 2},
    "channels": {"way": "one_shot", "epochs": 1, "ratio": 0.5, "multiple_of": 1},
    "quantization": {"epochs": 1},
    "verification": {"latency_runs": 3, "target": "coral"},
}


@pytest.fixture
def tiny_recipe():
    return copy.deepcopy(TINY)


@pytest.fixture
def recipe_path(tmp_path, tiny_recipe):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The run folder of an undisturbed run of the tiny recipe."""
    from tfprune.recipe import check_recipe
    from tfprune.run import run_recipe

    return run_recipe(check_recipe(copy.deepcopy(TINY)), out=tmp_path_factory.mktemp("runs"))
