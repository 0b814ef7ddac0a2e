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
    to zero during a ramp. Here mean and variance are those of all activations together, of all calls
    of a norm, dropout is off, and nothing else in the model changes: the same batches give the same
    result (Wu & Johnson, "Rethinking Batch in BatchNorm", 2021, section 3).

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
    try:
        for layer, name, _ in before:
            setattr(layer, name, 0.0)
        images, sums = _sum_statistics(model, norms, batches)
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)
    if not images:
        raise InputError("reestimate_batch_norm was given no batches; hand it a dataset of training images")
    for norm, (count, total, squares) in zip(norms, sums, strict=True):
        if count:
            mean = total / count
            norm.moving_mean.assign(mean.astype(np.float32))
            norm.moving_variance.assign((squares / count - mean**2).astype(np.float32))
    return images


def _sum_statistics(model: Any, norms: list[Any], batches: Iterable[Any]) -> tuple[int, list[list[Any]]]:
    """Return the images seen, and per norm count, sum and sum of squares of all that it was given, in float64."""
    saved = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]
    images, sums = 0, [[0.0, 0.0, 0.0]] * len(norms)
    given: list[list[Any]] = [[] for _ in norms]

    # A function of its own: one traced earlier would not be watched.
    @tf.function(reduce_retracing=True)
    def forward(pictures: Any) -> Any:
        for calls in given:
            calls[:] = [(0.0, 0.0, 0.0)]
        model(pictures, training=True)
        return [[sum(parts) for parts in zip(*calls, strict=True)] for calls in given]

    try:
        for norm, calls in zip(norms, given, strict=True):
            norm.call = _watched(norm, calls)
        for batch in batches:
            pictures = tf.convert_to_tensor(batch[0] if isinstance(batch, tuple | list) else batch)
            if pictures.shape.rank != 4:
                raise InputError(
                    f"reestimate_batch_norm was given a batch of shape {tuple(pictures.shape)}; hand it batches "
                    "(N, H, W, C), such as a dataset, or [images] for an array that fits into memory at once"
                )
            images += int(pictures.shape[0])
            sums = [
                [total + part.numpy() for total, part in zip(totals, parts, strict=True)]
                for totals, parts in zip(sums, forward(pictures), strict=True)
            ]
    finally:
        for norm, (mean, variance) in zip(norms, saved, strict=True):
            del norm.call
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)
    return images, sums


def _watched(norm: Any, calls: list[Any]) -> Any:
    """Return the `call` of a norm that also notes count, sum and sum of squares of its input, in float64.

    The moving statistics would not do: they know the last call alone, and the fused kernel's variance is n / (n - 1)
    times that of the n activations.
    """
    call = norm.call

    def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        axes = [axis for axis in range(inputs.shape.rank) if axis not in norm.axis]
        moments = tf.nn.moments(tf.cast(inputs, tf.float32), axes)
        mean, variance = (tf.cast(moment, tf.float64) for moment in moments)
        count = tf.cast(tf.size(inputs, tf.int64) / tf.size(mean, tf.int64), tf.float64)
        calls.append((count, count * mean, count * (variance + mean**2)))
        return call(inputs, *args, **kwargs)

    return watched
