"""The net for XNNPACK's sparse kernels: where its weights are, how it ends, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.architectures import build_model
from tfprune.channels import Selection, measure_cost, remove_channels
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras
from tfprune.targets.advice import masked
from tfprune.targets.lint import lint_file
from tfprune.verification.runtimes import open_runtime


@pytest.fixture(scope="module")
def net():
    return build_model("sparse_unet", input_size=(32, 48), outputs=2, seed=0)


def test_nine_tenths_of_the_weights_are_in_1x1_convolutions(net):
    pointwise = [one for one in net.layers if type(one) is keras.layers.Conv2D and one.kernel_size == (1, 1)]
    assert sum(one.count_params() for one in pointwise) > 0.9 * net.count_params()
    assert net.count_params() == 333_896


def test_four_logits_of_a_pixel_become_one_of_four_pixels(net):
    body = keras.Model(net.input, [net.get_layer("subpixel_conv").output, net.output])
    packed, logits = body(np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3)).astype(np.float32))
    by_hand = packed.numpy().reshape(16, 24, 2, 2, 2).transpose(0, 2, 1, 3, 4).reshape(1, 32, 48, 2)
    np.testing.assert_array_equal(logits, by_hand)


def test_channels_go_exactly_and_masks_let_the_file_qualify(net, tmp_path):
    smaller = remove_channels(net, Selection(ratio=0.5)).model  # compared with the masked original inside
    assert measure_cost(smaller).macs < 0.35 * measure_cost(net).macs
    path = export_tflite(masked(smaller, 0.9), tmp_path / "a.tflite", class_names=["a", "b"], head="logits")
    assert lint_file(path, "android-sparse").findings == ()
    assert np.asarray(open_runtime(path).predict(np.zeros((32, 48, 3), np.uint8))).shape[-3:] == (32, 48, 2)
