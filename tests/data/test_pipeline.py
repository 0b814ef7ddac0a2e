"""Batches: each picture once per epoch, in an order that a resumed training sees again."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.data.arrays import SegmentationArrays
from tfprune.data.augmentation import build_augmentation
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.errors import InputError
from tfprune.keras import tf

COUNT = 11


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 20, 24, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    masks = rng.integers(0, 2, (COUNT, 20, 24), dtype=np.uint8)
    return SegmentationArrays(tuple(f"s{number}" for number in range(COUNT)), images, masks)


def taken(batches):
    return [[int(image[0, 0, 0]) for image in images] for images, _ in batches.as_numpy_iterator()]


def assert_same(first, second):
    first, second = list(first.as_numpy_iterator()), list(second.as_numpy_iterator())
    assert len(first) == len(second) > 0
    for (images, masks), (images_again, masks_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(masks, masks_again)


def test_an_epoch_holds_each_picture_at_most_once_in_whole_batches(arrays):
    batches = taken(training_batches(arrays, batch_size=4, epochs=3, seed=1))
    assert [len(batch) for batch in batches] == [4] * 6
    epochs = [batches[start] + batches[start + 1] for start in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert taken(training_batches(arrays, batch_size=4, epochs=3, seed=2)) != batches


def test_a_set_smaller_than_a_batch_gives_one_batch(arrays):
    batches = training_batches(arrays, batch_size=64, epochs=2, seed=1)
    assert [sorted(batch) for batch in taken(batches)] == [list(range(COUNT))] * 2
    assert steps_per_epoch(COUNT, 64) == 1


def test_types_shapes_and_values(arrays):
    batches = training_batches(arrays, batch_size=4, epochs=1, seed=1)
    assert batches.element_spec == (tf.TensorSpec((4, 20, 24, 3), tf.float32), tf.TensorSpec((4, 20, 24), tf.uint8))
    assert int(batches.cardinality()) == steps_per_epoch(COUNT, 4) == 2
    for images, masks in batches.as_numpy_iterator():
        for image, mask in zip(images, masks, strict=True):
            number = int(image[0, 0, 0])
            np.testing.assert_array_equal(image, arrays.images[number].astype(np.float32))
            np.testing.assert_array_equal(mask, arrays.masks[number])


@pytest.mark.parametrize("augmented", [False, True])
def test_a_resumed_training_sees_the_same_batches(arrays, augmented):
    spec = ["HorizontalFlip", {"Affine": {"rotate": [-20, 20]}}, "GaussNoise"]
    augment = build_augmentation(spec, size=(16, 16)) if augmented else None
    whole = training_batches(arrays, batch_size=4, epochs=5, seed=1, augment=augment)
    resumed = training_batches(arrays, batch_size=4, epochs=5, first_epoch=3, seed=1, augment=augment)
    assert_same(whole.skip(3 * steps_per_epoch(COUNT, 4)), resumed)
    assert_same(resumed, resumed)
    if augmented:
        assert resumed.element_spec[0].shape == (4, 16, 16, 3)
        assert resumed.element_spec[1].shape == (4, 16, 16)


def test_augmentation_differs_between_epochs_and_pictures(arrays):
    same = SegmentationArrays(arrays.stems, np.repeat(arrays.images[:1], COUNT, axis=0), arrays.masks)
    augment = build_augmentation([{"GaussNoise": {"p": 1}}], size=(20, 24))
    batches = training_batches(same, batch_size=COUNT, epochs=2, seed=1, augment=augment)
    images = np.concatenate([images for images, _ in batches.as_numpy_iterator()])
    assert len({image.tobytes() for image in images}) == 2 * COUNT


def test_nothing_is_left_after_the_last_epoch(arrays):
    assert taken(training_batches(arrays, batch_size=4, epochs=2, first_epoch=2, seed=1)) == []


def test_evaluation_is_everything_once_in_order(arrays):
    batches = evaluation_batches(arrays, batch_size=4)
    assert taken(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert batches.element_spec[0].shape.as_list() == [None, 20, 24, 3]
    assert int(batches.cardinality()) == 3


def test_batches_that_cannot_be_made(arrays):
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        training_batches(arrays, batch_size=0, epochs=1, seed=0)
    with pytest.raises(InputError, match="no pictures"):
        steps_per_epoch(0, 4)
