"""Turned copies of a split, and pictures that show nothing left out."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.data.arrays import SegmentationArrays
from tfprune.data.copies import COPIES, add_copies, drop_empty
from tfprune.errors import InputError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 5, 7, 2), dtype=np.uint8)
    return SegmentationArrays(("a", "b", "c"), images, images[..., 0] // 100)


def test_every_kind_turns_picture_and_mask_alike(arrays):
    copied = add_copies(arrays, list(COPIES), seed=1)
    assert len(copied) == 15 and copied.stems[:4] == ("a", "b", "c", "a_horizontal")
    np.testing.assert_array_equal(copied.images[..., 0] // 100, copied.masks)
    np.testing.assert_array_equal(copied.images[4], arrays.images[1][:, ::-1])
    np.testing.assert_array_equal(copied.images[7], arrays.images[1][::-1])
    np.testing.assert_array_equal(copied.images[10], arrays.images[1][::-1, ::-1])


def test_a_roll_keeps_every_pixel_and_is_a_function_of_the_seed(arrays):
    one, same, other = (add_copies(arrays, ["roll"], seed=seed).images[3:] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    for rolled, given in zip(one, arrays.images, strict=True):
        shifts = [(y, x) for y in range(5) for x in range(7) if np.array_equal(np.roll(given, (y, x), (0, 1)), rolled)]
        assert len(shifts) == 1


def test_pictures_without_foreground_are_left_out(arrays):
    masks = np.zeros((3, 5, 7), np.uint8)
    masks[1, 2, 2], masks[2] = 1, 255
    left = drop_empty(SegmentationArrays(arrays.stems, arrays.images, masks))
    assert left.stems == ("b",) and len(left.images) == len(left.masks) == 1
    with pytest.raises(InputError, match="every train mask shows class 0 alone"):
        drop_empty(SegmentationArrays(arrays.stems, arrays.images, 0 * masks))


def test_a_wrong_kind_is_answered(arrays):
    with pytest.raises(InputError, match="unknown copy 'horizonal'; did you mean 'horizontal'"):
        add_copies(arrays, ["horizonal"], seed=0)
