"""A U-Net of those layers alone for which XNNPACK has sparse kernels, so that zeros can save time."""

from __future__ import annotations

from typing import Any

from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_whole
from tfprune.architectures.strides import check_stride
from tfprune.keras import keras, tf

layers = keras.layers


def sparse_unet(
    *, input_size: tuple[int, int], channels: int, outputs: int, width: int = 32, depth: int = 3, blocks: int = 2
) -> Draft:
    """Draft a U-Net of depthwise 3x3 and 1x1 convolutions whose skips are added, not concatenated.

    A 3x3 convolution of stride 2, padded alike on all sides, begins it; `depth` times, height and width are
    halved and the width is doubled; the way back is a 1x1 convolution, a bilinear resize and the addition of
    the skip; a 1x1 convolution gives four times the logits, and DEPTH_TO_SPACE puts them in their places. More
    than nine tenths of the weights stand in 1x1 convolutions, which are what the sparse kernels multiply. The
    kernels take pictures of three channels; nets for others are built all the same.
    Sources: Elsen et al., "Fast Sparse ConvNets", CVPR 2020, arXiv 1911.09723; the skips are those of LinkNet,
    Chaurasia and Culurciello 2017, arXiv 1707.03718; the end is that of Shi et al. 2016, arXiv 1609.05158.

    Args:
        input_size: (H, W), multiples of 2 to the power of `depth` + 1.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        width: filters of the stem, 1 or more; `depth` levels below have up to `width` times 2 to the `depth`.
        depth: number of times that height and width are halved behind the stem, 1 to 5.
        blocks: residual blocks per level, 1 to 8.

    Raises:
        InputError: for an option out of its range, or a size off the stride.
    """
    check_whole("sparse_unet", 1, 1024, width=width)
    check_whole("sparse_unet", 1, 5, depth=depth)
    check_whole("sparse_unet", 1, 8, blocks=blocks)
    check_stride(input_size, 2 ** (depth + 1), net=f"sparse_unet of depth {depth}")

    image = keras.Input((*input_size, channels))
    x = layers.ZeroPadding2D(1, name="stem_pad")(image)
    x = _normed(layers.Conv2D(width, 3, strides=2, use_bias=False, name="stem_conv"), x, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    skips = []
    for index in range(depth + 1):
        if index:
            x = _halve(x, width * 2**index, f"encoder{index}_down")
        for block in range(blocks):
            x = _residual(x, f"encoder{index}{'abcdefgh'[block]}")
        skips.append(x)
    for index in reversed(range(depth)):
        x = _pointwise(x, width * 2**index, f"decoder{index}_narrow")
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"decoder{index}_up")(x)
        x = layers.Add(name=f"decoder{index}_add")([x, skips[index]])
        for block in range(blocks):
            x = _residual(x, f"decoder{index}{'abcdefgh'[block]}")
    x = layers.Conv2D(4 * outputs, 1, name="subpixel_conv")(x)
    return Draft(keras.Model(image, tf.nn.depth_to_space(x, 2)), scale=1 / 255)


def _normed(layer: Any, x: Any, name: str) -> Any:
    return layers.BatchNormalization(name=f"{name}_bn")(layer(x))


def _pointwise(x: Any, filters: int, name: str) -> Any:
    """Return a 1x1 convolution and its batch norm: `NAME_conv`, `NAME_bn`."""
    convolution = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv")
    return _normed(convolution, x, name)


def _halve(x: Any, filters: int, name: str) -> Any:
    """Return a depthwise 3x3 convolution of stride 2, padded alike on all sides, and a 1x1 to the new width."""
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = _normed(layers.DepthwiseConv2D(3, strides=2, use_bias=False, name=f"{name}_depthwise"), x, f"{name}_depthwise")
    return layers.ReLU(name=f"{name}_relu")(_pointwise(x, filters, name))


def _residual(x: Any, name: str) -> Any:
    """Return a ReLU of `x` plus a depthwise 3x3 and a 1x1 convolution of it."""
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")
    y = layers.ReLU(name=f"{name}_inner_relu")(_normed(depthwise, x, f"{name}_depthwise"))
    added = layers.Add(name=f"{name}_add")([x, _pointwise(y, x.shape[-1], name)])
    return layers.ReLU(name=f"{name}_relu")(added)
