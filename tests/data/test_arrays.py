"""Arrays in memory: sizes, ids, and the record of a set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.small_set import write_set
from tfprune.data.arrays import describe_set, load_arrays
from tfprune.data.images import read_image, read_mask
from tfprune.data.sets import open_set
from tfprune.errors import InputError
from tfprune.records import plain


@pytest.mark.parametrize("channels", [1, 3])
def test_at_their_own_size_arrays_are_the_files(tmp_path, channels):
    found = open_set(write_set(tmp_path / "a", {"train": 5}), val_share=0, test_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(24, 32), channels=channels)
    assert loaded.images.shape == (5, 24, 32, channels)
    assert loaded.images.dtype == loaded.masks.dtype == np.uint8
    for number, pair in enumerate(found.splits["train"]):
        assert loaded.stems[number] == pair.stem
        np.testing.assert_array_equal(loaded.images[number], read_image(pair.image, channels))
        np.testing.assert_array_equal(loaded.masks[number], read_mask(pair.mask, found.classes))


def test_resizing_averages_pictures_and_keeps_ids(tmp_path):
    found = open_set(write_set(tmp_path / "a", {"train": 2}, class_names=["a", "b", "c"]), val_share=0, test_share=0)
    image = np.zeros((24, 32, 3), np.uint8)
    image[::2] = 200
    pair = found.splits["train"][0]
    Image.fromarray(image).save(pair.image, quality=100, subsampling=0)
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 16:] = 2
    Image.fromarray(mask).save(pair.mask)
    loaded = load_arrays([pair], found.classes, size=(6, 8), channels=3)
    assert np.abs(loaded.images[0, 1:-1].astype(int) - 100).max() <= 12  # without antialiasing it would be 0 or 200
    assert loaded.masks[0].tolist() == [[0] * 4 + [2] * 4] * 6


def test_more_classes_in_the_masks_than_in_the_table(tmp_path):
    found = open_set(write_set(tmp_path / "a", {"train": 3}, class_names=["a", "b", "c"]), class_names=["a", "b"])
    with pytest.raises(InputError, match=r"p\d+\.png: holds class ids that are in no class: 2"):
        load_arrays(found.splits["train"], found.classes, size=(24, 32), channels=3)


def test_a_mask_of_another_size(tmp_path):
    found = open_set(write_set(tmp_path / "a", {"train": 3}), val_share=0, test_share=0)
    pair = found.splits["train"][1]
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(pair.mask)
    with pytest.raises(InputError, match=r"p001\.png: is 16x12 pixels \(width x height\), its image is 32x24"):
        load_arrays(found.splits["train"], found.classes, size=(24, 32), channels=3)


def test_the_record_of_a_set(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 3, "val": 2, "test": 2}, ignore_index=255)
    found = open_set(folder)
    mask = np.zeros((24, 32), np.uint8)
    mask[:6], mask[6:12] = 255, 1
    for pair in found.splits["train"]:
        Image.fromarray(mask).save(pair.mask)
    loaded = load_arrays(found.splits["train"], found.classes, size=(24, 32), channels=3)
    record = plain(describe_set(found, {"train": loaded}))
    assert record["splits"]["train"] == {
        "images": 3,
        "size": [24, 32],
        "class_shares": {"background": 0.666667, "corrosion": 0.333333},
        "ignored_ratio": 0.25,
    }
    assert record["splits"]["val"] == {"images": 2}
    assert record["class_names"] == ["background", "corrosion"]
