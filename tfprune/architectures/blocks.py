"""What nets of our own are made of: activations, upsamplings, units of one convolution, and blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tfprune.keras import keras

layers = keras.layers


def _hard_sigmoid(x: Any, *, name: str) -> Any:
    """Return relu6(x + 3) / 6 in layers of Keras; TensorFlow Lite has one operator for x times it."""
    x = layers.ReLU(6.0, name=f"{name}_relu6")(layers.Rescaling(1.0, 3.0, name=f"{name}_shift")(x))
    return layers.Rescaling(1 / 6, name=name)(x)


def _hard_swish(x: Any, *, name: str) -> Any:
    return layers.Multiply(name=name)([x, _hard_sigmoid(x, name=f"{name}_gate")])


ACTIVATIONS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "relu": lambda name: layers.ReLU(name=name),
    "relu6": lambda name: layers.ReLU(6.0, name=name),
    "leaky_relu": lambda name: layers.LeakyReLU(name=name),  # Keras' slope, .3
    "swish": lambda name: layers.Activation("swish", name=name),
    "hard_swish": lambda name: partial(_hard_swish, name=name),
}

UPSAMPLINGS: dict[str, Callable[[int, str], Any]] = {
    "nearest": lambda width, name: layers.UpSampling2D(2, interpolation="nearest", name=name),
    "bilinear": lambda width, name: layers.UpSampling2D(2, interpolation="bilinear", name=name),
    "transpose": lambda width, name: layers.Conv2DTranspose(width, 2, strides=2, name=name),
}

MERGES: dict[str, Callable[[str], Any]] = {
    "concat": lambda name: layers.Concatenate(name=f"{name}_concat"),
    "add": lambda name: layers.Add(name=f"{name}_add"),
}
"""How a decoder joins a skip."""


@dataclass(frozen=True)
class Style:
    """What stands around a convolution: its bias, a batch norm behind it, the activation by name."""

    batch_norm: bool = True
    bias: bool = False
    activation: str = "relu"


def convolve(
    x: Any, filters: int, *, style: Style, kernel: int = 3, stride: int = 1, active: bool = True, name: str
) -> Any:
    """Convolution, batch norm, activation: `NAME_conv`, `NAME_bn`, `NAME_ACTIVATION`."""
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=style.bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _norm_and_activation(x, style, active=active, name=name)


def separate(x: Any, *, style: Style, kernel: int = 3, stride: int = 1, dilation: int = 1, name: str) -> Any:
    """Depthwise convolution, batch norm, activation: `NAME_depthwise`, `NAME_bn`, `NAME_ACTIVATION`."""
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        use_bias=style.bias,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise",
    )(x)
    return _norm_and_activation(x, style, name=name)


def _norm_and_activation(x: Any, style: Style, *, active: bool = True, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}_bn")(x) if style.batch_norm else x
    return ACTIVATIONS[style.activation](f"{name}_{style.activation}")(x) if active else x


def residual(x: Any, filters: int, *, style: Style, shortcut_kernel: int, name: str) -> Any:
    """Two convolutions beside a third one, added, then the activation. Source: He et al. 2015, arXiv 1512.03385."""
    shortcut = layers.Conv2D(
        filters, shortcut_kernel, padding="same", kernel_initializer="he_normal", name=f"{name}_shortcut_conv"
    )(x)
    x = convolve(x, filters, style=style, name=f"{name}a")
    x = convolve(x, filters, style=style, active=False, name=f"{name}b")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return ACTIVATIONS[style.activation](f"{name}_{style.activation}")(x)


def inverted_residual(
    x: Any,
    filters: int,
    *,
    style: Style,
    expanded: int,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    squeezed: int = 0,
    name: str,
) -> Any:
    """Widen to `expanded` channels, filter each alone, gate them, narrow; add what came in where it fits.

    Nothing is widened where `expanded` is the width already, and nothing gated where `squeezed` (the gate's
    inner width) is 0. Source: Sandler et al. 2018, arXiv 1801.04381; the gate Howard et al. 2019, arXiv 1905.02244.
    """
    before = x
    if expanded != x.shape[-1]:
        x = convolve(x, expanded, kernel=1, style=style, name=f"{name}_expand")
    x = separate(x, style=style, kernel=kernel, stride=stride, dilation=dilation, name=f"{name}_filter")
    if squeezed:
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_gate_pool")(x)
        gate = layers.Conv2D(squeezed, 1, name=f"{name}_gate_squeeze")(gate)
        gate = layers.ReLU(name=f"{name}_gate_relu")(gate)
        gate = layers.Conv2D(expanded, 1, name=f"{name}_gate_excite")(gate)
        x = layers.Multiply(name=f"{name}_gated")([x, _hard_sigmoid(gate, name=f"{name}_gate")])
    x = convolve(x, filters, kernel=1, style=style, active=False, name=f"{name}_project")
    fits = stride == 1 and before.shape[-1] == filters
    return layers.Add(name=f"{name}_add")([before, x]) if fits else x


def look_around(x: Any, filters: int, *, dilations: Sequence[int], activation: str, name: str) -> Any:
    """Sum 3x3 convolutions of several dilations, then the activation: context at several scales."""
    seen = [
        layers.Conv2D(
            filters,
            3,
            dilation_rate=dilation,
            padding="same",
            kernel_initializer="he_normal",
            name=f"{name}_dilation{dilation}_conv",
        )(x)
        for dilation in dilations
    ]
    x = layers.Add(name=f"{name}_add")(seen) if len(seen) > 1 else seen[0]
    return ACTIVATIONS[activation](f"{name}_{activation}")(x)


def resize(x: Any, size: Sequence[int], *, before: Sequence[int], name: str) -> Any:
    """Resize bilinearly from height and width `before` to those of `size`, where they differ."""
    return x if tuple(before) == tuple(size) else layers.Resizing(*size, name=f"{name}_resize")(x)


def drop(x: Any, rate: float, *, name: str) -> Any:
    """Drop out a share of the values while training; nothing stands there when the share is 0."""
    return layers.Dropout(rate, name=f"{name}_dropout")(x) if rate else x
