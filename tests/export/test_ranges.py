"""Ranges of nothing but zeros do not spoil an integer file, and infinite ones are refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("scheme", ["int8", "int8_float_io", "int16x8"])
def test_a_dead_tensor_keeps_the_file_whole(tmp_path, pixels, scheme):
    layers = keras.layers
    net = tiny_net(norm=False)
    branch = layers.Conv2D(8, 1, activation="relu", name="dead")(net.get_layer("last_relu").output)
    branch = layers.Conv2D(2, 1, bias_initializer=keras.initializers.Constant([0.5, -0.5]), name="behind")(branch)
    model = keras.Model(net.input, layers.Add(name="sum")([net.output, branch]))
    kernel = model.get_layer("dead").kernel
    kernel.assign(-tf.abs(kernel))
    file = export_tflite(
        model, tmp_path / "m.tflite", scheme=scheme, head="logits", class_names=["a", "b"], calibration=pixels
    )
    opened = open_runtime(file)
    assert ("XNNPACK" in opened.description) == (scheme != "int16x8")
    scale, zero_point = opened.quantization
    got = opened.predict(pixels[0]).astype(np.float32)
    got = (got - zero_point) * scale if scale else got
    wanted = model(pixels[:1].astype(np.float32)).numpy()[0]
    # The bias behind the dead tensor is what the converter's own range loses.
    assert np.abs(got - wanted).max() < 0.05


def test_constants_of_zeros_do_not_end_the_process_that_opens_the_file(tmp_path, pixels):
    image = keras.Input((32, 32, 3))
    x = keras.layers.GroupNormalization(4)(keras.layers.Conv2D(8, 3, padding="same")(image))  # its beta is zero
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(x))
    file = export_tflite(
        model, tmp_path / "m.tflite", scheme="int16x8", head="logits", class_names=["a", "b"], calibration=pixels
    )
    command = [
        sys.executable,
        "-c",
        f"from tfprune.verification.runtimes import open_runtime; open_runtime({str(file)!r})",
    ]
    subprocess.run(command, check=True, capture_output=True)
    wanted = model(pixels[:1].astype(np.float32)).numpy()[0]
    assert np.abs(open_runtime(file).predict(pixels[0]) - wanted).max() < 0.01 * np.ptp(wanted)
    assert read_operators(file)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_values_that_become_infinite_are_refused_by_the_name_of_their_tensor(tmp_path, pixels, activation, scheme):
    layers = keras.layers
    tensor = image = keras.Input((32, 32, 3))
    for number in range(4):
        kernel = keras.initializers.RandomNormal(stddev=1e12, seed=number)
        tensor = layers.Conv2D(8, 3, padding="same", activation=activation, kernel_initializer=kernel)(tensor)
    model = keras.Model(image, layers.Conv2D(2, 1)(tensor), name="tall")
    with pytest.raises(InputError, match=r"values in tall become infinite or no numbers: first in tensor '\S*conv2d"):
        export_tflite(model, tmp_path / "m.tflite", scheme=scheme, class_names=["a", "b"], calibration=pixels)
