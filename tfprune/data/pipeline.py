"""tf.data pipelines over arrays in memory: shuffled and augmented for training, in order for evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfprune.data.arrays import SegmentationArrays
from tfprune.errors import InputError
from tfprune.keras import tf

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the batches of one epoch: the last partial one is dropped, unless it is the only one.

    >>> steps_per_epoch(100, 32), steps_per_epoch(20, 32)
    (3, 1)
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if count < 1:
        raise InputError("there are no pictures to train on")
    return max(1, count // batch_size)


def training_batches(
    arrays: SegmentationArrays,
    *,
    batch_size: int,
    epochs: int,
    first_epoch: int = 0,
    seed: int,
    augment: Augment | None = None,
) -> tf.data.Dataset:
    """Return the batches of the epochs from `first_epoch` up to, not including, `epochs`.

    Each batch is (images float32 (N, H, W, C) in 0..255, masks uint8 (N, H, W)); an epoch has
    `steps_per_epoch` of them, all of one size. A batch is a pure function of (seed, epoch, step): which
    pictures it holds, and `augment(image, mask, seed)` with a seed of (seed, epoch, picture). A training
    resumed at an epoch therefore sees the same batches as one that was never stopped.
    """
    count = len(arrays)
    steps = steps_per_epoch(count, batch_size)
    length = min(batch_size, count)

    @functools.lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(count)

    def fetch(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(int(number), steps)
        chosen = order(epoch)[step * length : (step + 1) * length]
        if augment is None:
            return arrays.images[chosen], arrays.masks[chosen]
        made = [augment(arrays.images[i], arrays.masks[i], _sample_seed(seed, epoch, int(i))) for i in chosen]
        return np.stack([image for image, _ in made]), np.stack([mask for _, mask in made])

    image_shape, mask_shape = arrays.images.shape[1:], arrays.masks.shape[1:]
    if augment is not None:
        image, mask = augment(arrays.images[0], arrays.masks[0], 0)
        image_shape, mask_shape = image.shape, mask.shape

    numbers = tf.data.Dataset.range(first_epoch * steps, max(first_epoch, epochs) * steps)
    return _fetched(numbers, fetch, (length, *image_shape), (length, *mask_shape))


def _sample_seed(seed: int, epoch: int, picture: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, picture)).generate_state(1, np.uint64)[0])


def evaluation_batches(arrays: SegmentationArrays, *, batch_size: int) -> tf.data.Dataset:
    """Return everything once and in order, as (images float32 (N, H, W, C) in 0..255, masks uint8 (N, H, W))."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")

    def fetch(start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(int(start), int(start) + batch_size)
        return arrays.images[chosen], arrays.masks[chosen]

    starts = tf.data.Dataset.range(0, len(arrays), batch_size)
    return _fetched(starts, fetch, (None, *arrays.images.shape[1:]), (None, *arrays.masks.shape[1:]))


def _fetched(
    numbers: tf.data.Dataset, fetch: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], *shapes: tuple[Any, ...]
) -> tf.data.Dataset:
    """Return the batches that `fetch` gives for numbers, in their order: images in float32, masks, of these shapes."""

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # fetch is pure: declared stateless it stays parallel under op determinism
        images, masks = tf.numpy_function(fetch, [number], (tf.uint8, tf.uint8), stateful=False)
        for values, shape in zip((images, masks), shapes, strict=True):
            values.set_shape(shape)
        return tf.cast(images, tf.float32), masks

    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
