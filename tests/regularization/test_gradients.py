"""Readings of H, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.keras import tf
from tfprune.pruning.named import read_part, write_part
from tfprune.regularization.composite import Composite, Placed, Ramp
from tfprune.regularization.gradients import Count, SoftThreshold, Surrogate, Threshold
from tfprune.regularization.penalties import Orthogonality

GRADIENT = tf.constant([0.4, -0.1, 0.0, -0.3, 0.2, 0.0])
WHOLE = tf.ones(6)


def read(reading, share=1.0, weights=WHOLE, gradient=GRADIENT):
    sparse = reading(gradient, weights, share)
    return np.round(sparse.numpy(), 6).tolist(), float(reading.measure(sparse))


@pytest.mark.parametrize(
    ("reading", "sparse", "count"),
    [
        (Count(), [0.4, -0.1, 0, -0.3, 0.2, 0], 4),
        (Threshold(0.5), [0.4, 0, 0, -0.3, 0.2, 0], 3),
        (Threshold(0.0), [0.4, -0.1, 0, -0.3, 0.2, 0], 4),
        (Threshold(0.99), [0.4, 0, 0, 0, 0, 0], 1),
        (SoftThreshold(0.15), [0.25, 0, 0, -0.15, 0.05, 0], 3),
        (SoftThreshold(0.0), [0.4, -0.1, 0, -0.3, 0.2, 0], 4),
    ],
)
def test_h_is_the_number_of_non_zeros(reading, sparse, count):
    assert read(reading) == (pytest.approx(sparse), count)


def test_half_the_share_is_half_the_strength():
    assert read(Threshold(1 - 1e-9), share=0.5) == read(Threshold(0.5))
    assert read(SoftThreshold(0.3), share=0.5) == read(SoftThreshold(0.15))


def test_masked_weights_are_not_ranked():
    weights = tf.constant([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    gradient = tf.constant([0.4, -0.1, 0.0, 0.0, 0.2, -0.3])
    assert read(Threshold(0.5), weights=weights, gradient=gradient)[0] == pytest.approx([0.4, 0, 0, 0, 0, -0.3])
    assert read(Threshold(0.5), weights=tf.zeros(6), gradient=tf.zeros(6)) == ([0.0] * 6, 0)


def test_the_quantile_of_a_large_kernel_is_near():
    gradient = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 128, 128)), tf.float32)
    _, count = read(Threshold(0.7), weights=tf.ones_like(gradient), gradient=gradient)
    assert count / gradient.shape.num_elements() == pytest.approx(0.3, abs=0.015)


def test_the_surrogate_counts_smoothly():
    surrogate = Surrogate(strength=1.0, tau=0.2)
    squares = np.square(GRADIENT.numpy().astype(np.float64))
    sparse, measure = read(surrogate)
    assert sparse == pytest.approx(GRADIENT.numpy().tolist())
    assert measure == pytest.approx((squares / (squares + 0.04)).sum(), rel=1e-5)
    assert float(Surrogate(1.0, tau=1e-6).measure(GRADIENT)) == pytest.approx(4, abs=1e-3)


def test_everything_comes_back_from_its_config():
    for reading in (None, Count(), Threshold(0.5), SoftThreshold(0.1), Surrogate(0.1, 0.2)):
        for ramp in (None, Ramp(1, 5)):
            composite = Composite((Placed("a", "kernel", Orthogonality(0.1)),), ("a", "b/c"), reading, ramp)
            again = read_part(json.loads(json.dumps(write_part(composite))))
            assert again.get_config() == composite.get_config()
            assert (again.layers, again.reading, again.ramp) == (composite.layers, reading, ramp)


@pytest.mark.parametrize("steps", [(4, 4), (-1, 3), (5, 2)])
def test_a_ramp_has_to_rise(steps):
    with pytest.raises(InputError, match="begin_step < end_step"):
        Ramp(*steps)


@pytest.mark.parametrize("settings", [{}, {"align_corners": True}, {"half_pixel_centers": True}])
def test_nearest_upsampling_has_a_second_derivative(settings):
    images = tf.constant(np.random.default_rng(0).normal(size=(1, 2, 3, 2)))

    def first_derivative(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(tf.raw_ops.ResizeNearestNeighbor(images=images, size=(5, 6), **settings) ** 3)
        return tape.gradient(value, images)

    by_rule, by_difference = tf.test.compute_gradient(first_derivative, [images])
    np.testing.assert_allclose(by_rule[0], by_difference[0], rtol=1e-5, atol=1e-5)
