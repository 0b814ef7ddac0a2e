"""U-Net, FPN, LinkNet and PSPNet of segmentation-models, with all of its encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.encoders import STRIDE, build_on_encoder, encoder_preprocessing
from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_whole, check_wholes
from tfprune.architectures.strides import check_stride
from tfprune.errors import look_up
from tfprune.keras import keras

# what the library calls the layers of its decoders; all others are the encoder's
_DECODER_NAMES = (
    *("center_block", "decoder_stage", "final_", "head_conv"),
    *("fpn_stage", "segm_stage", "psp_level", "aggregation"),
)
_SMALLEST = {"inceptionv3": 75}  # the library refuses less where it is told the size
_DECODERS = {"upsampling": "upsampling", "transpose": "transpose"}


def unet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    decoder: str = "upsampling",
    decoder_filters: Sequence[int] = (256, 128, 64, 32, 16),
) -> Draft:
    """Draft a U-Net with a named encoder. Source: Ronneberger et al. 2015, arXiv 1505.04597.

    Args:
        input_size: (H, W), multiples of 32.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        decoder: `upsampling` (nearest) or `transpose` (4x4 transposed convolutions).
        decoder_filters: widths of the five decoder stages, from coarse to fine.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    filters = check_wholes("unet", 5, decoder_filters=decoder_filters)
    return _draft(
        "Unet",
        net="unet",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        classes=outputs,
        decoder_block_type=look_up("decoder", decoder, _DECODERS, "unet"),
        decoder_filters=filters,
    )


def fpn(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    pyramid_filters: int = 256,
) -> Draft:
    """Draft a feature pyramid network. Source: Lin et al. 2017, arXiv 1612.03144, and its COCO stuff form.

    Args:
        input_size: (H, W), multiples of 32.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        pyramid_filters: width of the pyramid, 2 or more; its segmentation branches are half as wide.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    check_whole("fpn", 2, None, pyramid_filters=pyramid_filters)
    return _draft(
        "FPN",
        net="fpn",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        classes=outputs,
        pyramid_block_filters=pyramid_filters,
    )


def linknet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    decoder: str = "upsampling",
) -> Draft:
    """Draft a LinkNet; the paper's form is `decoder="transpose"`. Source: arXiv 1707.03718.

    Args:
        input_size: (H, W), multiples of 32.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        decoder: `upsampling` (nearest) or `transpose` (4x4 transposed convolutions).

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    return _draft(
        "Linknet",
        net="linknet",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        classes=outputs,
        decoder_block_type=look_up("decoder", decoder, _DECODERS, "linknet"),
    )


def pspnet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    downsample_factor: int = 8,
    pyramid_filters: int = 512,
) -> Draft:
    """Draft a pyramid scene parsing net on part of an encoder. Source: Zhao et al. 2017, arXiv 1612.01105.

    Its last layer `logits` is a bilinear upsampling; the convolution before it is `final_conv`.

    Args:
        input_size: (H, W), multiples of 6 * `downsample_factor`: the pyramid pools to 6x6.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        downsample_factor: 4, 8 or 16: where the encoder is cut off.
        pyramid_filters: width of each level of the pyramid.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    look_up("downsample_factor", str(downsample_factor), dict.fromkeys(("4", "8", "16")), "pspnet")
    check_whole("pspnet", 1, None, pyramid_filters=pyramid_filters)
    return _draft(
        "PSPNet",
        net=f"pspnet of downsample_factor {downsample_factor}",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
        stride=6 * downsample_factor,
        smallest=_SMALLEST.get(str(encoder), 1),
        input_shape=(*input_size, channels),
        classes=outputs,
        downsample_factor=downsample_factor,
        psp_conv_filters=pyramid_filters,
    )


def _draft(
    library_net: str,
    *,
    net: str,
    encoder: str,
    encoder_weights: str | None,
    input_size: tuple[int, int],
    channels: int,
    stride: int = STRIDE,
    smallest: int = 1,
    **options: Any,
) -> Draft:
    check_stride(input_size, stride, net=net, smallest=smallest)
    # told no size, the encoders take any; the size comes in when the model is finished
    options.setdefault("input_shape", (None, None, channels))
    model = build_on_encoder(
        library_net, encoder=encoder, encoder_weights=encoder_weights, channels=channels, **options
    )
    pixels = encoder_preprocessing(encoder, channels)
    if encoder_weights in (None, "none"):
        return Draft(model, scale=pixels.scale, offset=pixels.offset)
    head = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][-1]
    return Draft(
        model,
        scale=pixels.scale,
        offset=pixels.offset,
        loaded=lambda name: name != head and not name.startswith(_DECODER_NAMES),
        bgr=pixels.bgr,
    )
