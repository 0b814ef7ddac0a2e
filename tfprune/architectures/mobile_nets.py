"""MobileNetV2 and MobileNetV3 as encoders, with their width multiplier and a chosen output stride.

They have the weights of `keras.applications`, in the same order, and layers that masks, channel removal and
TensorFlow Lite know: no TensorFlow ops, `same` padding in place of padding layers.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from tfprune.architectures.blocks import Style, convolve, inverted_residual
from tfprune.architectures.encoders import check_encoder_weights, weights_errors
from tfprune.errors import InputError
from tfprune.keras import keras

layers = keras.layers

# expansion, filters, blocks, stride of the first of them
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# expansion, filters, kernel, gated, activation, stride
_V3_SMALL = (
    *((1, 16, 3, True, "relu", 2), (72 / 16, 24, 3, False, "relu", 2), (88 / 24, 24, 3, False, "relu", 1)),
    *((4, 40, 5, True, "hard_swish", 2), (6, 40, 5, True, "hard_swish", 1), (6, 40, 5, True, "hard_swish", 1)),
    *((3, 48, 5, True, "hard_swish", 1), (3, 48, 5, True, "hard_swish", 1)),
    *((6, 96, 5, True, "hard_swish", 2), (6, 96, 5, True, "hard_swish", 1), (6, 96, 5, True, "hard_swish", 1)),
)
_V3_LARGE = (
    *((1, 16, 3, False, "relu", 1), (4, 24, 3, False, "relu", 2), (3, 24, 3, False, "relu", 1)),
    *((3, 40, 5, True, "relu", 2), (3, 40, 5, True, "relu", 1), (3, 40, 5, True, "relu", 1)),
    *((6, 80, 3, False, "hard_swish", 2), (2.5, 80, 3, False, "hard_swish", 1)),
    *((2.3, 80, 3, False, "hard_swish", 1), (2.3, 80, 3, False, "hard_swish", 1)),
    *((6, 112, 3, True, "hard_swish", 1), (6, 112, 3, True, "hard_swish", 1)),
    *((6, 160, 5, True, "hard_swish", 2), (6, 160, 5, True, "hard_swish", 1), (6, 160, 5, True, "hard_swish", 1)),
)
V3_BLOCKS = {"small": _V3_SMALL, "large": _V3_LARGE}

Features = dict[int, Any]
"""Stride -> the last tensor of the encoder at that stride."""


def mobilenet_v2(image: Any, *, width: float = 1.0, output_stride: int = 16, weights: str | None = None) -> Features:
    """Return the features of a MobileNetV2 up to its last block, on pixels scaled to -1..1.

    Past the output stride (8, 16 or 32) blocks are dilated in place of striding.
    Source: Sandler et al. 2018, arXiv 1801.04381.

    Raises:
        InputError: for weights that cannot be had for this width.
    """
    style = Style(activation="relu6")
    trunk = _Trunk(image, output_stride)
    trunk.x = convolve(image, multiple_of_8(32 * width), stride=2, style=style, name="encoder_first")
    number = 0
    for expansion, filters, repeats, stride in _V2:
        for repeat in range(repeats):
            expanded = expansion * trunk.x.shape[-1]
            trunk.add(multiple_of_8(filters * width), expanded, stride if repeat == 0 else 1, style, number)
            number += 1
    features = trunk.features()
    if weights is not None:
        _read(image, features, "MobileNetV2", weights, end="block_16_project_BN", alpha=width)
    return features


def mobilenet_v3(
    image: Any,
    *,
    size: str = "small",
    width: float = 1.0,
    minimalistic: bool = False,
    reduced_tail: bool = False,
    output_stride: int = 16,
    weights: str | None = None,
) -> Features:
    """Return the features of a MobileNetV3, its last 1x1 convolution included, on pixels scaled to -1..1.

    Source: Howard et al. 2019, arXiv 1905.02244.

    Args:
        image: the input tensor.
        size: `small` or `large`.
        width: multiplies all filters.
        minimalistic: without gates, hard swish and 5x5 kernels, for devices that know none of them.
        reduced_tail: half as many filters in the last stage (section 6.4).
        output_stride: 8, 16 or 32; past it blocks are dilated in place of striding.
        weights: `imagenet`, the path of a weights file of keras.applications, or None.

    Raises:
        InputError: for weights that cannot be had for this width and form.
    """
    last = Style(activation="relu" if minimalistic else "hard_swish")
    trunk = _Trunk(image, output_stride)
    trunk.x = convolve(image, 16, stride=2, style=last, name="encoder_first")
    rows = V3_BLOCKS[size]
    for number, (expansion, filters, kernel, gated, activation, stride) in enumerate(rows):
        tail = 0.5 if reduced_tail and filters == rows[-1][1] else 1.0
        expanded = trunk.x.shape[-1] if number == 0 else multiple_of_8(trunk.x.shape[-1] * expansion)
        trunk.add(
            multiple_of_8(filters * width * tail),
            expanded,
            stride,
            replace(last, activation="relu" if minimalistic else activation),
            number,
            kernel=3 if minimalistic else kernel,
            squeezed=multiple_of_8(expanded / 4) if gated and not minimalistic else 0,
        )
    trunk.x = convolve(trunk.x, multiple_of_8(6 * trunk.x.shape[-1]), kernel=1, style=last, name="encoder_last")
    features = trunk.features()
    if weights is not None:
        if reduced_tail:
            raise InputError("encoder_weights: there are none for reduced_tail; set one of the two")
        library = f"MobileNetV3{size.capitalize()}"
        _read(image, features, library, weights, alpha=width, minimalistic=minimalistic, include_preprocessing=False)
    return features


class _Trunk:
    """The blocks so far, what they are at each stride, and the dilation of the next ones."""

    def __init__(self, image: Any, output_stride: int) -> None:
        self.x = image
        self._output_stride = output_stride
        self._stride = 2
        self._dilation = 1
        self._left: Features = {}

    def add(self, filters: int, expanded: int, stride: int, style: Style, number: int, **options: Any) -> None:
        """Add a block; where it would go past the output stride, the blocks behind it are dilated instead."""
        dilation = self._dilation
        if stride > 1 and self._stride == self._output_stride:
            self._dilation *= stride
            stride = 1
        elif stride > 1:
            self._left[self._stride] = self.x
            self._stride *= stride
        self.x = inverted_residual(
            self.x,
            filters,
            expanded=expanded,
            stride=stride,
            dilation=dilation,
            style=style,
            name=f"encoder_block{number}",
            **options,
        )

    def features(self) -> Features:
        return {**self._left, self._stride: self.x}


def multiple_of_8(filters: float) -> int:
    """Return the multiple of 8 next to a number of filters, never less than nine tenths of it.

    >>> multiple_of_8(12), multiple_of_8(3), multiple_of_8(18.5)
    (16, 8, 24)
    """
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def check_width(net: str, width: Any) -> float:
    """Return a width multiplier; refuse what is not a number in .1 to 2."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0.1 <= width <= 2:
        raise InputError(f"{net}: width must be a number from 0.1 to 2, not {width!r}")
    return float(width)


def encoder_loaded(weights: str | None) -> Any:
    """Return which layers of a draft on a mobile net keep their weights: the encoder's, or None for no layer."""
    return None if weights in (None, "none") else lambda name: name.startswith("encoder_")


def _read(
    image: Any, features: Features, library: str, weights: str, *, end: str | None = None, **options: Any
) -> None:
    """Give an encoder the weights of the net of keras.applications that it is."""
    channels = image.shape[-1]
    weights = check_encoder_weights(weights, library, channels)
    if weights is None:
        return
    with weights_errors(weights, library, channels), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        build = getattr(keras.applications, library)
        model = build(include_top=False, weights=weights, input_shape=(224, 224, channels), **options)
        if end is not None:
            model = keras.Model(model.input, model.get_layer(end).output)
        keras.Model(image, features[max(features)]).set_weights(model.get_weights())
