"""What holds for every number format and every head: one line each."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import (
    NETS,
    SIZE,
    L,
    class_names,
    classes_of_logits,
    exported,
    logits_of,
    pictures,
    with_weights,
)
from tfprune.architectures import build_model
from tfprune.errors import InputError
from tfprune.export import CLASS_MAPS, HEADS, SCHEMES
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.runtimes import open_runtime

TEST_IMAGES = pictures(6, seed=2)

# scheme -> (signal to noise of the logits, dB; share of pixels with the class of Keras; file bytes / float32's)
EXPECTED = {
    "float32": (100, 0.9999, 1.01),
    "float16": (50, 0.998, 0.8),
    "dynamic_int8": (25, 0.98, 0.8),
    "int8": (20, 0.95, 0.7),
    "int8_float_io": (20, 0.95, 0.7),
    "int16x8": (30, 0.98, 0.75),
}


def real_answers(path):
    model = open_runtime(path)
    scale, zero_point = model.quantization
    values = np.stack([model.predict(image) for image in TEST_IMAGES]).astype(np.float32)
    return (values - zero_point) * scale if scale else values


def classes(path, images=TEST_IMAGES):
    model = open_runtime(path)
    return np.stack([model.classes_of(image) for image in images])


NORMS = {
    "group": lambda: L.GroupNormalization(4),
    "layer": lambda: L.LayerNormalization(),
    "unit": lambda: L.UnitNormalization(),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("clip", [0, 1e-4])
def test_norms_that_sum_or_square_are_right_in_int16(norm, clip, tmp_path):
    image = L.Input((SIZE, SIZE, 3))
    x = L.ReLU()(NORMS[norm]()(L.Conv2D(8, 3, padding="same")(L.Rescaling(1 / 255)(image))))
    model = with_weights(keras.Model(image, L.Conv2D(3, 1, name="logits")(x)))
    options = {"head": "logits", "class_names": class_names(3), "calibration": pictures(16, seed=1), "clip": clip}
    path = export_tflite(model, tmp_path / "a.tflite", scheme="int16x8", **options)
    wanted = logits_of(model, TEST_IMAGES)
    for runtime in ("litert", "litert-reference"):
        answers = np.stack([open_runtime(path, runtime=runtime).predict(image) for image in TEST_IMAGES])
        assert 10 * np.log10((wanted**2).mean() / ((answers - wanted) ** 2).mean()) > 30
    assert not {"SUM", "SQUARED_DIFFERENCE"} & set(measure_footprint(path).ops)


@pytest.mark.parametrize("scheme", ["int8_float_io", "int16x8"])
def test_squares_are_integers_too(scheme, tmp_path):
    image = L.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, padding="same")(L.Rescaling(1 / 255)(image))
    x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), [1, 2], keepdims=True) + 1e-3)
    model = with_weights(keras.Model(image, L.Conv2D(3, 1, name="logits")(x)))
    options = {"head": "logits", "class_names": class_names(3), "calibration": pictures(16, seed=1)}
    path = export_tflite(model, tmp_path / "a.tflite", scheme=scheme, **options)
    assert measure_footprint(path).float_ops == ()
    wanted, answers = logits_of(model, TEST_IMAGES), real_answers(path)
    assert 10 * np.log10((wanted**2).mean() / ((answers - wanted) ** 2).mean()) > (20 if "int8_" in scheme else 30)


@pytest.mark.parametrize("layer", ["comparison", "padding"])
def test_int16_files_that_no_runtime_opens_are_refused(layer, tmp_path):
    image = L.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, padding="same")(L.Rescaling(1 / 255)(image))
    if layer == "padding":
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)[:, 1:-1, 1:-1]
    else:
        x = L.ReLU(6.0, negative_slope=0.1, threshold=0.2)(x)
    model = keras.Model(image, L.Conv2D(3, 1)(x), name="net")
    options = {"class_names": class_names(3), "calibration": pictures(8, seed=1)}
    with pytest.raises(InputError, match=r"(GREATER|PADV2) \(net/.* of net .* no runtime opens .* another scheme"):
        export_tflite(model, tmp_path / "a.tflite", scheme="int16x8", **options)
    assert open_runtime(export_tflite(model, tmp_path / "a.tflite", scheme="int8", **options), runtime="litert")


def test_every_scheme_is_tested_here():
    assert set(EXPECTED) == set(SCHEMES)


@pytest.mark.parametrize("scheme", EXPECTED)
@pytest.mark.parametrize(("net", "outputs"), [("plain", 3), ("light", 1)])
def test_logits_are_near_those_of_keras(scheme, net, outputs):
    decibels, equal_ratio, bytes_ratio = EXPECTED[scheme]
    path, wanted = exported(net, outputs, scheme, "logits"), logits_of(NETS[net](outputs), TEST_IMAGES)
    noise = real_answers(path) - wanted
    assert 10 * np.log10((wanted**2).mean() / (noise**2).mean()) >= decibels
    assert (classes(path) == classes_of_logits(wanted)).mean() >= equal_ratio
    found = measure_footprint(path)
    assert found.float_ops == ()
    if net == "plain":  # the other one is mostly structure
        assert found.file_bytes <= bytes_ratio * exported(net, outputs, "float32", "logits").stat().st_size


@pytest.mark.parametrize("scheme", EXPECTED)
def test_it_takes_and_gives_what_the_table_says(scheme):
    for head in HEADS:
        model = open_runtime(exported("plain", 3, scheme, head))
        assert model._input.dtype == SCHEMES[scheme].pixels
        assert model._output.dtype == ("int32" if head in CLASS_MAPS else SCHEMES[scheme].scores)
        assert model._input.shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize("scheme", EXPECTED)
def test_full_resolution_heads_give_the_same_classes(scheme):
    wanted = classes(exported("plain", 3, scheme, "logits"))
    np.testing.assert_array_equal(classes(exported("plain", 3, scheme, "class_map")), wanted)
    # probabilities in 256 steps can tie
    assert (classes(exported("plain", 3, scheme, "probabilities")) == wanted).mean() > 0.98


def test_int16_has_no_argmax_and_the_footprint_names_it():
    (named,) = measure_footprint(exported("plain", 3, "int16x8", "class_map")).float_ops
    assert named.startswith("ARG_MAX")


def enlarged(ids, size=SIZE):
    factor = -(-size // ids.shape[1])
    return ids.repeat(factor, axis=1).repeat(factor, axis=2)[:, :size, :size]


@pytest.mark.parametrize(("net", "outputs"), [("plain", 3), ("light", 1)])
def test_the_coarse_head_gives_every_second_class_of_the_model(net, outputs):
    path = exported(net, outputs, "float32", "coarse_class_map")
    wanted = classes_of_logits(logits_of(NETS[net](outputs), TEST_IMAGES))[:, 1::2, 1::2]
    assert (classes(path) == enlarged(wanted)).mean() > 0.9999
    whole = measure_footprint(exported(net, outputs, "float32", "class_map"))
    assert measure_footprint(path).macs < whole.macs
    if net == "plain":  # the 3x3 convolution before the logits has stride 2 there, and the 1x1 a quarter of the pixels
        saved = SIZE**2 * 3 / 4 * (3 * 3 * 20 * 8 + 8 * 3)
        assert whole.macs - measure_footprint(path).macs == saved


def small_net(build, *, size=SIZE):
    keras.utils.set_random_seed(3)
    image = L.Input((size, size, 3))
    return keras.Model(image, build(L.Conv2D(6, 3, padding="same", activation="relu")(image)))


def shared_end(x):
    y = L.Conv2D(3, 3, padding="same")(x)
    return L.Add()([y, L.Conv2D(3, 1)(L.Conv2D(3, 3, padding="same", activation="relu")(y))])


COARSE = {
    "a closing resize": (
        lambda x: L.UpSampling2D(4, interpolation="bilinear")(L.Conv2D(3, 3, strides=4)(L.ZeroPadding2D(1)(x))),
        SIZE,
    ),
    "an odd size": (lambda x: L.Conv2D(3, 3, padding="same")(x), 15),
    "a dilated convolution": (lambda x: L.Conv2D(3, 3, dilation_rate=2, padding="same")(x), SIZE),
    "a tensor wanted twice": (shared_end, SIZE),
    "softmax behind two branches": (
        lambda x: L.Softmax()(L.Add()([L.Conv2D(3, 3, padding="same")(x), L.Conv2D(3, 1)(x)])),
        SIZE,
    ),
}


@pytest.mark.parametrize("case", COARSE)
def test_the_coarse_head_fits_any_ending(case, tmp_path):
    build, size = COARSE[case]
    model, images = small_net(build, size=size), pictures(4, size=32)[:, :size, :size]
    path = export_tflite(model, tmp_path / "a.tflite", class_names=class_names(3), head="coarse_class_map")
    if case == "a closing resize":
        wanted = classes_of_logits(logits_of(keras.Model(model.input, model.layers[-2].output), images))
    else:
        wanted = classes_of_logits(logits_of(model, images))[:, 1 - size % 2 :: 2, 1 - size % 2 :: 2]
    assert (classes(path, images) == enlarged(wanted, size)).mean() > 0.999


@pytest.mark.parametrize("options", [{}, {"strides": 3, "padding": "valid"}, {"use_bias": False, "padding": "valid"}])
def test_a_norm_behind_a_transposed_convolution_is_folded(options, tmp_path):
    model = small_net(
        lambda x: L.Conv2D(3, 1)(
            L.ReLU(6.0)(
                L.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal")(
                    L.Conv2DTranspose(4, 3, **{"strides": 2, "padding": "same", **options})(
                        L.MaxPooling2D(options.get("strides", 2))(x)
                    )
                )
            )
        ),
        size=30,
    )
    if model.output_shape[1] != 30:
        model = keras.Model(model.input, L.Cropping2D(((0, model.output_shape[1] - 30),) * 2)(model.output))
    path = export_tflite(
        model,
        tmp_path / "a.tflite",
        scheme="int8",
        head="logits",
        class_names=class_names(3),
        calibration=pictures(8)[:, :30, :30],
    )
    found = measure_footprint(path)
    assert found.ops["TRANSPOSE_CONV"] == 1 and not {"MUL", "ADD"} & set(found.ops) and found.float_ops == ()


@pytest.fixture(scope="module")
def mostly_zero():
    net = build_model("plain_unet", input_size=(SIZE, SIZE), outputs=3, width=16, depth=2, seed=0)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, L.Conv2D) and layer.name != "logits":
            kernel, *rest = layer.get_weights()
            layer.set_weights([np.where(rng.random(kernel.shape) < 0.9, 0, kernel), *rest])
    return net


@pytest.mark.parametrize("scheme", [name for name, row in SCHEMES.items() if row.sparse])
def test_sparse_files_are_small_and_say_the_same(scheme, mostly_zero, tmp_path):
    common = {"scheme": scheme, "class_names": class_names(3), "calibration": pictures(8)}
    dense = export_tflite(mostly_zero, tmp_path / "dense.tflite", **common)
    sparse = export_tflite(mostly_zero, tmp_path / "sparse.tflite", sparse=True, **common)
    assert sparse.stat().st_size < 0.6 * dense.stat().st_size
    assert measure_footprint(sparse).ops["DENSIFY"] >= 8
    np.testing.assert_array_equal(classes(sparse), classes(dense))
