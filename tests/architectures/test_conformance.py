"""What holds for every architecture of the table."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.channels.topologies import randomize
from tfprune.architectures import ARCHITECTURES, build_model
from tfprune.architectures.files import load_model
from tfprune.channels import remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.controller import MaskController
from tfprune.pruning.selection import layers_of_kind, select_layers

# name -> (options of a small net, stride)
SMALL = {
    "plain_unet": ({"width": 4, "depth": 3}, 8),
    "sparse_unet": ({"width": 8, "depth": 2, "blocks": 1}, 8),
    "unet": ({"encoder": "mobilenetv2", "decoder_filters": [16, 16, 8, 8, 8]}, 32),
    "fpn": ({"encoder": "mobilenetv2", "pyramid_filters": 16}, 32),
    "linknet": ({"encoder": "resnet18", "decoder": "transpose"}, 32),
    "pspnet": ({"encoder": "mobilenetv2", "pyramid_filters": 16}, 48),
    "unet_plus_plus": ({"encoder": "resnet18", "decoder_filters": [16, 16, 8, 8, 8]}, 32),
    "manet": ({"encoder": "resnet18", "decoder_filters": [16, 16, 8, 8, 8]}, 32),
    "deeplab_v3_plus": ({"width": 0.35, "filters": 16, "detail_filters": 8, "rates": [2, 4]}, 16),
    "lraspp": ({"width": 0.35, "reduced_tail": True, "filters": 16}, 16),
    "corroseg": ({"encoder": "resnet18", "merge": "add"}, 36),
    "fcn": ({"width": 4, "depth": 2}, 4),
}
ANY_SIZE = ("corroseg",)
"""Nets that take pictures of any height and width; the second number above is one that poolings do not divide."""


def build(architecture: str, *, strides: tuple[int, int] = (1, 2), channels=3, outputs=3, seed=5, **options):
    """Build the small net, `strides` times its stride high and wide."""
    small, stride = SMALL[architecture]
    size = (strides[0] * stride, strides[1] * stride)
    return build_model(architecture, input_size=size, channels=channels, outputs=outputs, seed=seed, **small, **options)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def named(request):
    """The name of an architecture and a small net of it."""
    return request.param, build(request.param)


def test_every_architecture_is_tested_here():
    assert set(SMALL) == set(ARCHITECTURES)


def test_raw_pixels_go_in_and_logits_come_out(named):
    name, model = named
    stride = SMALL[name][1]
    assert model.name == name
    assert model.input_names == ["image"]
    assert model.input_shape == (None, stride, 2 * stride, 3)
    assert model.output_shape == (None, stride, 2 * stride, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, stride, 2 * stride, 3)).astype(np.float32)
    logits = model(pixels, training=False).numpy()
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert logits.min() < 0 < logits.max()


def test_the_graph_is_flat_and_its_ends_are_named(named):
    _, model = named
    names = [layer.name for layer in model.layers]
    assert names[:2] == ["image", "preprocessing"]
    assert names[-1] == "logits" == model.output_names[0]
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert not any(isinstance(layer, keras.Model | keras.layers.Lambda) for layer in model.layers)
    assert getattr(model.layers[-1], "activation", keras.activations.linear) is keras.activations.linear


ENCODERS = {
    "mobilenetv2": ("Conv1", "Conv_1", "bn_Conv1", "expanded_conv", "block_"),
    "resnet18": ("bn_data", "conv0", "bn0", "stage", "bn1"),
    None: ("encoder", "bottleneck", "stem"),
}
"""Encoder -> how the library names its layers, and we ours."""


def test_encoder_and_decoder_are_told_apart(named):
    name, model = named
    begins = ENCODERS[SMALL[name][0].get("encoder")]
    encoder = {layer.name for layer in layers_of_kind(model, "encoder") if layer.weights}
    assert encoder == {layer.name for layer in model.layers if layer.weights and layer.name.startswith(begins)}


def test_layer_names_are_unique_stable_and_without_slashes(named):
    name, model = named
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert not any("/" in layer for layer in names)
    keras.layers.Conv2D(1, 1)(keras.Input((4, 4, 1)))  # moves Keras' own numbers on
    assert [layer.name for layer in build(name).layers] == names


def test_the_seed_decides_the_weights(named):
    name, model = named
    same, other = build(name), build(name, seed=6)
    for one, two in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for kernel in kernels:
        assert not np.array_equal(model.get_layer(kernel).get_weights()[0], other.get_layer(kernel).get_weights()[0])


def test_building_leaves_the_global_random_numbers_alone():
    tf.random.set_seed(3)
    expected = tf.random.uniform([3]).numpy()
    tf.random.set_seed(3)
    build("plain_unet")
    np.testing.assert_array_equal(tf.random.uniform([3]), expected)


def test_without_a_seed_every_net_is_another():
    one, two = (build("plain_unet", seed=None).get_layer("logits").get_weights()[0] for _ in range(2))
    assert not np.array_equal(one, two)


def test_a_saved_net_comes_back(named, tmp_path):
    name, model = named
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    stride = SMALL[name][1]
    pixels = np.random.default_rng(0).integers(0, 256, (1, stride, 2 * stride, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(pixels, training=False), model(pixels, training=False))


def test_every_weight_takes_part_in_training(named):
    name, model = named
    stride = SMALL[name][1]
    pixels = np.random.default_rng(0).integers(0, 256, (2, stride, 2 * stride, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(pixels, training=True) - 1))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_half_of_the_channels_go_exactly(named):
    name, _ = named
    model = randomize(build(name))
    removal = remove_channels(model, 0.5, criterion="random")
    assert removal.equality.difference <= 1e-5
    assert removal.model.count_params() < 0.6 * model.count_params()
    assert not removal.plan.opaque


def test_masks_take_every_layer_but_heads_and_depthwise_ones(named):
    _, model = named
    selection = select_layers(model, min_weights=1)
    dense = {item.layer for item in selection.dense if item.reason != "output head stays dense"}
    assert all(isinstance(model.get_layer(layer), keras.layers.DepthwiseConv2D) for layer in dense)
    stripped = MaskController(model, None, selection=selection).strip()
    pixels = np.full((1, *model.input_shape[1:]), 100, np.float32)
    np.testing.assert_array_equal(stripped(pixels, training=False), model(pixels, training=False))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("channels", "outputs", "strides"), [(1, 1, (2, 1)), (5, 7, (1, 1))])
def test_any_number_of_channels_and_outputs(name, channels, outputs, strides):
    model = build(name, channels=channels, outputs=outputs, strides=strides)
    stride = SMALL[name][1]
    assert model.input_shape == (None, strides[0] * stride, strides[1] * stride, channels)
    assert model.output_shape == (None, strides[0] * stride, strides[1] * stride, outputs)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ANY_SIZE])
def test_a_size_off_the_stride_is_answered_with_the_nearest(name):
    options, stride = SMALL[name]
    with pytest.raises(InputError) as caught:
        build_model(name, input_size=(2 * stride, 2 * stride + 1), outputs=2, **options)
    text = str(caught.value)
    assert f"multiples of {stride}" in text
    assert f"{2 * stride}x{2 * stride} and {2 * stride}x{3 * stride}" in text


def test_small_sizes_are_answered_with_the_smallest():
    with pytest.raises(InputError, match=r"nearest sizes that fit are 32x32$"):
        build_model("unet", input_size=(20, 7), outputs=2)
    with pytest.raises(InputError, match=r"multiples of 48 of at least 96\. The nearest sizes that fit are 96x96$"):
        build_model("pspnet", encoder="inceptionv3", input_size=(48, 48), outputs=2)
    with pytest.raises(InputError, match=r"of downsample_factor 16: .* multiples of 96"):
        build_model("pspnet", downsample_factor=16, input_size=(48, 96), outputs=2)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("u-net", {}, r"unknown architecture 'u-net'; did you mean 'unet'\? Accepted: plain_unet, sparse_unet, unet"),
        ("plain_unet", {"widht": 4}, r"unknown option of the architecture plain_unet 'widht'; did you mean 'width'"),
        ("plain_unet", {"encoder": "vgg16"}, r"unknown option .* 'encoder'"),
        ("plain_unet", {"width": 0}, r"width must be a whole number from 1 to 1024, not 0"),
        ("plain_unet", {"depth": 2.0}, r"depth must be a whole number from 1 to 7, not 2\.0"),
        ("plain_unet", {"activation": "rellu"}, r"unknown activation 'rellu'; did you mean 'relu'"),
        ("plain_unet", {"upsampling": "cubic"}, r"unknown upsampling 'cubic'.* Accepted: nearest, bilinear"),
        ("plain_unet", {"batch_norm": "yes"}, r"batch_norm must be true or false, not 'yes'"),
        ("plain_unet", {"outputs": 0}, r"outputs must be a whole number of at least 1, not 0"),
        ("plain_unet", {"channels": 1.5}, r"channels must be a whole number of at least 1, not 1\.5"),
        ("plain_unet", {"input_size": 96}, r"input_size must be \(height, width\) in whole pixels, not 96"),
        ("plain_unet", {"input_size": (96, 96.5)}, r"not \(96, 96\.5\)"),
        ("sparse_unet", {"width": 0}, r"sparse_unet: width must be a whole number from 1 to 1024, not 0"),
        ("sparse_unet", {"blocks": 9}, r"sparse_unet: blocks must be a whole number from 1 to 8, not 9"),
        ("plain_unet", {"block": "dense"}, r"plain_unet: unknown block 'dense'.* Accepted: plain, residual, inverted"),
        ("plain_unet", {"merge": "add"}, r"merge add: unknown upsampling 'nearest'.* Accepted: transpose"),
        ("plain_unet", {"context": [1, 0]}, r"context must be a list of whole numbers of at least 1, not \[1, 0\]"),
        ("plain_unet", {"dropout": 1}, r"dropout must be a number in 0\.\.1, below 1, not 1"),
        ("plain_unet", {"head_kernel": 2}, r"unknown head_kernel '2'.* Accepted: 1, 3"),
        ("deeplab_v3_plus", {"width": 3}, r"deeplab_v3_plus: width must be a number from 0\.1 to 2, not 3"),
        (
            "deeplab_v3_plus",
            {"encoder": "resnet18", "width": 0.5},
            r"options of the encoder mobilenetv2, not of",
        ),
        ("lraspp", {"encoder": "smal"}, r"lraspp: unknown encoder 'smal'; did you mean 'small'"),
        ("lraspp", {"encoder_weights": "gone.h5"}, r"'gone\.h5' is neither imagenet nor none nor a weights file"),
        (
            "corroseg",
            {"merge": "add", "decoder_filters": [8] * 4},
            r"must be those of the skips, \[1024, 512,",
        ),
        ("corroseg", {"input_size": (16, 36)}, r"multiples of 1 of at least 32\. The nearest sizes that fit are 32x36"),
        ("fcn", {"upsampling": "nearest"}, r"fcn: unknown upsampling 'nearest'.* Accepted: transpose, bilinear"),
        ("unet", {"encoder": "resnet19"}, r"unknown encoder 'resnet19'; did you mean 'resnet1\d"),
        ("unet", {"decoder": "transposed"}, r"unet: unknown decoder 'transposed'; did you mean 'transpose'"),
        ("unet", {"decoder_filters": [16, 8]}, r"decoder_filters must be five whole numbers"),
        ("unet_plus_plus", {"decoder_filters": [8] * 4}, r"unet_plus_plus: decoder_filters must be five whole numbers"),
        ("manet", {"decoder_filters": [16, 16, 8, 8, True]}, r"manet: decoder_filters must be five whole numbers"),
        ("fpn", {"pyramid_filters": 1}, r"pyramid_filters must be a whole number of at least 2"),
        ("pspnet", {"downsample_factor": 32}, r"unknown downsample_factor .32.*Accepted: 4, 8, 16"),
        ("pspnet", {"pyramid_filters": 0}, r"pyramid_filters must be a whole number of at least 1"),
    ],
)
def test_wrong_options_are_answered(name, options, text):
    with pytest.raises(InputError, match=text):
        build_model(name, **{"input_size": (96, 96), "outputs": 2, **options})


def test_plain_unet_has_the_specified_size():
    model = build_model("plain_unet", input_size=(96, 96), outputs=2, seed=0)
    assert model.count_params() == 1_967_058


def test_the_unet_of_the_severstal_system_is_a_plain_unet():
    options = {"width": 8, "depth": 5, "batch_norm": False, "activation": "leaky_relu", "upsampling": "transpose"}
    model = build_model("plain_unet", input_size=(64, 96), channels=1, outputs=4, **options)
    assert model.count_params() == 1_944_772
    assert model.get_layer("preprocessing").get_config()["scale"] == pytest.approx(1 / 255)


@pytest.mark.parametrize("activation", ["relu6", "leaky_relu", "swish"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transpose"])
def test_plain_unet_options_are_in_the_graph(activation, upsampling):
    model = build("plain_unet", activation=activation, upsampling=upsampling, batch_norm=False)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert "BatchNormalization" not in kinds
    assert ("Conv2DTranspose" in kinds) == (upsampling == "transpose")
    assert f"bottlenecka_{activation}" in [layer.name for layer in model.layers]
    assert np.isfinite(model(np.full((1, 8, 16, 3), 255, np.float32))).all()


@pytest.mark.parametrize(
    ("name", "encoder", "options", "parameters"),
    [
        ("unet", "resnet18", {}, 14_341_005),
        ("fpn", "resnet18", {}, 13_818_829),
        ("linknet", "resnet18", {}, 11_522_125),
        ("unet", "mobilenetv2", {}, 8_047_876),
        ("fpn", "mobilenetv2", {}, 5_213_508),
        ("linknet", "mobilenetv2", {}, 4_145_012),
        pytest.param("unet", "resnet101", {}, 51_605_901, marks=pytest.mark.slow),
        pytest.param("fpn", "resnet101", {}, 45_959_629, marks=pytest.mark.slow),
        pytest.param("linknet", "resnet101", {}, 47_828_173, marks=pytest.mark.slow),
        pytest.param("linknet", "resnet101", {"decoder": "transpose"}, 50_267_085, marks=pytest.mark.slow),
    ],
)
def test_parameter_counts_are_those_of_the_library(name, encoder, options, parameters):
    model = build_model(name, encoder=encoder, input_size=(64, 64), outputs=4, **options)
    assert model.count_params() == parameters


def test_names_of_architectures_need_no_tensorflow():
    code = (
        "import sys; from tfprune.architectures import ARCHITECTURES, ENCODERS; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_printed_when_the_library_is_imported():
    code = "import tfprune.architectures.encoders"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
