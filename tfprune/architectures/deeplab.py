"""DeepLabV3+: context from dilated convolutions at a sixteenth of the picture, details from a quarter of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.blocks import Style, convolve, drop, separate
from tfprune.architectures.encoder_features import draft_on_features
from tfprune.architectures.encoders import STRIDE
from tfprune.architectures.finishing import Draft
from tfprune.architectures.mobile_nets import check_width, encoder_loaded, mobilenet_v2
from tfprune.architectures.options import check_rate, check_whole, check_wholes
from tfprune.architectures.strides import check_stride
from tfprune.errors import InputError, look_up
from tfprune.keras import keras

layers = keras.layers

_STYLE = Style()


def deeplab_v3_plus(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "mobilenetv2",
    encoder_weights: str | None = None,
    width: float | None = None,
    output_stride: int = 16,
    rates: Sequence[int] = (6, 12, 18),
    filters: int = 256,
    detail_filters: int = 48,
    dropout: float = 0.1,
) -> Draft:
    """Draft a DeepLabV3+; its last layer `logits` is a bilinear upsampling. Source: arXiv 1802.02611.

    MobileNetV2 is read up to its last block, other encoders at their feature at 1/16. Without rates and
    details it is the mobile form of the DeepLabV3 paper: with width .5, one channel and four outputs the
    713,108 parameters of the Severstal system.

    Args:
        input_size: (H, W), multiples of the output stride for MobileNetV2, of 32 for other encoders.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top; for MobileNetV2 of
            keras.applications), or None.
        width: multiplies the filters of MobileNetV2, .1 to 2; default 1.
        output_stride: 8 or 16: how coarse the features of MobileNetV2 are; other encoders have 16.
        rates: dilations of the separable 3x3 convolutions beside the 1x1 one and the pooled picture.
        filters: width of each of them, and of what follows.
        detail_filters: to how many the feature at 1/4 is narrowed before it is joined; 0 leaves that part out.
        dropout: share of values dropped out before the logits while training.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    net = "deeplab_v3_plus"
    rates = check_wholes(net, None, rates=rates)
    check_whole(net, 1, 4096, filters=filters)
    check_whole(net, 0, 4096, detail_filters=detail_filters)
    check_rate(net, dropout=dropout)
    look_up("output_stride", str(output_stride), dict.fromkeys(("8", "16")), net)

    def decode(deep: Any, details: Any, stride: int) -> Any:
        grid = (input_size[0] // stride, input_size[1] // stride)
        x = _look_far(deep, filters, grid=grid, rates=rates)
        if detail_filters:
            times = stride // 4
            x = layers.UpSampling2D(times, interpolation="bilinear", name="decoder_up")(x)
            details = convolve(details, detail_filters, kernel=1, style=_STYLE, name="decoder_details")
            x = layers.Concatenate(name="decoder_concat")([x, details])
            for part in "ab":
                x = _separable(x, filters, name=f"decoder_{part}")
            stride = 4
        x = layers.Conv2D(outputs, 1, name="decoder_logits")(drop(x, dropout, name="decoder"))
        return layers.UpSampling2D(stride, interpolation="bilinear")(x)

    if encoder == "mobilenetv2":
        check_stride(input_size, output_stride, net=f"{net} of output_stride {output_stride}")
        times = check_width(net, 1.0 if width is None else width)
        image = keras.Input((*input_size, channels))
        features = mobilenet_v2(image, width=times, output_stride=output_stride, weights=encoder_weights)
        model = keras.Model(image, decode(features[output_stride], features[4], output_stride))
        return Draft(model, scale=1 / 127.5, offset=-1.0, loaded=encoder_loaded(encoder_weights))
    if width is not None or output_stride != 16:
        raise InputError(f"{net}: width and output_stride are options of the encoder mobilenetv2, not of {encoder}")
    return draft_on_features(
        lambda features: decode(features[1], features[3], 16),
        net=f"{net} on {encoder}",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        stride=STRIDE,
    )


def _look_far(x: Any, filters: int, *, grid: tuple[int, int], rates: Sequence[int]) -> Any:
    """Return what 1x1, dilated and pooled branches see, projected (atrous spatial pyramid pooling)."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="decoder_pool")(x)
    pooled = convolve(pooled, filters, kernel=1, style=_STYLE, name="decoder_pooled")
    branches = [
        layers.UpSampling2D(grid, name="decoder_pooled_up")(pooled),
        convolve(x, filters, kernel=1, style=_STYLE, name="decoder_rate1"),
        *(_separable(x, filters, dilation=rate, name=f"decoder_rate{rate}") for rate in rates),
    ]
    x = layers.Concatenate(name="decoder_pyramid_concat")(branches)
    return convolve(x, filters, kernel=1, style=_STYLE, name="decoder_pyramid")


def _separable(x: Any, filters: int, *, dilation: int = 1, name: str) -> Any:
    x = separate(x, dilation=dilation, style=_STYLE, name=f"{name}_filter")
    return convolve(x, filters, kernel=1, style=_STYLE, name=f"{name}_mix")
