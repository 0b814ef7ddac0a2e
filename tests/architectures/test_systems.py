"""The nets of published systems: their parameters, their odd sizes, and the weights of keras.applications."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import randomize
from tfprune.architectures import build_model
from tfprune.architectures.mobile_nets import mobilenet_v2, mobilenet_v3
from tfprune.channels import remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras

SEVERSTAL = {"input_size": (64, 96), "channels": 1, "outputs": 4}
WELLS = {"input_size": (36, 36), "channels": 3, "outputs": 1}
UNET = {"width": 8, "depth": 5, "upsampling": "transpose"}
RES_UNET = {**UNET, "block": "residual", "context": [1, 2, 4, 8, 12]}
XSCAT = {"depth": 2, "batch_norm": False, "upsampling": "transpose", "head_kernel": 3}
SADD = {"width": 64, "convolutions": 1, "merge": "add", "upsampling": "transpose", "bias": True, "odd_sizes": True}


def trainable(model, *, prefixes=("",)):
    """Count the trainable parameters of the layers whose names begin so."""
    layers = [layer for layer in model.layers if layer.name.startswith(prefixes)]
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.trainable_weights)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_unet_of_severstal(activation):
    model = build_model("plain_unet", **SEVERSTAL, **UNET, batch_norm=False, activation=activation)
    assert model.count_params() == 1_944_772


def test_the_residual_unet_of_severstal():
    assert build_model("plain_unet", **SEVERSTAL, **RES_UNET).count_params() == 1_833_012


def test_the_deeplab_of_severstal():
    model = build_model("deeplab_v3_plus", **SEVERSTAL, width=0.5, rates=[], detail_filters=0)
    assert model.count_params() == 713_108


def test_the_small_nets_of_corroseg():
    assert trainable(build_model("plain_unet", **WELLS, **XSCAT)) == 117_169
    assert trainable(build_model("plain_unet", **WELLS, **SADD)) == 12_197_185


def test_the_large_net_of_corroseg():
    model = build_model("corroseg", **WELLS)
    torchvision_resnet50 = 23_508_032
    assert trainable(model, prefixes=("decoder_", "logits")) + torchvision_resnet50 == 71_866_177
    assert trainable(model) == 71_866_177 - 7_549
    sizes = [layer.output_shape[1] for layer in model.layers if layer.name.endswith("_concat")]
    assert sizes == [3, 5, 9, 18]
    assert model.output_shape == (None, 36, 36, 1)


def test_odd_sizes_round_up_and_come_back():
    model = build_model("plain_unet", **WELLS, width=4, odd_sizes=True)
    sizes = [layer.output_shape[1] for layer in model.layers if layer.name.endswith("_pool")]
    assert sizes == [18, 9, 5, 3]
    assert [layer.name for layer in model.layers if layer.name.endswith("_resize")] == [
        "decoder3_resize",
        "decoder2_resize",
    ]
    assert model.output_shape == (None, 36, 36, 1)


@pytest.mark.parametrize(
    "options",
    [
        {**RES_UNET, "width": 4, "depth": 2},
        {"block": "inverted_residual", "width": 4, "depth": 2},
        {**SADD, "width": 8, "depth": 2},
        {"width": 4, "depth": 3, "odd_sizes": True, "activation": "hard_swish", "dropout": 0.1},
    ],
    ids=["residual", "inverted_residual", "add", "odd"],
)
def test_half_of_the_channels_of_every_block_go_exactly(options):
    model = randomize(build_model("plain_unet", **WELLS, **options, seed=0))
    removal = remove_channels(model, 0.5, criterion="random")
    assert removal.equality.difference <= 1e-5
    assert not removal.plan.opaque
    assert removal.model.count_params() < 0.6 * model.count_params()


@pytest.mark.parametrize(("policy", "found"), [("bottleneck", 1), ("encoder", 2), ("decoder", 2), ("everywhere", 5)])
def test_dropout_policies(policy, found):
    model = build_model("plain_unet", **WELLS, width=4, depth=2, dropout=0.25, dropout_at=policy)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25] * found


@pytest.mark.parametrize(
    "name",
    [
        "minimalistic",
        *(pytest.param(f"MobileNet{one}", marks=pytest.mark.slow) for one in ("V2", "V3Small", "V3Large")),
    ],
)
def test_a_mobile_encoder_with_the_weights_of_keras_applications_gives_its_features(name, tmp_path):
    minimalistic = name == "minimalistic"
    library = "MobileNetV3Small" if minimalistic else name
    options = {"alpha": 0.75}
    if library != "MobileNetV2":
        options |= {"minimalistic": minimalistic, "include_preprocessing": False}
    reference = randomize(
        getattr(keras.applications, library)(include_top=False, weights=None, input_shape=(64, 96, 3), **options)
    )
    reference.save_weights(tmp_path / "weights.h5")
    image = keras.Input((64, 96, 3))
    common = {"width": 0.75, "output_stride": 32, "weights": str(tmp_path / "weights.h5")}
    if library == "MobileNetV2":
        reference = keras.Model(reference.input, reference.get_layer("block_16_project_BN").output)
        features = mobilenet_v2(image, **common)
    else:
        features = mobilenet_v3(image, size=library[11:].lower(), minimalistic=minimalistic, **common)
    assert {stride: tuple(tensor.shape[1:3]) for stride, tensor in features.items()} == {
        stride: (64 // stride, 96 // stride) for stride in (2, 4, 8, 16, 32)
    }
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    wanted = reference(pixels, training=False).numpy()
    found = keras.Model(image, features[32])(pixels, training=False).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, {1}), (16, {1, 2}), (8, {1, 2, 4})])
def test_past_the_output_stride_blocks_are_dilated(output_stride, dilations):
    features = mobilenet_v2(keras.Input((64, 64, 3)), width=0.35, output_stride=output_stride)
    model = keras.Model(keras.utils.get_source_inputs(features[output_stride]), features[output_stride])
    found = {layer.dilation_rate[0] for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)}
    assert found == dilations and max(features) == output_stride
    assert model.output_shape[1] == 64 // output_stride


@pytest.mark.slow
def test_the_encoder_of_a_net_keeps_read_weights_and_the_rest_is_drawn(tmp_path):
    library = randomize(keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(64, 64, 3)))
    library.save_weights(tmp_path / "weights.h5")
    model = build_model(
        "lraspp", input_size=(32, 32), outputs=2, seed=0, encoder_weights=str(tmp_path / "weights.h5"), filters=8
    )
    first = next(layer for layer in library.layers if isinstance(layer, keras.layers.Conv2D))
    np.testing.assert_array_equal(model.get_layer("encoder_first_conv").get_weights()[0], first.get_weights()[0])
    with pytest.raises(InputError, match=r"weights\.h5 does not fit MobileNetV3Small with 1 channels"):
        build_model("lraspp", input_size=(32, 32), outputs=2, channels=1, encoder_weights=str(tmp_path / "weights.h5"))
    with pytest.raises(InputError, match="there are none for reduced_tail"):
        build_model("lraspp", input_size=(32, 32), outputs=2, encoder_weights="imagenet", reduced_tail=True)


def test_deeplab_reads_any_encoder_at_a_sixteenth():
    model = build_model("deeplab_v3_plus", encoder="resnet18", input_size=(64, 96), outputs=3, filters=8, rates=[2])
    assert model.get_layer("decoder_rate1_conv").input.shape[1:] == (4, 6, 256)
    assert model.get_layer("decoder_details_conv").input.shape[1:] == (16, 24, 64)
    assert model.output_shape == (None, 64, 96, 3)


def test_added_filters_stand_between_what_the_head_joins_and_the_logits():
    model = build_model("lraspp", input_size=(32, 64), outputs=2, filters=8, added_filters=12)
    assert model.get_layer("decoder_added_conv").filters == 12
    assert model.output_shape == (None, 32, 64, 2)
