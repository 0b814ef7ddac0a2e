"""Kernels on the int8 grid: errors cancel, what must stay stays, and the file gets just these integers."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from tfprune.export import conversion
from tfprune.export.conversion import export_tflite
from tfprune.export.rounding import round_kernel, rounded_kernels
from tfprune.keras import keras
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime

L = keras.layers
SIZE = 32


@pytest.mark.parametrize("shape", [(9, 3, 16), (9, 1, 24), (1, 40, 12), (25, 6, 5)])
def test_errors_of_a_slice_and_of_a_filter_cancel(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel[:, :, 0] = 0
    kernel[np.random.default_rng(1).random(shape) < 0.3] = 0
    steps = np.where(np.abs(kernel).max((0, 1)) > 0, np.abs(kernel).max((0, 1)), 1) / 127
    exact, rounded = kernel / steps, round_kernel(kernel) / steps
    np.testing.assert_allclose(rounded, np.round(rounded), atol=1e-4)
    errors = rounded - exact
    assert np.abs(errors).max() < 1.001
    assert np.abs(errors.sum(axis=(0, 1))).max() <= 0.501
    assert np.abs(errors.sum(axis=0)).max() <= 1.501  # half a step, and a step for the sake of the filter
    assert (rounded[kernel == 0] == 0).all()
    np.testing.assert_allclose(np.abs(rounded).max((0, 1))[1:], 127, atol=1e-4)


def pictures(count, *, seed=0):
    """Return uint8 pictures of one brightness each, with a faint texture."""
    generator = np.random.default_rng(seed)
    brightness = generator.uniform(60, 245, (count, 1, 1, 1))
    return (brightness + generator.normal(0, 4, (count, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def edge_net():
    """A net that looks for edges in bright pictures: filters whose weights sum to zero."""
    image = L.Input((SIZE, SIZE, 3))
    x = L.Rescaling(1 / 255)(image)
    x = L.Conv2D(16, 3, padding="valid", use_bias=False, name="edges")(x)
    x = L.ZeroPadding2D(1)(L.BatchNormalization(name="norm")(x))
    model = keras.Model(image, L.Conv2D(2, 1, name="logits")(L.ReLU()(x)))
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 16)).astype(np.float32)
    model.get_layer("edges").set_weights([kernel - kernel.mean(axis=(0, 1, 2))])
    edges = keras.Model(image, model.get_layer("edges").output)(pictures(8).astype(np.float32)).numpy()
    norm = model.get_layer("norm")
    gamma = np.linspace(-2, 2, 16).astype(np.float32)
    norm.set_weights([gamma, np.ones(16), edges.mean((0, 1, 2)), edges.var((0, 1, 2))])
    return model


def noise(model, path):
    """Return the mean square error of a file's logits over the variance of the model's, decibels below it."""
    runtime, images = open_runtime(path), pictures(16, seed=1)
    wanted = model.predict(images.astype(np.float32), verbose=0)
    found = np.stack([runtime.predict(image) for image in images])
    return 10 * np.log10(wanted.var() / ((found - wanted) ** 2).mean())


def test_the_first_convolution_loses_less_than_by_nearest_rounding(tmp_path, monkeypatch):
    model = edge_net()
    before = [weight.copy() for weight in model.get_weights()]
    settings = {"scheme": "int16x8", "head": "logits", "class_names": ["a", "b"], "calibration": pictures(8)}
    ours = noise(model, export_tflite(model, tmp_path / "ours.tflite", **settings))
    layer = model.get_layer("edges")
    assert layer.kernel is layer.trainable_weights[0]
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    monkeypatch.setattr(conversion, "rounded_kernels", lambda model: nullcontext())
    nearest = noise(model, export_tflite(model, tmp_path / "nearest.tflite", **settings))
    assert ours > nearest + 6


def test_the_file_holds_the_integers_that_were_chosen(tmp_path):
    model = edge_net()
    settings = {"scheme": "int8", "head": "logits", "class_names": ["a", "b"], "calibration": pictures(8)}
    path = export_tflite(model, tmp_path / "net.tflite", **settings)
    stored = next(one.inputs[1].values for one in read_operators(path) if one.name == "CONV_2D")
    kernel = model.get_layer("edges").kernel.numpy()
    chosen = round_kernel(kernel.reshape(9, 3, 16)).reshape(3, 3, 3, 16)
    gamma = np.sign(model.get_layer("norm").gamma.numpy())
    integers = np.round(chosen * 127 / np.abs(chosen).max((0, 1, 2)) * gamma)
    np.testing.assert_array_equal(stored, np.moveaxis(integers, -1, 0))


def test_weights_are_back_when_tracing_fails():
    model = edge_net()
    with pytest.raises(RuntimeError), rounded_kernels(model):
        assert model.get_layer("edges").kernel is not model.get_layer("edges").trainable_weights[0]
        raise RuntimeError
    assert model.get_layer("edges").kernel is model.get_layer("edges").trainable_weights[0]


def test_branches_with_equal_biases_each_add_their_own_in_int16(tmp_path):
    image = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(image))
    bias = keras.initializers.Constant(0.4)
    branches = [L.Conv2D(8, 1 + 2 * side, padding="same", bias_initializer=bias)(x) for side in range(3)]
    quiet = [0.01, 1.0, 30.0]
    for branch, gain in zip(branches, quiet, strict=True):
        kernel = branch._keras_history.layer.kernel
        kernel.assign(kernel * gain)
    model = keras.Model(image, L.Conv2D(3, 1)(L.Add()(branches)))
    images = pictures(8)
    wanted = model(images.astype(np.float32)).numpy()
    weights = [weight.numpy() for weight in model.weights]
    path = export_tflite(
        model, tmp_path / "a.tflite", scheme="int16x8", head="logits", class_names=["a", "b", "c"], calibration=images
    )
    opened = open_runtime(path)
    found = np.stack([opened.predict(one) for one in images])
    assert found.dtype == np.float32 and np.abs(found - wanted).mean() < 0.01 * np.abs(wanted).mean()
    assert all((before == after.numpy()).all() for before, after in zip(weights, model.weights, strict=True))
