"""The pictures that set ranges: rare classes are among them, and there are as many as it takes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.export.calibration import FIRST, by_class, choose_calibration

NAMES = ["steel", "rust", "crack"]


@pytest.fixture(scope="module")
def rare():
    """400 dark pictures; 100 have a spot of rust, three a bright crack."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (400, 32, 32, 3)).astype(np.uint8)
    masks = np.zeros((400, 32, 32), np.uint8)
    masks[::4, 4:8, 4:8] = 1
    for index in (17, 201, 333):
        masks[index, 20:22], images[index, 20:22] = 2, 255
    return images, masks


def test_every_class_is_shown_from_the_first_pictures_on(rare):
    order = by_class(rare[1], 3)
    assert sorted(order) == list(range(400))
    assert {17, 201, 333} <= set(order[:12]) and np.array_equal(order, by_class(rare[1], 3))
    shown = [(rare[1][order[:60]] == number).any((1, 2)).sum() for number in (1, 2)]
    assert shown == [pytest.approx(20, abs=8), 3]


def test_a_picture_with_nothing_to_judge_is_drawn_too():
    masks = np.full((5, 8, 8), 255, np.uint8)
    assert sorted(by_class(masks, 2)) == [0, 1, 2, 3, 4]


def test_pictures_are_added_until_the_ranges_stay(rare):
    images, masks = rare
    chosen = choose_calibration(images, masks, class_names=NAMES, model=tiny_net())
    growth = chosen.record["share_of_ranges_widened"]
    assert FIRST < chosen.record["pictures"] < 256 == 2 * 128
    assert len(chosen.pictures) == chosen.record["pictures"] == int(list(growth)[-1])
    assert list(growth.values())[-1] <= 0.05
    assert chosen.record["pictures_with_class"]["crack"] == 3
    # a hundred taken evenly show one crack at most, and none of its brightness may be lost
    assert chosen.pictures.max() == 255


def test_a_count_is_what_is_taken(rare):
    chosen = choose_calibration(*rare, class_names=NAMES, count=30)
    assert chosen.record["pictures"] == 30 == len(chosen.pictures)
    assert "share_of_ranges_widened" not in chosen.record
