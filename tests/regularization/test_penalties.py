"""Penalties against numpy: values, gradients, floors, and filters that are gone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.selection import select_layers
from tfprune.regularization import REGULARIZERS
from tfprune.regularization.attaching import regularize_model
from tfprune.regularization.building import build_penalty
from tfprune.regularization.penalties import Orthogonality, plain_orthogonality

RNG = np.random.default_rng(0)


def value_and_gradient(function, weights):
    variable = tf.Variable(weights.astype(np.float32))
    with tf.GradientTape() as tape:
        value = function(variable)
    return float(value), tape.gradient(value, variable).numpy()


def distance(rows):
    return float(np.sum((rows @ rows.T - np.eye(len(rows))) ** 2))


def orthonormal(filters, weights):
    """Return rows that are orthonormal, or columns when there are more filters than weights."""
    columns = np.linalg.qr(RNG.normal(size=(max(filters, weights), min(filters, weights))))[0]
    return columns if filters >= weights else columns.T


@pytest.mark.parametrize("shape", [(4, 9), (5, 5), (9, 4)])
def test_the_gradient_of_plain_r_is_four_times_w_w_t_minus_one_times_w(shape):
    rows = RNG.normal(size=shape)
    value, gradient = value_and_gradient(plain_orthogonality, rows)
    assert value == pytest.approx(distance(rows), rel=1e-5)
    np.testing.assert_allclose(gradient, 4 * (rows @ rows.T - np.eye(len(rows))) @ rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("filters", "weights"), [(4, 9), (6, 6), (9, 4), (12, 1)])
def test_orthonormal_filters_are_at_the_floor_and_cost_nothing(filters, weights):
    rows = orthonormal(filters, weights)
    assert float(plain_orthogonality(tf.constant(rows))) == pytest.approx(max(filters - weights, 0), abs=1e-6)
    kernel = rows.T.reshape(1, 1, weights, filters).astype(np.float32)
    value, gradient = value_and_gradient(Orthogonality(1.0), kernel)
    assert value == pytest.approx(0, abs=1e-6) and np.abs(gradient).max() < 1e-5
    further, _ = value_and_gradient(Orthogonality(1.0), kernel + 0.1 * RNG.normal(size=kernel.shape))
    assert further > 1e-4


@pytest.mark.parametrize(("filters", "weights"), [(4, 18), (30, 18)])
def test_r_is_divided_by_the_entries_of_its_gram_matrix(filters, weights):
    rows = RNG.normal(size=(filters, weights))
    kernel = rows.T.reshape(3, 3, 2, filters)
    expected = (distance(rows) - max(filters - weights, 0)) / min(filters, weights) ** 2
    assert float(Orthogonality(0.5)(tf.constant(kernel))) == pytest.approx(0.5 * expected)
    transposed = np.swapaxes(kernel, -1, -2)
    assert float(Orthogonality(0.5, filter_axis=-2)(tf.constant(transposed))) == pytest.approx(0.5 * expected)
    assert float(Orthogonality(0.5)(tf.constant(rows.T))) == pytest.approx(0.5 * expected)  # a Dense kernel


def test_with_normalized_rows_only_angles_count():
    kernel = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
    r = Orthogonality(1.0, normalize_rows=True)
    assert float(r(kernel * np.array([1, 5, 0.1, 2]))) == pytest.approx(float(r(kernel)), rel=1e-4)
    rows = kernel.reshape(-1, 4).T
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert float(r(kernel)) == pytest.approx(distance(rows) / 16, rel=1e-4)
    frame = np.concatenate([np.eye(3), np.eye(3)]).T.reshape(1, 1, 3, 6)  # six unit filters of three weights: no better
    assert float(r(tf.constant(frame, tf.float32))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("normalize_rows", [False, True])
@pytest.mark.parametrize("shape", [(3, 3, 2, 6), (1, 1, 4, 12)])
def test_pruned_filters_are_left_out_and_stay(shape, normalize_rows):
    kernel = RNG.normal(size=shape)
    dead = np.arange(shape[-1]) % 3 != 0
    masked = kernel * ~dead
    r = Orthogonality(1.0, normalize_rows=normalize_rows)
    value, gradient = value_and_gradient(r, masked)
    assert value == pytest.approx(float(r(tf.constant(kernel[..., ~dead], tf.float32))), rel=1e-4)
    assert np.isfinite(gradient).all() and not gradient[..., dead].any() and gradient[..., ~dead].any()
    assert value_and_gradient(r, np.zeros(shape))[0] == 0


def test_a_pruned_input_is_no_weight_of_a_filter():
    kernel = RNG.normal(size=(1, 1, 6, 5))
    masked = kernel * (np.arange(6) < 3)[:, None]  # five filters of three weights
    rows = masked.reshape(6, 5).T[:, :3]
    assert float(Orthogonality(1.0)(tf.constant(masked))) == pytest.approx((distance(rows) - 2) / 9)


def test_the_competitors_are_what_their_names_say():
    kernel, gamma = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=5)
    kernel[..., 1] = 0
    lengths = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    expected = {"l2": (kernel**2).sum(), "group_lasso": np.sqrt(18) * lengths.sum()}
    with np.errstate(invalid="ignore"):
        gradients = {"l2": 2 * kernel, "group_lasso": np.sqrt(18) * np.nan_to_num(kernel / lengths)}
    for name, value in expected.items():
        found, gradient = value_and_gradient(build_penalty(name, {"strength": 0.1}), kernel)
        assert found == pytest.approx(0.1 * value, rel=1e-5)
        np.testing.assert_allclose(gradient, 0.1 * gradients[name], rtol=1e-4, atol=1e-6)
    found, gradient = value_and_gradient(build_penalty("gamma_l1", {"strength": 0.1}), gamma)
    assert found == pytest.approx(0.1 * np.abs(gamma).sum()) and np.allclose(gradient, 0.1 * np.sign(gamma))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_penalty_comes_back_from_its_config_and_serves_a_layer_by_itself(name):
    penalty = build_penalty(name, {"strength": 0.25}, filter_axis=-2)
    again = keras.regularizers.deserialize(keras.regularizers.serialize(penalty))
    assert type(again) is type(penalty) and again.get_config() == penalty.get_config()
    assert getattr(penalty, "filter_axis", -2) == -2
    layer = keras.layers.Conv2DTranspose(4, 3, kernel_regularizer=again)
    layer.build((None, 8, 8, 2))
    assert float(layer.losses[0]) == pytest.approx(float(penalty(layer.kernel)))


def layers_net():
    """Return a net with every kind of layer that has filters, and regularizers of its own."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", kernel_regularizer=keras.regularizers.L2(0.5), name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    inner = keras.Model(inside := keras.Input((16, 16, 5)), layers.Dense(3, name="dense")(inside), name="inner")
    return keras.Model(image, layers.Conv2D(2, 1, name="logits")(inner(x)))


def test_penalties_find_their_weights():
    model = layers_net()
    selection = select_layers(model, min_weights=1, exclude=())
    own = float(model.losses[0])
    weights = {name: {"strength": 2.0} for name in REGULARIZERS}
    regularized = regularize_model(model, weights, selection=selection)
    kernels = {
        "first": model.get_layer("first").kernel,
        "up": tf.transpose(model.get_layer("up").kernel, [0, 1, 3, 2]),
        "separable": model.get_layer("separable").pointwise_kernel,
        "dense": model.get_layer("inner").get_layer("dense").kernel,
        "logits": model.get_layer("logits").kernel,
    }
    everything = [*kernels.values(), model.get_layer("depthwise").depthwise_kernel]
    measured = {name: float(value) for name, value in regularized.composite.measures(regularized).items()}
    assert measured["l2"] == pytest.approx(sum(float(tf.reduce_sum(kernel**2)) for kernel in everything), rel=1e-5)
    assert measured["orthogonality"] == pytest.approx(sum(float(Orthogonality(1)(k)) for k in kernels.values()))
    assert measured["gamma_l1"] == 6
    assert [float(loss) for loss in regularized.losses] == pytest.approx([own, 2 * sum(measured.values())])
    pictures = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(regularized(pictures), model(pictures))
    assert [float(loss) for loss in model.losses] == [own], "the model itself is as it was"


@pytest.mark.parametrize(
    ("weights", "gradients", "text"),
    [
        ({"ortogonality": {"strength": 1}}, None, "did you mean 'orthogonality'"),
        ({"orthogonality": {"strenght": 1}}, None, "did you mean 'strength'"),
        ({"orthogonality": {"filter_axis": -1}}, None, "unknown parameter of the regularizer orthogonality"),
        ({"l2": {}}, None, "strength must be given"),
        ({"l2": {"strength": -1}}, None, "give a number from 0"),
        ({"l2": {"strength": True}}, None, "give a number from 0"),
        ({"orthogonality": {"strength": 1, "normalize_rows": 1}}, None, "give true or false"),
        ({"gamma_l1": {"strength": 1}}, None, "finds nothing to act on"),
        ({}, None, "nothing to regularize by"),
        (None, {"treshold": {}}, "did you mean 'threshold'"),
        (None, {"threshold": {"sparsity": 1.0}}, r"a number in \[0, 1\)"),
        (None, {"surrogate": {"strength": 1, "tau": 0}}, "give a number above 0"),
        (None, {"count": {}, "threshold": {"sparsity": 0.5}}, "give one of"),
    ],
)
def test_what_is_wrong_is_said(weights, gradients, text):
    with pytest.raises(InputError, match=text):
        regularize_model(tiny_net(norm=False), weights, gradients)


def test_a_model_is_regularized_once():
    once = regularize_model(tiny_net(), gradients={"count": {}})
    with pytest.raises(InputError, match="regularized already"):
        regularize_model(once, {"l2": {"strength": 1}})
