"""Nets of the table, pruned and trained with rounding: nothing but int8 in the files, and the zeros where they were."""

from __future__ import annotations

import numpy as np
import pytest

from tests.architectures.test_conformance import SMALL
from tests.quantization.test_folding import with_statistics
from tests.quantization.test_quantize import float_operators
from tfprune.architectures import build_model
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.objectives.losses import build_loss
from tfprune.quantization.rules import float_layers
from tfprune.quantization.training import quantize_model
from tfprune.training.stage import fit_stage
from tfprune.verification.graph import read_operators

CASES = {
    "plain_unet nearest": ("plain_unet", {}),
    "plain_unet bilinear": ("plain_unet", {"upsampling": "bilinear"}),
    "plain_unet transposed": ("plain_unet", {"upsampling": "transpose"}),
    "unet mobilenetv2": ("unet", {}),
    "fpn mobilenetv2": ("fpn", {}),
    "unet_plus_plus resnet18": ("unet_plus_plus", {}),
    "manet resnet18": ("manet", {}),
    "unet efficientnetb0": ("unet", {"encoder": "efficientnetb0"}),
    "unet seresnet18": ("unet", {"encoder": "seresnet18"}),
    "deeplab_v3_plus": ("deeplab_v3_plus", {}),
    "lraspp": ("lraspp", {}),
    "corroseg": ("corroseg", {}),
    "plain_unet residual with context": ("plain_unet", {"block": "residual", "context": (1, 2, 4)}),
    "plain_unet inverted residual": ("plain_unet", {"block": "inverted_residual"}),
}


def prune(model, share=0.8):
    """Set weights of all larger kernels to zero; return layer name -> its mask."""
    rng, masks = np.random.default_rng(0), {}
    for layer in model.layers:
        if type(layer) in (keras.layers.Conv2D, keras.layers.Conv2DTranspose) and layer.count_params() > 1000:
            kernel, *rest = layer.get_weights()
            masks[layer.name] = rng.random(kernel.shape) >= share
            layer.set_weights([kernel * masks[layer.name], *rest])
    return masks


def kernels_of(path):
    """Return name -> values of the int8 kernels in a file, filters first."""
    found = {}
    for operator in read_operators(path):
        for tensor in operator.inputs:
            if tensor is not None and tensor.constant and tensor.dtype == "INT8" and len(tensor.shape) == 4:
                found[tensor.name] = tensor.values.reshape(tensor.shape)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_epochs_of_a_pruned_net_leave_int8_and_the_zeros(case, tmp_path):
    name, options = CASES[case]
    small, stride = SMALL[name]
    size = (2 * stride, 2 * stride)
    model = with_statistics(build_model(name, input_size=size, outputs=3, seed=0, **{**small, **options}))
    masks = prune(model)
    rng = np.random.default_rng(0)
    height, width, _ = model.input_shape[1:]
    images = rng.integers(0, 256, (8, height, width, 3)).astype(np.uint8)
    truth = rng.integers(0, 3, (8, height, width)).astype(np.uint8)
    quantized = quantize_model(model, images)
    data = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), truth)).batch(4)
    stage = fit_stage(
        quantized, data, epochs=2, loss=build_loss("cross_entropy"), optimizer=keras.optimizers.Adam(1e-3)
    )
    assert stage.epochs == 2 and np.isfinite(stage.history[-1]["loss"])
    path = export_tflite(quantized, tmp_path / "net.tflite", class_names=["a", "b", "c"], scheme="int8")
    assert float_operators(path) == [] and float_layers(quantized) == ()
    kernels, pruned, kept = kernels_of(path), 0, 0
    for layer, mask in masks.items():
        order = (2, 0, 1, 3) if isinstance(model.get_layer(layer), keras.layers.Conv2DTranspose) else (3, 0, 1, 2)
        (found,) = (values for kernel, values in kernels.items() if f"/{layer}/" in kernel)
        gone = ~mask.transpose(order)
        pruned, kept = pruned + gone.sum(), kept + (found[gone] == 0).sum()
    assert pruned > 1000 and kept >= 0.995 * pruned
