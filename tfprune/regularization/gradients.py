"""Readings of H(S), the number of non-zeros in the task's gradient S of a layer (arXiv 2210.07451, equation 7).

As printed, H has no gradient, and beta does nothing. What it can mean: `Count`, H is reported;
`Threshold` and `SoftThreshold`, a sparse S takes the place of the gradient in the training step;
`Surrogate`, a smooth H in the loss. Each is a callable (gradient, weights, share) -> S.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import InputError
from tfprune.keras import tf
from tfprune.regularization.penalties import checked_strength

_SAMPLE = 8192


@dataclass(frozen=True)
class Count:
    """H is counted and reported, exactly ||S||_0; training is what it was."""

    second_order: ClassVar[bool] = False

    def __call__(self, gradient: Any, weights: Any, share: Any) -> Any:
        """Return the gradient as it is."""
        return gradient

    def measure(self, gradient: Any) -> Any:
        """Return H, the number of non-zeros, a float32 scalar."""
        return tf.cast(tf.math.count_nonzero(gradient), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Count:
        """Return the reading of a config."""
        return cls(**config)


@dataclass(frozen=True)
class Threshold(Count):
    """S = g where |g| >= tau, else 0, tau the quantile of |g| in each layer.

    tau is exact up to 8192 weights, and taken from as many, drawn once, in larger kernels. Weights
    that are zero, as masked ones, are left out of the ranking.

    Args:
        sparsity: the fraction of zeros in S, in [0, 1).

    >>> g = tf.constant([0.1, -0.4, 0.3, -0.2])
    >>> Threshold(0.5)(g, tf.ones(4), 1.0).numpy().tolist()
    [0.0, -0.4000000059604645, 0.30000001192092896, 0.0]
    """

    sparsity: float

    def __post_init__(self) -> None:
        checked_strength("threshold", "sparsity", self.sparsity, below=1.0)

    def __call__(self, gradient: Any, weights: Any, share: Any) -> Any:
        """Return S, with `share` (0-1) of the sparsity."""
        sizes = tf.abs(gradient)
        ranked = tf.reshape(tf.where(weights != 0, sizes, -1.0), [-1])
        count = int(ranked.shape[0])
        if count > _SAMPLE:
            drawn = np.random.default_rng(0).choice(count, _SAMPLE, replace=False)
            ranked, count = tf.gather(ranked, drawn), _SAMPLE
        ranked = tf.sort(ranked)
        dead = tf.reduce_sum(tf.cast(ranked < 0, tf.int32))
        zeros = tf.cast(tf.round(self.sparsity * share * tf.cast(count - dead, tf.float32)), tf.int32)
        return tf.where(sizes >= ranked[tf.minimum(dead + zeros, count - 1)], gradient, 0.0)


@dataclass(frozen=True)
class SoftThreshold(Count):
    """S = sign(g) max(|g| - beta, 0), the proximal operator of beta |g|_1.

    Args:
        strength: beta, in units of the gradient.
    """

    strength: float

    def __post_init__(self) -> None:
        checked_strength("soft_threshold", "strength", self.strength)

    def __call__(self, gradient: Any, weights: Any, share: Any) -> Any:
        """Return S, with `share` (0-1) of beta."""
        return tf.sign(gradient) * tf.nn.relu(tf.abs(gradient) - self.strength * share)


@dataclass(frozen=True)
class Surrogate(Count):
    """The loss gains beta * sum g^2 / (g^2 + tau^2), a smooth count of the gradients above tau.

    Its gradient is of second order: a step costs about twice as much, and every operation of the
    net must have a second derivative.

    Args:
        strength: beta.
        tau: the gradient that counts as half, above 0.
    """

    second_order: ClassVar[bool] = True

    strength: float
    tau: float

    def __post_init__(self) -> None:
        checked_strength("surrogate", "strength", self.strength)
        if checked_strength("surrogate", "tau", self.tau) == 0:
            raise InputError("surrogate: tau is 0, where the count has no derivative; give a number above 0")

    def measure(self, gradient: Any) -> Any:
        """Return H, a float32 scalar."""
        squares = tf.square(gradient)
        return tf.reduce_sum(squares / (squares + self.tau**2))


# The gradient of nearest-neighbour upsampling is linear, and TensorFlow lacks its derivative.
with contextlib.suppress(KeyError):  # a TensorFlow that has it

    @tf.RegisterGradient("ResizeNearestNeighborGrad")
    def _upsample_again(operation: Any, gradient: Any) -> Any:
        size = tf.shape(operation.inputs[0])[1:3]
        names = ("align_corners", "half_pixel_centers")
        return tf.raw_ops.ResizeNearestNeighbor(
            images=gradient, size=size, **{name: operation.get_attr(name) for name in names}
        ), None
