"""Augmentation: a pure function of the seed, with pixels that are made up left out of the mask."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tfprune.data.augmentation import build_augmentation, list_augmentations
from tfprune.errors import InputError
from tfprune.records import IGNORE_ID

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
MASK = (IMAGE[..., 0] > 127).astype(np.uint8)
RICH = [
    "HorizontalFlip",
    {"RandomBrightnessContrast": {"p": 0.7}},
    {"Affine": {"rotate": [-30, 30], "scale": [0.8, 1.2], "p": 0.8}},
    {"ElasticTransform": {"p": 0.5}},
    {"GaussNoise": None},
    {"CoarseDropout": {"p": 0.5}},
]


def test_equal_seeds_give_equal_pixels_in_any_thread_and_instance():
    first = build_augmentation(RICH, size=(32, 32))
    wanted = [first(IMAGE, MASK, seed) for seed in range(24)]
    second = build_augmentation(RICH, size=(32, 32))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: second(IMAGE, MASK, seed), reversed(range(24))))
    for (image, mask), (image_again, mask_again) in zip(wanted, reversed(made), strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(mask, mask_again)
    assert len({image.tobytes() for image, _ in wanted}) == 24


def test_each_transform_draws_for_itself():
    augment = build_augmentation(["HorizontalFlip", "VerticalFlip"], size=(40, 48))
    outcomes = set()
    for seed in range(60):
        image, _ = augment(IMAGE, MASK, seed)
        outcomes |= {(h, v) for h in (1, -1) for v in (1, -1) if np.array_equal(image, IMAGE[::v, ::h])}
    assert outcomes == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_image_and_mask_move_together():
    augment = build_augmentation(["HorizontalFlip", "VerticalFlip", "Transpose"], size=(24, 24))
    for seed in range(20):
        image, mask = augment(IMAGE, MASK, seed)
        np.testing.assert_array_equal(mask, image[..., 0] > 127)
        assert image.shape == (24, 24, 3)


def test_made_up_corners_are_ignored_and_real_pixels_are_not():
    augment = build_augmentation([{"Rotate": {"limit": [30, 30], "p": 1}}], size=(40, 48))
    image, mask = augment(np.full_like(IMAGE, 200), np.ones_like(MASK), 0)
    assert set(np.unique(mask)) == {1, IGNORE_ID}
    assert (image[mask == 1] > 90).all()
    assert mask[0, 0] == IGNORE_ID


def test_a_fill_of_ones_own_and_unchanged_masks_are_respected():
    filled = build_augmentation([{"Rotate": {"limit": [30, 30], "p": 1, "fill_mask": 0}}], size=(40, 48))
    assert set(np.unique(filled(IMAGE, np.ones_like(MASK), 0)[1])) == {0, 1}
    dropped = build_augmentation([{"CoarseDropout": {"p": 1}}], size=(40, 48))
    assert set(np.unique(dropped(IMAGE, np.ones_like(MASK), 0)[1])) == {1}


def test_small_pictures_are_padded_and_the_padding_is_ignored():
    image, mask = build_augmentation([], size=(64, 64))(IMAGE, MASK, 0)
    assert image.shape == (64, 64, 3)
    assert (mask == IGNORE_ID).sum() == 64 * 64 - 40 * 48


def test_grey_pictures():
    augment = build_augmentation(["HorizontalFlip", "RandomBrightnessContrast"], size=(32, 32), channels=1)
    image, mask = augment(IMAGE[..., :1], MASK, 3)
    assert (image.shape, mask.shape) == ((32, 32, 1), (32, 32))
    with pytest.raises(InputError, match="RandomRain: cannot be applied to a picture of shape"):
        build_augmentation(["RandomRain"], size=(32, 32), channels=1)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            ["HorizontalFlop"],
            r"augmentation\[0\]: unknown augmentation 'HorizontalFlop'; did you mean 'HorizontalFlip'",
        ),
        (["NoOp", {"Rotate": {"limits": 3}}], r"augmentation\[1\] Rotate: unknown parameter 'limits'.*'limit'"),
        ([{"Rotate": {"limit": "much"}}], r"augmentation\[0\] Rotate: .*valid number"),
        ([{"HorizontalFlip": {"p": 3}}], "HorizontalFlip: .*less than or equal to 1"),
        (["RandomCrop"], "RandomCrop: .*height"),
        (["Normalize"], "Normalize: gives float32 pixels"),
        ([{"Rotate": {"mask_interpolation": 1}}], "Rotate: mixes class ids"),
        (["Lambda"], "unknown augmentation 'Lambda'"),
        ([{"Crop": {"x_max": 999}}], "Crop: cannot be applied"),
        (["HistogramMatching"], "unknown augmentation 'HistogramMatching'"),
        ([{"HorizontalFlip": {}, "VerticalFlip": {}}], "must be a name or one"),
        ([{"HorizontalFlip": 0.5}], "must be a name or one"),
        ("HorizontalFlip", "must be a list such as"),
    ],
)
def test_specs_that_cannot_be_used(spec, text):
    with pytest.raises(InputError, match=text) as caught:
        build_augmentation(spec, size=(32, 32))
    assert "pydantic.dev" not in str(caught.value)


def crop(size, name="RandomCrop", **options):
    return {name: {"height": size, "width": size, **options}}


@pytest.mark.parametrize(
    ("spec", "fails"),
    [
        ([crop(48)], None),
        ([crop(48, "CropNonEmptyMaskIfExists", ignore_values=[0, IGNORE_ID])], None),
        ([crop(72)], r"\[0\] RandomCrop: cannot be applied to a picture of shape \(64, 80, 3\)"),
        ([crop(48), crop(56)], r"\[1\] RandomCrop: cannot be applied to a picture of shape \(48, 48, 3\)"),
        ([crop(96, "Resize"), crop(72)], None),
        ([crop(96, "Resize", p=0.5), crop(72)], r"\[1\] RandomCrop: cannot be applied to .*\(64, 80, 3\)"),
        ([crop(16)], None),
        ([{"RandomScale": {"scale_limit": 0.2}}, crop(48)], None),
        ([{"RandomScale": {"scale_limit": 0.27}}, crop(48)], r"\[1\] RandomCrop: cannot be applied to .*\(4[67], "),
    ],
)
def test_transforms_that_change_the_size_are_tried_on_the_pictures_there_are(spec, fails):
    if fails:
        with pytest.raises(InputError, match=fails):
            build_augmentation(spec, size=(32, 32), pictures=(64, 80))
        return
    image, mask = build_augmentation(spec, size=(32, 32), pictures=(64, 80))(
        np.zeros((64, 80, 3), np.uint8), np.ones((64, 80), np.uint8), 5
    )
    assert image.shape == (32, 32, 3) and mask.shape == (32, 32)
    assert (mask == 1).sum() == (16 * 16 if spec == [crop(16)] else 32 * 32)


def test_the_list_of_names():
    names = list_augmentations()
    assert {"HorizontalFlip", "Affine", "CLAHE"} <= set(names)
    assert not {"Lambda", "DualTransform", "CenterCrop3D", "FDA", "Mosaic", "RandomCropNearBBox"} & set(names)


def test_the_import_asks_no_network():
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import os\n"
        "from tfprune.data.augmentation import list_augmentations\n"
        "list_augmentations(); print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "1", done.stderr
