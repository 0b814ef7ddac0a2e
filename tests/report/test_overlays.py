"""Overlays: colours land on the pixels they belong to."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tfprune.errors import InputError
from tfprune.records import IGNORE_ID
from tfprune.report.overlays import (
    OUTCOME_COLOURS,
    PALETTE,
    as_data_uri,
    class_colours,
    fit_for_screen,
    overlay_classes,
    overlay_outcomes,
)


def test_class_zero_shows_the_image_and_others_are_tinted_by_opacity() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    classes_map = np.zeros((8, 8), np.uint8)
    classes_map[2:7, 2:7] = 1
    drawn = overlay_classes(image, classes_map, [None, (200, 0, 100)], opacity=0.5)
    assert drawn.dtype == np.uint8
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[4, 4].tolist() == [150, 50, 100]
    assert drawn[2, 4].tolist() == [200, 0, 100], "the outline is opaque"
    assert image.max() == 100, "the image itself is left alone"


def test_grey_images_and_default_colours() -> None:
    classes_map = np.array([[0, 2], [2, 2]], np.uint8)
    flat, with_axis = np.full((2, 2), 10, np.uint8), np.full((2, 2, 1), 10, np.uint8)
    drawn = overlay_classes(flat, classes_map, opacity=1.0)
    assert np.array_equal(drawn, overlay_classes(with_axis, classes_map, opacity=1.0))
    assert drawn[0, 0].tolist() == [10, 10, 10]
    assert tuple(drawn[1, 1]) == PALETTE[1]


def test_outcomes_mark_found_false_alarm_missed_and_nothing() -> None:
    truth = np.array([[1, 0, 1, 0]], np.uint8)
    predicted = np.array([[1, 1, 0, 0]], np.uint8)
    drawn = overlay_outcomes(np.full((1, 4, 3), 7, np.uint8), truth, predicted)
    assert [tuple(pixel) for pixel in drawn[0, :3]] == list(OUTCOME_COLOURS.values())
    assert drawn[0, 3].tolist() == [3, 3, 3]


def test_ignored_pixels_are_never_marked_as_an_outcome() -> None:
    truth = np.full((6, 6), IGNORE_ID, np.uint8)
    drawn = overlay_outcomes(np.zeros((6, 6, 3), np.uint8), truth, np.ones((6, 6), np.uint8))
    assert set(np.unique(drawn)) == {0, 128}


def test_wrong_sizes_and_ids_without_colour_are_explained() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(InputError, match=r"\(4, 5\) and the mask \(5, 4\)"):
        overlay_classes(image, np.zeros((5, 4), np.uint8))
    with pytest.raises(InputError, match=r"class id 3.*0 to 1"):
        overlay_classes(image, np.full((4, 5), 3, np.uint8), [None, (1, 2, 3)])


def test_many_classes_get_distinct_colours() -> None:
    colours = class_colours(20)
    assert len(colours) == len(set(colours)) == 20
    assert class_colours(1) == (None,)


@pytest.mark.parametrize("size", [(96, 96), (48, 80), (512, 288), (192, 192)])
def test_images_and_masks_stay_on_one_grid_when_resized(size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
    large_mask = fit_for_screen(mask)
    large_image = fit_for_screen(np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1))
    assert large_mask.shape == large_image.shape[:2]
    assert set(np.unique(large_mask)) == {0, 1}
    assert ((large_image[..., 0] > 127) != large_mask).mean() < 0.01


def test_data_uri_is_a_readable_picture_with_nearly_the_same_colours() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = OUTCOME_COLOURS["missed"]
    uri = as_data_uri(image)
    kind, data = uri.split(",", 1)
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert kind == "data:image/jpeg;base64"
    assert np.abs(read.astype(int) - image).mean() < 4


def test_overlays_need_neither_matplotlib_nor_jinja2_nor_tensorflow() -> None:
    code = (
        "import sys; import tfprune.report.overlays as o\n"
        "heavy = {'matplotlib', 'jinja2', 'tensorflow', 'tf_keras', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
