"""U-Nets without an encoder with a name: of plain, residual or inverted residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.blocks import (
    ACTIVATIONS,
    MERGES,
    UPSAMPLINGS,
    Style,
    convolve,
    drop,
    inverted_residual,
    look_around,
    residual,
    resize,
)
from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_flags, check_rate, check_whole, check_wholes
from tfprune.architectures.strides import check_stride
from tfprune.errors import look_up
from tfprune.keras import keras

layers = keras.layers

BLOCKS = dict.fromkeys(("plain", "residual", "inverted_residual"))
DROPPED: dict[str, tuple[str, ...]] = {
    "bottleneck": ("bottleneck",),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "everywhere": ("encoder", "bottleneck", "decoder"),
}
"""Where a net drops out values: name of the policy -> levels whose names begin so."""

EXPANSION = 6
"""How many times wider an inverted residual block is inside."""


def plain_unet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    width: int = 16,
    depth: int = 4,
    block: str = "plain",
    convolutions: int = 2,
    context: Sequence[int] = (),
    batch_norm: bool = True,
    bias: bool | None = None,
    activation: str = "relu",
    upsampling: str = "nearest",
    merge: str = "concat",
    dropout: float = 0.0,
    dropout_at: str = "bottleneck",
    head_kernel: int = 1,
    odd_sizes: bool = False,
) -> Draft:
    """Draft a U-Net with blocks of 3x3 convolutions per level and `depth` poolings; widths double per level.

    Width 16 and depth 4 have 1,967,058 parameters (RGB, two outputs). Pixels are scaled to 0..1.
    Source: Ronneberger et al. 2015, arXiv 1505.04597, with `same` padding and batch norms.

    The U-Nets of two published systems are settings of it, with their published counts of parameters:

    - Severstal (grey, four outputs): width 8, depth 5, transpose, without batch norm, 1,944,772; its ResU-Net with
      block residual, context 1 2 4 8 12 and batch norm, 1,833,012.
    - CorroSeg (three channels, one output): XSCat-UNet with depth 2, transpose, without batch norm, head_kernel 3,
      117,169; SAdd-UNet with width 64, one convolution, merge add, transpose, bias and odd_sizes, 12,197,185.

    Args:
        input_size: (H, W), multiples of 2 to the power of `depth`, unless `odd_sizes`.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        width: filters of the first level, 1 or more.
        depth: number of poolings, 1 to 7.
        block: `plain`; `residual` (in the encoder; a 3x3 convolution beside, on the first level 1x1 and without
            norms); `inverted_residual` (everywhere, inside six times as wide).
        convolutions: plain convolutions, or inverted residual blocks, per level, 1 to 4.
        context: dilations of 3x3 convolutions that are summed in place of the bottleneck, as wide as the last level.
        batch_norm: a batch norm after each convolution.
        bias: of these convolutions; default: where there is no batch norm.
        activation: `relu`, `relu6`, `leaky_relu` (slope .3), `swish` or `hard_swish`.
        upsampling: `nearest`, `bilinear` or `transpose` (a 2x2 transposed convolution).
        merge: `concat` or `add`; adding takes upsampling transpose, which gives both the same width.
        dropout: share of values dropped out while training.
        dropout_at: where: `bottleneck`, `encoder`, `decoder` or `everywhere`.
        head_kernel: side of the last convolution, 1 or 3.
        odd_sizes: take any size: poolings round up, and what is upsampled is resized to its skip.

    Raises:
        InputError: for an option out of its range, or a size the poolings do not divide.
    """
    net = "plain_unet"
    check_whole(net, 1, 1024, width=width)
    check_whole(net, 1, 7, depth=depth)
    check_whole(net, 1, 4, convolutions=convolutions)
    check_flags(net, batch_norm=batch_norm, odd_sizes=odd_sizes, bias=not batch_norm if bias is None else bias)
    check_rate(net, dropout=dropout)
    dilations = check_wholes(net, None, context=context)
    look_up("block", block, BLOCKS, net)
    look_up("activation", activation, ACTIVATIONS, net)
    look_up("head_kernel", str(head_kernel), dict.fromkeys(("1", "3")), net)
    upsample = look_up("upsampling", upsampling, UPSAMPLINGS, net)
    join = look_up("merge", merge, MERGES, net)
    if merge == "add":
        look_up("upsampling", upsampling, {"transpose": None}, f"{net} with merge add")
    dropped = look_up("dropout_at", dropout_at, DROPPED, net)
    if not odd_sizes:
        check_stride(input_size, 2**depth, net=f"plain_unet of depth {depth}")
    style = Style(batch_norm, not batch_norm if bias is None else bias, activation)

    def level(x: Any, filters: int, name: str) -> Any:
        if block == "residual" and name == "encoder0":
            x = residual(x, filters, style=Style(False, True, activation), shortcut_kernel=1, name=name)
        elif block == "residual" and not name.startswith("decoder"):
            x = residual(x, filters, style=style, shortcut_kernel=3, name=name)
        else:
            for part in "abcd"[:convolutions]:
                x = (
                    inverted_residual(x, filters, style=style, expanded=EXPANSION * x.shape[-1], name=f"{name}{part}")
                    if block == "inverted_residual" and name != "encoder0"
                    else convolve(x, filters, style=style, name=f"{name}{part}")
                )
        return drop(x, dropout if name.startswith(dropped) else 0.0, name=name)

    x = image = keras.Input((*input_size, channels))
    skips = []
    for index in range(depth):
        skips.append(level(x, width * 2**index, f"encoder{index}"))
        x = layers.MaxPooling2D(2, padding="same" if odd_sizes else "valid", name=f"encoder{index}_pool")(skips[-1])
    if dilations:
        x = look_around(x, width * 2 ** (depth - 1), dilations=dilations, activation=activation, name="bottleneck")
        x = drop(x, dropout if "bottleneck" in dropped else 0.0, name="bottleneck")
    else:
        x = level(x, width * 2**depth, "bottleneck")
    for index in reversed(range(depth)):
        x = upsample(width * 2**index, f"decoder{index}_up")(x)
        x = resize(x, skips[index].shape[1:3], before=x.shape[1:3], name=f"decoder{index}")
        x = join(f"decoder{index}")([x, skips[index]])
        x = level(x, width * 2**index, f"decoder{index}")
    return Draft(keras.Model(image, layers.Conv2D(outputs, head_kernel, padding="same")(x)), scale=1 / 255)
