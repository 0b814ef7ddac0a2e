"""The generated branches: exact and thin, the same at every size, and not to be told by brightness."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tfprune.data import GENERATORS
from tfprune.data.branches import draw_branches, generate_branches
from tfprune.errors import InputError

COUNTS = {"train": 3, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def drawn():
    pairs = [draw_branches(np.random.default_rng((3, index)), size=(96, 96)) for index in range(40)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def test_lines_are_thin_and_hang_together(drawn):
    _, masks = drawn
    assert 0.05 < masks.mean() < 0.25
    half_width = [ndimage.distance_transform_cdt(mask, "chessboard").max() for mask in masks if mask.any()]
    assert np.median(half_width) <= 4
    pieces = [ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks]
    assert np.mean(pieces) < 4, "a tree is one piece, or a few where it leaves the picture"


def test_branches_are_brighter_than_beside_them_but_brightness_does_not_tell(drawn):
    images, masks = drawn
    grey = images.mean(-1)
    brighter = []
    for picture, mask in zip(grey, masks, strict=True):
        ring = ndimage.binary_dilation(mask, iterations=4) & (mask == 0)
        if mask.sum() > 50:
            brighter.append(picture[mask == 1].mean() > picture[ring].mean())
    assert all(brighter)
    overlaps = [((grey > cut) & (masks == 1)).sum() / ((grey > cut) | (masks == 1)).sum() for cut in range(20, 200, 5)]
    assert max(overlaps) < 0.3


def test_the_same_branches_at_every_size():
    for index in range(5):
        small = draw_branches(np.random.default_rng(index), size=(64, 80))[1]
        large = draw_branches(np.random.default_rng(index), size=(192, 240))[1]
        assert (small == large[1::3, 1::3]).mean() > 0.94


@pytest.mark.parametrize("size", [(16, 16), (33, 71), (90, 40)])
def test_any_size_can_be_drawn(size):
    image, mask = draw_branches(np.random.default_rng(1), size=size)
    assert image.shape == (*size, 3) and mask.shape == size and image.dtype == mask.dtype == np.uint8


def test_a_set_on_disk_is_what_is_drawn(tmp_path):
    folder = GENERATORS["branches"](tmp_path / "set", classes=2, counts=COUNTS, size=(32, 48), seed=7)
    record = json.loads((folder / "dataset.json").read_text())
    assert record["class_names"] == ["background", "branch"] and record["splits"] == COUNTS
    assert len(list(folder.glob("*/masks/*.png"))) == 6
    expected = draw_branches(np.random.default_rng((7, 2, 1)), size=(32, 48))
    for part, pixels in zip(("images", "masks"), expected, strict=True):
        with Image.open(folder / "test" / part / "0001.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert generate_branches(folder, counts=COUNTS, size=(32, 48), seed=7) == folder
    with pytest.raises(InputError, match="other parameters"):
        generate_branches(folder, counts=COUNTS, size=(32, 48), seed=8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"classes": 3}, r"accepted: 2 \(background, branch\)"), ({"size": (8, 32)}, "branches: a side of size is 8")],
)
def test_wrong_parameters_are_named(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        generate_branches(tmp_path / "set", **({"counts": COUNTS} | wrong))
    assert not (tmp_path / "set").exists()
