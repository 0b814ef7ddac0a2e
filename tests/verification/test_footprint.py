from __future__ import annotations

import gzip
import io
import sys

import numpy as np
import pytest

from tests.export.nets import L, exported, pictures, plain_net, without_card
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.graph import _SCHEMAS

NAMES = ["a", "b"]

MACS = {
    "conv": 4 * 4 * 4 * (3 * 3 * 3),
    "depthwise": 4 * 4 * 4 * (3 * 3),
    "transposed": 4 * 4 * 4 * (2 * 2 * 5),
    "dense": 5 * 5,
    "logits": 8 * 8 * 2 * 5,
}
PARAMETERS = {
    "conv": 3 * 3 * 3 * 4 + 4,
    "depthwise": 3 * 3 * 4 + 4,
    "transposed": 2 * 2 * 4 * 5 + 5,
    "dense": 5 * 5 + 5,
    "logits": 5 * 2 + 2,
}


@pytest.fixture(scope="module")
def counted_net():
    """One layer of each kind that is counted; every weight between .2 and 1 but for 7 zeros in `conv`.

    The pixels are made small, so that no bias is rounded to 0 in integers.
    """
    image = L.Input((8, 8, 3))
    x = L.Rescaling(1e-4)(image)
    x = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = L.Conv2DTranspose(5, 2, strides=2, name="transposed")(x)
    gate = L.Dense(5, name="dense")(L.GlobalAveragePooling2D()(x))
    x = L.Multiply()([x, L.Reshape((1, 1, 5))(gate)])
    model = keras.Model(image, L.Conv2D(2, 1, name="logits")(x), name="counted")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1, weight.shape) for weight in model.get_weights()])
    conv = model.get_layer("conv")
    (kernel,) = conv.get_weights()
    kernel.reshape(-1)[:7] = 0
    conv.set_weights([kernel])
    return model


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_macs_and_parameters_by_hand(counted_net, scheme, tmp_path):
    path = export_tflite(
        counted_net,
        tmp_path / "a.tflite",
        scheme=scheme,
        head="logits",
        class_names=NAMES,
        calibration=pictures(8, size=8),
    )
    found = measure_footprint(path)
    assert found.macs == sum(MACS.values())
    assert found.parameters == sum(PARAMETERS.values())
    assert found.nonzero_parameters == sum(PARAMETERS.values()) - 7
    assert found.float_ops == ()
    assert {
        "CONV_2D": 2,
        "DEPTHWISE_CONV_2D": 1,
        "TRANSPOSE_CONV": 1,
        "FULLY_CONNECTED": 1,
    }.items() <= found.ops.items()


def test_bytes_are_those_of_the_file():
    path = exported("plain", 3, "int8", "probabilities")
    data = path.read_bytes()
    found = measure_footprint(path)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(data)
    assert found.file_bytes == len(data)
    assert found.gzip_bytes == len(packed.getvalue())


def test_parameters_equal_keras_after_folding():
    """A batch norm's four vectors become one bias, which the convolution here has already."""
    model = plain_net(3)
    wanted = model.count_params() - model.get_layer("a_norm").count_params()
    assert measure_footprint(exported("plain", 3, "float32", "logits")).parameters == wanted


def test_equal_biases_count_apart_and_shared_weights_once(tmp_path):
    image = L.Input((8, 8, 1))
    shared = L.Conv2D(4, 3, padding="same", name="shared", bias_initializer="ones")
    x = L.Conv2D(4, 1, name="first", bias_initializer="zeros")(image)
    x = L.Conv2D(4, 1, name="second", bias_initializer="zeros")(shared(shared(x)))
    model = keras.Model(image, L.Conv2D(2, 1, bias_initializer="zeros", name="logits")(x))
    path = export_tflite(model, tmp_path / "a.tflite", class_names=NAMES)
    assert measure_footprint(path).parameters == model.count_params()


def test_matmul_between_activations(tmp_path):
    image = L.Input((4, 4, 3))
    tokens = L.Reshape((16, 3))(image)
    pairs = L.Dot(axes=(2, 2))([tokens, tokens])
    mixed = L.Reshape((4, 4, 3))(L.Dot(axes=(2, 1))([pairs, tokens]))
    path = export_tflite(keras.Model(image, L.Conv2D(2, 1)(mixed)), tmp_path / "a.tflite", class_names=NAMES)
    found = measure_footprint(path)
    assert found.ops["BATCH_MATMUL"] == 2
    assert found.macs == 2 * 16 * 16 * 3 + 16 * 2 * 3
    assert found.parameters == 3 * 2 + 2


def test_float16_weights_are_seen_behind_their_dequantize(tmp_path):
    image = tf.keras.Input((8, 8, 3))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, L.Conv2D(40, 3, name="conv")(image)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "half.tflite"
    path.write_bytes(converter.convert())
    found = measure_footprint(path)
    assert found.ops["DEQUANTIZE"] >= 1
    assert found.parameters == 3 * 3 * 3 * 40 + 40
    assert found.float_ops == ()
    assert found.macs is None  # the batch dimension was left open


def test_without_a_schema_only_the_bytes_are_known(monkeypatch):
    for name in _SCHEMAS:
        monkeypatch.setitem(sys.modules, name, None)
    found = measure_footprint(exported("plain", 3, "int8", "probabilities"))
    assert found.file_bytes > found.gzip_bytes > 1000
    assert (found.parameters, found.nonzero_parameters, found.macs, found.ops, found.float_ops) == (None,) * 5


@pytest.mark.parametrize("kept", [0, 5, 40, 3000, -9])
def test_truncated_files_are_refused(kept, tmp_path):
    path = tmp_path / "cut.tflite"
    bare = without_card(exported("plain", 3, "int8", "probabilities"), path)
    path.write_bytes(bare.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cut\.tflite"):
        measure_footprint(path)
