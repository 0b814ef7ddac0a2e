"""The CorroSeg nets on an encoder, for pictures of odd and tiny sizes, and a net without skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.blocks import ACTIVATIONS, MERGES, Style, convolve, drop, resize
from tfprune.architectures.encoder_features import draft_on_features, feature_sizes
from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_flags, check_rate, check_whole, check_wholes
from tfprune.architectures.strides import check_stride
from tfprune.errors import InputError, look_up
from tfprune.keras import keras

layers = keras.layers


def corroseg(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet50",
    encoder_weights: str | None = None,
    merge: str = "concat",
    decoder_filters: Sequence[int] | None = None,
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> Draft:
    """Draft a Cat-CorroSeg (`merge` concat) or an Add-CorroSeg (add), for pictures of any size.

    Each of four stages doubles by a transposed convolution, resizes to the skip's size, joins it and convolves
    twice; a 1x1 convolution at half size and a bilinear upsampling, `logits`, end it. At 36x36 an encoder has
    18, 9, 5, 3 and 2 pixels. On resnet50 with concat the decoder has 48,358,145 trainable parameters: with the
    23,508,032 of torchvision's ResNet-50 the published 71,866,177; the ResNet-50 here, of segmentation-models,
    has its batch norms in front of the convolutions, and 7,549 fewer.

    Args:
        input_size: (H, W), of any height and width of at least 32.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        merge: `concat` or `add`; adding needs stages as wide as the skips.
        decoder_filters: widths of the four stages, from coarse to fine; default: as wide as the skips.
        batch_norm: a batch norm after each convolution of the decoder.
        dropout: share of values dropped out behind each stage while training.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    net = "corroseg"
    join = look_up("merge", merge, MERGES, net)
    check_flags(net, batch_norm=batch_norm)
    check_rate(net, dropout=dropout)
    given = None if decoder_filters is None else check_wholes(net, 4, decoder_filters=decoder_filters)
    check_stride(input_size, 1, net=net, smallest=32)
    style = Style(batch_norm=batch_norm, bias=True)

    def decode(features: list[Any]) -> Any:
        wide = tuple(skip.shape[-1] for skip in features[1:])
        filters = given or wide
        if merge == "add" and filters != wide:
            raise InputError(
                f"{net}: with merge add, decoder_filters must be those of the skips, {[*wide]}, or left out"
            )
        sizes = feature_sizes(features, input_size)
        x = features[0]
        for stage, (skip, width) in enumerate(zip(features[1:], filters, strict=True)):
            name = f"decoder_stage{stage}"
            x = layers.Conv2DTranspose(width, 2, strides=2, name=f"{name}_up")(x)
            x = resize(x, sizes[stage + 1], before=[2 * side for side in sizes[stage]], name=name)
            x = join(name)([x, skip])
            for part in "ab":
                x = convolve(x, width, style=style, name=f"{name}{part}")
            x = drop(x, dropout, name=name)
        return layers.Resizing(*input_size)(layers.Conv2D(outputs, 1, name="decoder_logits")(x))

    return draft_on_features(
        decode,
        net=net,
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        stride=1,
    )


FCN_UPSAMPLINGS = dict.fromkeys(("transpose", "bilinear"))


def fcn(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    width: int = 16,
    depth: int = 3,
    convolutions: int = 2,
    batch_norm: bool = True,
    activation: str = "relu",
    upsampling: str = "transpose",
    dropout: float = 0.0,
) -> Draft:
    """Draft a fully convolutional net without skips: convolutions, `depth` poolings, and back in one step.

    Depth 0 is a plain stack of convolutions at full size, the baseline of the CorroSeg system.
    Source: Long et al. 2015, arXiv 1411.4038 (FCN-32s, with as many poolings as asked).

    Args:
        input_size: (H, W), multiples of 2 to the power of `depth`.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        width: filters of the first level; they double per level.
        depth: number of poolings, 0 to 6.
        convolutions: per level, 1 to 4.
        batch_norm: a batch norm after each convolution, which then has no bias.
        activation: `relu`, `relu6`, `leaky_relu` (slope .3), `swish` or `hard_swish`.
        upsampling: of the logits: `transpose`, a learned convolution twice as large as its stride, or `bilinear`.
        dropout: share of values dropped out before the logits while training.

    Raises:
        InputError: for an option out of its range, or a size the poolings do not divide.
    """
    net = "fcn"
    check_whole(net, 1, 1024, width=width)
    check_whole(net, 0, 6, depth=depth)
    check_whole(net, 1, 4, convolutions=convolutions)
    check_flags(net, batch_norm=batch_norm)
    check_rate(net, dropout=dropout)
    look_up("activation", activation, ACTIVATIONS, net)
    look_up("upsampling", upsampling, FCN_UPSAMPLINGS, net)
    stride = 2**depth
    check_stride(input_size, stride, net=f"fcn of depth {depth}")
    style = Style(batch_norm, not batch_norm, activation)
    x = image = keras.Input((*input_size, channels))
    for index in range(depth + 1):
        for part in "abcd"[:convolutions]:
            x = convolve(x, width * 2**index, style=style, name=f"encoder{index}{part}")
        x = layers.MaxPooling2D(2, name=f"encoder{index}_pool")(x) if index < depth else x
    x = drop(x, dropout, name="encoder")
    x = layers.Conv2D(outputs, 1, name="decoder_scores")(x)
    if depth and upsampling == "transpose":
        x = layers.Conv2DTranspose(outputs, 2 * stride, strides=stride, padding="same")(x)
    elif depth:
        x = layers.UpSampling2D(stride, interpolation="bilinear")(x)
    return Draft(keras.Model(image, x), scale=1 / 255)
