"""A U-Net of plain convolutions, for devices that are too small for an encoder with a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfprune.architectures.finishing import Draft
from tfprune.architectures.strides import check_stride
from tfprune.errors import InputError, look_up
from tfprune.keras import keras

layers = keras.layers

ACTIVATIONS: dict[str, Callable[[str], Any]] = {
    "relu": lambda name: layers.ReLU(name=name),
    "relu6": lambda name: layers.ReLU(6.0, name=name),
    "leaky_relu": lambda name: layers.LeakyReLU(name=name),  # Keras' slope, .3
    "swish": lambda name: layers.Activation("swish", name=name),
}

UPSAMPLINGS: dict[str, Callable[[int, str], Any]] = {
    "nearest": lambda width, name: layers.UpSampling2D(2, interpolation="nearest", name=name),
    "bilinear": lambda width, name: layers.UpSampling2D(2, interpolation="bilinear", name=name),
    "transpose": lambda width, name: layers.Conv2DTranspose(width, 2, strides=2, name=name),
}


def plain_unet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    width: int = 16,
    depth: int = 4,
    batch_norm: bool = True,
    activation: str = "relu",
    upsampling: str = "nearest",
) -> Draft:
    """Draft a U-Net with two 3x3 convolutions per level and `depth` poolings; widths double per level.

    Width 16 and depth 4 have 1,967,058 parameters (RGB, two outputs). Pixels are scaled to 0..1.
    Source: Ronneberger et al. 2015, arXiv 1505.04597, with `same` padding and batch norms.

    Args:
        input_size: (H, W), multiples of 2 to the power of `depth`.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        width: filters of the first level, 1 or more.
        depth: number of poolings, 1 to 7.
        batch_norm: a batch norm after each convolution, which then has no bias.
        activation: `relu`, `relu6`, `leaky_relu` (slope .3) or `swish`.
        upsampling: `nearest`, `bilinear` or `transpose` (a 2x2 transposed convolution).

    Raises:
        InputError: for an option out of its range, or a size the poolings do not divide.
    """
    for name, value, high in (("width", width, 1024), ("depth", depth, 7)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise InputError(f"plain_unet: {name} must be a whole number from 1 to {high}, not {value!r}")
    if not isinstance(batch_norm, bool):
        raise InputError(f"plain_unet: batch_norm must be true or false, not {batch_norm!r}")
    activate = look_up("activation", activation, ACTIVATIONS, "plain_unet")
    upsample = look_up("upsampling", upsampling, UPSAMPLINGS, "plain_unet")
    check_stride(input_size, 2**depth, net=f"plain_unet of depth {depth}")

    def level(x: Any, filters: int, name: str) -> Any:
        for part in "ab":
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=not batch_norm,
                kernel_initializer="he_normal",
                name=f"{name}{part}_conv",
            )(x)
            x = layers.BatchNormalization(name=f"{name}{part}_bn")(x) if batch_norm else x
            x = activate(f"{name}{part}_{activation}")(x)
        return x

    x = image = keras.Input((*input_size, channels))
    skips = []
    for index in range(depth):
        skips.append(level(x, width * 2**index, f"encoder{index}"))
        x = layers.MaxPooling2D(2, name=f"encoder{index}_pool")(skips[-1])
    x = level(x, width * 2**depth, "bottleneck")
    for index in reversed(range(depth)):
        x = upsample(width * 2**index, f"decoder{index}_up")(x)
        x = layers.Concatenate(name=f"decoder{index}_concat")([x, skips[index]])
        x = level(x, width * 2**index, f"decoder{index}")
    return Draft(keras.Model(image, layers.Conv2D(outputs, 1)(x)), scale=1 / 255)
