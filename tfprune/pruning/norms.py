"""Batch-norm statistics taken anew: after the masks have changed, the moving averages lag behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.keras import keras, tf

_DROPOUT = (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)


def reestimate_batch_norm(model: Any, batches: Iterable[Any]) -> int:
    """Set the statistics of every trainable batch norm to exact averages over `batches`; return the images seen.

    Moving averages of momentum .99 lag hundreds of steps behind the masks, so that the IoU swings
    to zero during a ramp. Here every batch counts by its number of images, mean and variance are
    those of all activations together, dropout is off, and nothing else in the model changes: the
    same batches give the same result (Wu & Johnson, "Rethinking Batch in BatchNorm", 2021, section 3).

    Args:
        model: a built Keras model; masked or plain.
        batches: images (N, H, W, C), or tuples that begin with them; finite.

    Raises:
        InputError: when there are no batches, single pictures instead, or no end of them.
    """
    if isinstance(batches, tf.data.Dataset) and batches.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError("reestimate_batch_norm was given a dataset without end; leave out its repeat(), or take(n)")
    layers = list(model._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    if not norms:
        return 0
    noisy = [(layer, "rate") for layer in layers if isinstance(layer, _DROPOUT)]
    noisy += [(layer, "stddev") for layer in layers if isinstance(layer, keras.layers.GaussianNoise)]
    before = [(layer, name, getattr(layer, name)) for layer, name in noisy]
    before += [(norm, "momentum", norm.momentum) for norm in norms]
    try:
        for layer, name, _ in before:
            setattr(layer, name, 0.0)
        images, means, variances = _sum_statistics(model, norms, batches)
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)
    if not images:
        raise InputError("reestimate_batch_norm was given no batches; hand it a dataset of training images")
    for norm, mean, square in zip(norms, means, variances, strict=True):
        mean = mean / images
        norm.moving_mean.assign(mean.astype(np.float32))
        norm.moving_variance.assign((square / images - mean**2).astype(np.float32))
    return images


def _sum_statistics(
    model: Any, norms: list[Any], batches: Iterable[Any]
) -> tuple[int, list[np.ndarray], list[np.ndarray]]:
    """Return the images seen, and per norm the sums over images of mean and of mean square, in float64."""
    saved = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]
    images, means, squares = 0, [0.0] * len(norms), [0.0] * len(norms)

    # A function of its own: one traced earlier would have the momentum built in.
    @tf.function(reduce_retracing=True)
    def forward(pictures: Any) -> None:
        model(pictures, training=True)

    try:
        for batch in batches:
            pictures = tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch)
            if pictures.shape.rank != 4:
                raise InputError(
                    f"reestimate_batch_norm was given a batch of shape {tuple(pictures.shape)}; hand it batches "
                    "(N, H, W, C), such as a dataset, or [images] for an array that fits into memory at once"
                )
            # With momentum 0 the moving statistics are those of this batch.
            forward(pictures)
            count = int(pictures.shape[0])
            images += count
            for index, norm in enumerate(norms):
                mean, variance = (item.numpy().astype(np.float64) for item in (norm.moving_mean, norm.moving_variance))
                means[index] = means[index] + count * mean
                squares[index] = squares[index] + count * (variance + mean**2)
    finally:
        for norm, (mean, variance) in zip(norms, saved, strict=True):
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)
    return images, means, squares
