"""The encoders of segmentation-models: pixels, weights, and the same numbers as in the library."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.architectures import ENCODERS, build_model
from tfprune.architectures.encoders import encoder_preprocessing, segmentation_models
from tfprune.architectures.finishing import Draft, finish_model
from tfprune.errors import InputError
from tfprune.keras import keras

SUBMODULES = {name: getattr(keras, name) for name in ("backend", "layers", "models", "utils")}


def library_encoder(name: str, *, channels: int = 3):
    """Return the bare encoder as the library builds it."""
    backbones = segmentation_models.Backbones
    return backbones.get_backbone(
        name, input_shape=(None, None, channels), weights=None, include_top=False, **SUBMODULES
    )


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    """A weights file of a resnet18, and the net whose weights they are."""
    encoder = library_encoder("resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18_no_top.h5"
    encoder.save_weights(path)
    return path, encoder


def unet(encoder: str = "resnet18", **options):
    """Build a 64x64 U-Net with 2 outputs."""
    return build_model("unet", encoder=encoder, input_size=(64, 64), outputs=2, **options)


def test_the_table_is_the_librarys_list():
    assert set(ENCODERS) == set(segmentation_models.get_available_backbone_names())
    assert len(set(ENCODERS)) == len(ENCODERS) == 32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_preprocessing_is_the_librarys(encoder):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    ours = encoder_preprocessing(encoder, 3)
    values = pixels * np.array(ours.scale) + np.array(ours.offset)
    expected = segmentation_models.get_preprocessing(encoder)(pixels.copy())
    np.testing.assert_allclose(values[..., ::-1] if ours.bgr else values, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_preprocessing_of_other_pictures_is_the_mean_of_the_three(channels):
    ours = encoder_preprocessing("vgg16", channels)
    assert ours.scale == (1.0,) * channels
    assert ours.offset == pytest.approx((-(123.68 + 116.779 + 103.939) / 3,) * channels)
    assert not ours.bgr


@pytest.mark.parametrize(
    "encoder",
    [
        "seresnet18",  # Lambda layers in the gates
        pytest.param("inceptionresnetv2", marks=pytest.mark.slow),  # Lambda layers in the residuals
        "efficientnetb0",  # a dropout and an activation of its own
        "densenet121",  # slashes
        pytest.param("seresnext50", marks=pytest.mark.slow),  # grouped convolutions made by hand
        pytest.param("resnext50", marks=pytest.mark.slow),
    ],
)
def test_the_finished_net_computes_what_the_librarys_does(encoder):
    net = segmentation_models.Unet(
        encoder, input_shape=(None, None, 3), classes=3, activation="linear", encoder_weights=None
    )
    draft = Draft(net, scale=[2.0, 1.0, 0.5], offset=[0.0, -1.0, 0.0], loaded=lambda name: True)
    model = finish_model(draft, name="copy", input_size=(64, 96), channels=3, seed=0)
    assert model.count_params() == net.count_params()
    pixels = np.random.default_rng(0).random((1, 64, 96, 3)).astype(np.float32)
    expected = net(pixels * np.float32([2, 1, 0.5]) + np.float32([0, -1, 0]), training=False).numpy()
    np.testing.assert_allclose(model(pixels, training=False), expected, atol=1e-5 * np.abs(expected).max())


def test_weights_of_a_file_reach_the_encoder_and_nothing_else(resnet18_file):
    path, encoder = resnet18_file
    model = unet(encoder_weights=str(path), seed=4)
    from_scratch = unet(seed=4)
    loaded = 0
    for layer in encoder.layers:
        if layer.weights:
            for ours, theirs in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            loaded += layer.count_params()
    decoder = [layer.name for layer in model.layers if layer.name.startswith(("decoder", "logits"))]
    for name in decoder:
        for ours, theirs in zip(
            model.get_layer(name).get_weights(), from_scratch.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert loaded + sum(model.get_layer(name).count_params() for name in decoder) == model.count_params()


@pytest.mark.parametrize("architecture", ["fpn", "linknet", "pspnet", "unet_plus_plus", "manet"])
def test_weights_of_a_file_reach_the_encoders_of_all(architecture, resnet18_file):
    path, encoder = resnet18_file
    model = build_model(architecture, input_size=(96, 96), outputs=2, encoder_weights=str(path), seed=4)
    other = build_model(architecture, input_size=(96, 96), outputs=2, seed=4)
    ours = {layer.name for layer in encoder.layers} & {layer.name for layer in model.layers}
    kernels = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for name in kernels:
        same_as_drawn = np.array_equal(model.get_layer(name).get_weights()[0], other.get_layer(name).get_weights()[0])
        assert same_as_drawn == (name not in ours), name


def test_bgr_weights_read_rgb_pixels(tmp_path):
    encoder = library_encoder("vgg16")
    encoder.save_weights(tmp_path / "vgg16.h5")
    model = unet("vgg16", encoder_weights=str(tmp_path / "vgg16.h5"))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    ours = keras.Model(model.input, model.get_layer("block2_conv2").output)(pixels)
    theirs = keras.Model(encoder.input, encoder.get_layer("block2_conv2").output)
    expected = theirs(segmentation_models.get_preprocessing("vgg16")(pixels.copy())).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_imagenet_weights_come_through_the_library(resnet18_file, monkeypatch):
    path, encoder = resnet18_file
    asked = []
    monkeypatch.setattr(keras.utils, "get_file", lambda *args, **kwargs: asked.append(args) or str(path))
    model = unet(encoder_weights="imagenet")
    assert asked[0][0] == "resnet18_imagenet_1000_no_top.h5"
    np.testing.assert_array_equal(
        model.get_layer("conv0").get_weights()[0], encoder.get_layer("conv0").get_weights()[0]
    )


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv2", "efficientnetb0"])
def test_without_a_network_the_way_out_is_named(encoder, monkeypatch):
    def no_network(*args, **kwargs):
        raise Exception(f"URL fetch failure on {args[1]}: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(InputError) as caught:
        unet(encoder, encoder_weights="imagenet")
    text = str(caught.value)
    assert "URL fetch failure" in text
    assert "set encoder_weights to none, or to the path of the weights file" in text


def test_imagenet_weights_want_three_channels():
    with pytest.raises(InputError, match=r"the pictures have 1\. Read them with channels: 3 .* or set .* to none"):
        unet(channels=1, encoder_weights="imagenet")


def test_none_may_be_written_out():
    assert unet(encoder_weights="none").count_params() == unet().count_params()


def test_weights_that_are_no_file_are_named(tmp_path):
    with pytest.raises(InputError, match="'imagenet21k' is neither imagenet nor none nor a weights file"):
        unet(encoder_weights="imagenet21k")
    (tmp_path / "weights.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match=r"not a Keras weights file in HDF5 format"):
        unet(encoder_weights=str(tmp_path / "weights.h5"))


@pytest.mark.parametrize(("encoder", "channels"), [("resnet34", 3), ("resnet18", 1)])
def test_weights_that_do_not_fit_are_named(encoder, channels, resnet18_file):
    with pytest.raises(InputError, match=rf"resnet18_no_top\.h5 does not fit {encoder} with {channels} channels"):
        unet(encoder, channels=channels, encoder_weights=str(resnet18_file[0]))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_builds_and_asks_for_its_imagenet_weights(encoder, monkeypatch):
    keras.backend.clear_session()
    model = unet(encoder, seed=0)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert not any("/" in name for name in names)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"tf_keras"}
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)
    assert np.isfinite(model(np.full((1, 64, 64, 3), 128, np.float32), training=False)).all()

    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(InputError, match="URL fetch failure"):
        unet(encoder, encoder_weights="imagenet")
