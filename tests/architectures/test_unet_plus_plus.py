"""U-Net++: which node reads what, how wide it is, and that it exports."""

from __future__ import annotations

import numpy as np
import pytest

from tests.architectures.tiny_encoder import build_tiny, export, logits_of_file, pictures
from tfprune.architectures import build_model
from tfprune.keras import keras
from tfprune.verification.footprint import measure_footprint

# node -> (channels in: the node to the left, the nodes below, the feature; channels out), on resnet18,
# whose features have 512, 256, 128, 64 and 64 channels
RESNET18_NODES = {
    "x0_0": (512 + 256, 256),
    "x1_1": (256 + 128, 128),
    "x2_2": (128 + 64, 64),
    "x3_3": (64 + 64, 64),
    "x0_1": (256 + 128 + 128, 128),
    "x1_2": (128 + 64 + 64, 64),
    "x2_3": (64 + 64 + 64, 64),
    "x0_2": (128 + 64 + 64 + 64, 64),
    "x1_3": (64 + 64 + 64 + 64, 64),
    "x0_3": (64 + 64 + 64 + 64 + 64, 32),
    "x0_4": (32, 16),
}


@pytest.fixture(scope="module")
def resnet18():
    """The net of full width on a resnet18."""
    return build_model("unet_plus_plus", encoder="resnet18", input_size=(64, 64), outputs=4, seed=0)


@pytest.fixture(scope="module")
def tiny():
    """The net on a tiny encoder."""
    with pytest.MonkeyPatch.context() as patch:
        return build_tiny("unet_plus_plus", patch)


def test_parameters_of_every_node_counted_by_hand(resnet18):
    def parameters(prefix):
        return sum(layer.count_params() for layer in resnet18.layers if layer.name.startswith(prefix))

    for node, (before, after) in RESNET18_NODES.items():
        # two 3x3 convolutions without bias, and four numbers per channel of two batch norms
        assert parameters(f"decoder_{node}") == 9 * before * after + 9 * after * after + 2 * 4 * after, node
    assert parameters("decoder_") == sum(parameters(f"decoder_{node}") for node in RESNET18_NODES)
    assert parameters("logits") == 9 * 16 * 4 + 4
    assert resnet18.count_params() == 15_985_037


@pytest.mark.slow
def test_parameters_on_a_large_encoder():
    model = build_model("unet_plus_plus", encoder="resnet101", input_size=(64, 64), outputs=4)
    assert model.count_params() == 68_075_405


@pytest.mark.parametrize(
    ("node", "left", "right"),
    [
        ("x0_0", "relu1", ["stage4_unit1_relu1"]),
        ("x2_2", "stage3_unit1_relu1", ["stage2_unit1_relu1"]),
        ("x0_1", "decoder_x0_0b_relu", ["decoder_x1_1b_relu", "stage3_unit1_relu1"]),
        ("x1_3", "decoder_x1_2b_relu", ["decoder_x2_3b_relu", "decoder_x3_3b_relu", "relu0"]),
        (
            "x0_3",
            "decoder_x0_2b_relu",
            ["decoder_x1_3b_relu", "decoder_x2_3b_relu", "decoder_x3_3b_relu", "relu0"],
        ),
    ],
)
def test_a_node_reads_what_the_paper_says(resnet18, node, left, right):
    joined = [tensor._keras_history.layer.name for tensor in resnet18.get_layer(f"decoder_{node}_concat").input]
    assert joined == [f"decoder_{node}_up", *right]
    assert resnet18.get_layer(f"decoder_{node}_up").input._keras_history.layer.name == left


def test_the_last_node_has_no_skip(resnet18):
    assert resnet18.get_layer("decoder_x0_4a_conv").input._keras_history.layer.name == "decoder_x0_4_up"
    assert sum(isinstance(layer, keras.layers.Concatenate) for layer in resnet18.layers) == 10
    assert resnet18.get_layer("logits").kernel_size == (3, 3)


@pytest.mark.parametrize(
    "encoder",
    [
        "mobilenetv2",
        "vgg16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnetb0", "densenet121")),
    ],
)
def test_it_builds_on_other_families(encoder):
    model = build_model("unet_plus_plus", encoder=encoder, input_size=(64, 64), outputs=2, seed=0)
    logits = model(np.full((1, 64, 64, 3), 128, np.float32), training=False).numpy()
    assert logits.shape == (1, 64, 64, 2) and np.isfinite(logits).all()


@pytest.mark.slow
def test_float32_file_equals_keras(tiny, tmp_path):
    wanted = tiny(pictures().astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(logits_of_file(export(tiny, tmp_path, "float32")), wanted, atol=1e-4)


@pytest.mark.slow
def test_int8_file_is_near_keras_and_all_integer(tiny, tmp_path):
    path = export(tiny, tmp_path, "int8")
    assert measure_footprint(path).float_ops == ()
    wanted = tiny(pictures().astype(np.float32), training=False).numpy()
    noise = logits_of_file(path) - wanted
    assert 10 * np.log10((wanted**2).mean() / (noise**2).mean()) >= 20
