"""Penalties on weights: Keras regularizers, which `regularize_model` places, and which any layer takes by hand.

    keras.layers.Conv2D(16, 3, kernel_regularizer=Orthogonality(0.1))

A file of such a layer loads once this module has been imported, as Keras wants it.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tfprune.errors import InputError
from tfprune.keras import keras, tf


def checked_strength(owner: str, name: str, value: Any, *, below: float = math.inf) -> float:
    """Return a number in [0, below).

    Raises:
        InputError: when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
        bound = "a number from 0" if math.isinf(below) else f"a number in [0, {below:g})"
        raise InputError(f"{owner}: {name} is {value!r}; give {bound}")
    return float(value)


class Penalty(keras.regularizers.Regularizer):
    """A strength times a measure of one weight tensor.

    Args:
        strength: lambda, what the measure is multiplied by in the loss.
    """

    acts_on: ClassVar[str] = "kernel"

    def __init__(self, strength: float) -> None:
        self.strength = checked_strength(type(self).__name__, "strength", strength)

    def measure(self, weights: Any) -> Any:
        """Return the measure without its strength, a float32 scalar."""
        raise TypeError(f"{type(self).__name__} has no measure; a penalty defines measure(weights)")

    def __call__(self, weights: Any) -> Any:
        """Return strength * measure."""
        return self.strength * self.measure(tf.convert_to_tensor(weights))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength}


class FilterPenalty(Penalty):
    """A penalty that looks at filters.

    Args:
        filter_axis: the axis of the filters, counted from the end: -1, or -2 for transposed
            convolutions, whose kernel is (h, w, out, in).
    """

    def __init__(self, strength: float, *, filter_axis: int = -1) -> None:
        super().__init__(strength)
        self.filter_axis = filter_axis

    def rows(self, weights: Any) -> Any:
        """Return a kernel as one row per filter, (filters, weights of a filter)."""
        rank = len(weights.shape)
        axis = self.filter_axis % rank
        moved = tf.transpose(weights, [axis, *(index for index in range(rank) if index != axis)])
        return tf.reshape(moved, (weights.shape[axis], -1))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "filter_axis": self.filter_axis}


def plain_orthogonality(rows: Any) -> Any:
    """Return ||W W^T - I||_F^2 over the filters that are not all zero, a scalar.

    Its gradient is 4 (W W^T - I) W; equation 9 of arXiv 2210.07451 is not it. With more filters than
    weights in each, zero is out of reach: it is at least filters - weights. The smaller of W W^T and
    W^T W is computed; the two distances differ by filters - weights.

    Args:
        rows: W, (filters, weights of a filter).

    >>> float(plain_orthogonality(tf.constant([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])))
    9.0
    """
    filters, weights = living(rows)
    if rows.shape[0] <= rows.shape[1]:
        gram, units = tf.matmul(rows, rows, transpose_b=True), filters
    else:
        gram, units = tf.matmul(rows, rows, transpose_a=True), weights
    difference = tf.reduce_sum(filters) - tf.reduce_sum(units)
    return tf.reduce_sum(tf.square(gram - tf.linalg.diag(units))) + difference


def living(rows: Any) -> tuple[Any, Any]:
    """Return 1 for each row that is not all zero, and the same for the columns, else 0."""
    nonzero = rows != 0
    return tf.cast(tf.reduce_any(nonzero, 1), rows.dtype), tf.cast(tf.reduce_any(nonzero, 0), rows.dtype)


@keras.utils.register_keras_serializable("tfprune")
class Orthogonality(FilterPenalty):
    """R: how far the filters of a layer are from being orthonormal, over its own floor, per entry of the Gram matrix.

    (||W W^T - I||_F^2 - floor) / n^2, one row of W per filter, filters that are all zero (pruned) left out.
    n is the smaller of filters and weights per filter; the floor is max(filters - weights, 0), so with
    more filters than weights it is ||W^T W - I||_F^2 / n^2. The division keeps wide layers from
    dominating the sum over layers. Khan et al. (arXiv 2210.07451); the gradient is automatic,
    since their equation 9 is not that of R.

    Args:
        strength: lambda.
        normalize_rows: scale each filter to length 1 first, so that only angles count (RePr: Prakash
            et al., CVPR 2019); the floor is then filters^2 / weights - filters.
        filter_axis: see `FilterPenalty`.

    >>> kernel = tf.reshape(tf.constant([1.0, 0.0, 0.0, 2.0]), (1, 1, 2, 2))
    >>> float(Orthogonality(1.0)(kernel)), float(Orthogonality(1.0, normalize_rows=True)(kernel))
    (2.25, 0.0)
    """

    def __init__(self, strength: float, *, normalize_rows: bool = False, filter_axis: int = -1) -> None:
        super().__init__(strength, filter_axis=filter_axis)
        if not isinstance(normalize_rows, bool):
            raise InputError(f"Orthogonality: normalize_rows is {normalize_rows!r}; give true or false")
        self.normalize_rows = normalize_rows

    def measure(self, weights: Any) -> Any:
        """Return R of a kernel, from 0."""
        rows = self.rows(weights)
        filters, width = (tf.reduce_sum(alive) for alive in living(rows))
        if self.normalize_rows:
            rows = tf.math.l2_normalize(rows, axis=1)
            floor = filters * filters / tf.maximum(width, 1) - filters
        else:
            floor = filters - width
        size = tf.maximum(tf.minimum(filters, width), 1)
        return (plain_orthogonality(rows) - tf.nn.relu(floor)) / tf.square(size)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "normalize_rows": self.normalize_rows}


@keras.utils.register_keras_serializable("tfprune")
class SquaredSum(Penalty):
    """L2: the sum of squares of a kernel, the control that every regularizer has to beat."""

    def measure(self, weights: Any) -> Any:
        """Return sum w^2."""
        return tf.reduce_sum(tf.square(weights))


@keras.utils.register_keras_serializable("tfprune")
class ScaleSum(Penalty):
    """L1 of the gamma of the batch norm right behind a layer.

    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, equation 1.
    """

    acts_on: ClassVar[str] = "gamma"

    def measure(self, weights: Any) -> Any:
        """Return sum |gamma|."""
        return tf.reduce_sum(tf.abs(weights))


@keras.utils.register_keras_serializable("tfprune")
class GroupLasso(FilterPenalty):
    """The sum of the lengths of the filters, each times the root of its size.

    It drives whole filters to zero (Yuan & Lin 2006; Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NeurIPS 2016). A filter that is all zero has no gradient.
    """

    def measure(self, weights: Any) -> Any:
        """Return sqrt(weights of a filter) * sum ||filter||."""
        rows = self.rows(weights)
        squares = tf.reduce_sum(tf.square(rows), axis=1)
        # sqrt has no derivative at 0, and a zero times its infinity is not a number.
        lengths = tf.where(squares > 0, tf.sqrt(tf.where(squares > 0, squares, 1.0)), 0.0)
        return tf.sqrt(float(rows.shape[1])) * tf.reduce_sum(lengths)
