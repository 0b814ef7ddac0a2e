"""The generated strips: half of them sound, four kinds of defects that differ, and masks as run lengths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tfprune.data import check_folder, load_arrays, open_set
from tfprune.data.strips import CLASS_NAMES, draw_strip, generate_strips
from tfprune.errors import InputError

COUNTS = {"train": 3, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def drawn():
    pairs = [draw_strip(np.random.default_rng((9, index)), size=(64, 400)) for index in range(120)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def test_half_of_the_strips_are_sound_and_every_kind_occurs(drawn):
    _, masks = drawn
    sound = (masks == 0).all(axis=(1, 2)).mean()
    assert 0.4 < sound < 0.62
    shown = [(masks == number).any(axis=(1, 2)).mean() for number in range(1, 5)]
    assert min(shown) > 0.03 and np.argmax(shown) == 2, "scratches are the most frequent"
    assert 0.01 < (masks > 0).mean() < 0.08


def test_the_kinds_differ_in_form(drawn):
    _, masks = drawn
    tall, area = {}, {}
    for number in range(1, 5):
        pieces = [piece for mask in masks for piece in ndimage.find_objects(ndimage.label(mask == number)[0])]
        heights, widths = np.array([[s.stop - s.start for s in piece] for piece in pieces]).T
        tall[number] = np.median(heights / widths)
        area[number] = np.median([(mask == number).sum() for mask in masks if (mask == number).any()])
    assert tall[2] > 2 > 1 > 0.5 > tall[3], "cracks lie across the strip, scratches along it"
    assert area[1] < area[3] < area[4]


def test_brightness_alone_does_not_tell_a_defect(drawn):
    images, masks = drawn
    dark = [((images < cut) & (masks > 0)).sum() / ((images < cut) | (masks > 0)).sum() for cut in range(20, 200, 10)]
    bright = [((images > cut) & (masks > 0)).sum() / ((images > cut) | (masks > 0)).sum() for cut in range(60, 250, 10)]
    assert max(*dark, *bright) < 0.3


def test_the_same_strip_at_every_size():
    for index in range(6):
        small = draw_strip(np.random.default_rng(index), size=(32, 200))[1]
        large = draw_strip(np.random.default_rng(index), size=(96, 600))[1]
        assert (small == large[1::3, 1::3]).mean() > 0.95


def test_a_set_on_disk_is_what_is_drawn(tmp_path):
    folder = generate_strips(tmp_path / "set", counts=COUNTS, size=(32, 200), seed=4)
    assert not (folder / "train" / "masks").exists()
    found = open_set(folder)
    assert found.classes.names == CLASS_NAMES and found.channels == 1
    for number, split in enumerate(COUNTS):
        loaded = load_arrays(found.splits[split], found.classes, size=(32, 200), channels=1)
        pairs = [draw_strip(np.random.default_rng((4, number, i)), size=(32, 200)) for i in range(COUNTS[split])]
        np.testing.assert_array_equal(loaded.images[..., 0], [image for image, _ in pairs])
        np.testing.assert_array_equal(loaded.masks, [mask for _, mask in pairs])
    assert not check_folder(folder).findings
    (folder / "dataset.json").rename(folder / "dataset.json.partial")
    (folder / "test" / "masks.csv").unlink()
    generate_strips(folder, counts=COUNTS, size=(32, 200), seed=4)
    assert (folder / "test" / "masks.csv").exists()
    with pytest.raises(InputError, match="made with other parameters"):
        generate_strips(folder, counts=COUNTS, size=(32, 200), seed=5)


def test_other_classes_are_answered(tmp_path):
    with pytest.raises(InputError, match=r"strips: classes is 3; accepted: 5 \(background, pits, cracks"):
        generate_strips(tmp_path, classes=3, counts=COUNTS)
