"""A folded net computes the same in inference, of layers that int8 files have an operator for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.architectures.test_conformance import build
from tfprune.keras import keras, tf
from tfprune.quantization.folding import fold_model

layers = keras.layers


def with_statistics(model, seed=0):
    """Give the batch norms of a net statistics, scales and offsets as training leaves them."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            around = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
            drawn = []
            for variable in layer.weights:
                middle = next(value for key, value in around.items() if key in variable.name)
                drawn.append(middle + rng.uniform(-0.5, 0.5, variable.shape))
            layer.set_weights(drawn)
    return model


def net(body, width=6):
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="preprocessing")(image)
    return with_statistics(keras.Model(image, layers.Conv2D(2, 1, name="logits")(body(layers.Conv2D(width, 3)(x)))))


def normed(layer, **options):
    return lambda x: layers.ReLU()(layers.BatchNormalization(**options)(layer(x)))


def nested(x):
    inside = layers.Input(x.shape[1:])
    inner = keras.Model(inside, normed(layers.Conv2D(6, 3, padding="same"))(inside))
    return inner(inner(x))


def read_twice(x):
    x = layers.Conv2D(6, 3)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def shared(x):
    convolution = layers.Conv2D(6, 3, padding="same")
    return convolution(layers.BatchNormalization()(convolution(x)))


def twice(layer):
    return lambda x: layer(layer(x))


# name -> (net, batch norms and convolutions of all kinds left)
NETS = {
    "convolution": (normed(layers.Conv2D(4, 3, use_bias=False)), 4),
    "convolution with a bias": (normed(layers.Conv2D(4, 3, bias_initializer="normal")), 4),
    "norm without scale": (normed(layers.Conv2D(4, 3), scale=False), 4),
    "grouped": (normed(layers.Conv2D(4, 3, groups=2)), 4),
    "transposed": (normed(layers.Conv2DTranspose(5, 2, strides=2, use_bias=False)), 4),
    "depthwise": (normed(layers.DepthwiseConv2D(3, depth_multiplier=2)), 4),
    "separable": (normed(layers.SeparableConv2D(4, 3)), 5),
    "separable with its own sigmoid": (layers.SeparableConv2D(4, 3, activation="sigmoid"), 5),
    "an activation that is a layer": (layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.1)), 4),
    "an activation with weights": (layers.SeparableConv2D(4, 3, activation=layers.PReLU("normal")), 6),
    "a shared separable": (twice(layers.SeparableConv2D(6, 3, padding="same")), 5),
    "dense": (normed(layers.Dense(4)), 4),
    "norm behind a ReLU": (lambda x: layers.BatchNormalization()(layers.ReLU()(x)), 4),
    "norm behind the convolution's own ReLU": (
        lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x)),
        5,
    ),
    "nested": (nested, 6),
    "read twice": (read_twice, 5),
    "shared": (shared, 5),
}


@pytest.mark.parametrize("name", NETS)
def test_the_outputs_stay_and_the_norms_go(name):
    body, weighted = NETS[name]
    model = net(body)
    folded = fold_model(model)
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    before, after = (one(pixels, training=False).numpy() for one in (model, folded))
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max(), rtol=1e-4)
    kinds = [type(layer).__name__ for layer in folded.layers]
    assert "BatchNormalization" not in kinds and "SeparableConv2D" not in kinds and "Rescaling" not in kinds
    assert not any(isinstance(layer, keras.Model) for layer in folded.layers)
    assert sum(bool(layer.weights) for layer in folded.layers) == weighted
    assert not folded.get_layer("preprocessing").trainable


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "manet"])
def test_architectures_fold_to_the_same_outputs(name):
    model = with_statistics(build(name, strides=(1, 1)))
    size = model.input_shape[1:]
    pixels = np.random.default_rng(1).uniform(0, 255, (1, *size)).astype(np.float32)
    before, after = (one(pixels, training=False).numpy() for one in (model, fold_model(model)))
    assert np.abs(after - before).max() < 1e-4 * np.abs(before).max()


def test_a_net_of_mixed_precision_folds_to_float32():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = net(normed(layers.Conv2D(4, 3)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    folded = fold_model(model)
    assert {tf.as_dtype(layer.compute_dtype) for layer in folded.layers} == {tf.float32}


def test_a_frozen_separable_convolution_stays_frozen():
    convolution = layers.SeparableConv2D(4, 3, name="separable", trainable=False)
    assert not any("separable" in variable.name for variable in fold_model(net(convolution)).trainable_variables)
