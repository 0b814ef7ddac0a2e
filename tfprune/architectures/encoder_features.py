"""The features of an encoder, coarse to fine, and what the decoders of our own on them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfprune.architectures.encoders import STRIDE, build_on_encoder, encoder_preprocessing
from tfprune.architectures.finishing import Draft
from tfprune.architectures.strides import check_stride
from tfprune.keras import keras

layers = keras.layers

DECODER_FILTERS = (256, 128, 64, 32, 16)
"""Widths of the decoder's five stages, from coarse to fine."""


def draft_on_features(
    decode: Callable[[list[Any]], Any],
    *,
    net: str,
    encoder: str,
    encoder_weights: str | None,
    input_size: tuple[int, int],
    channels: int,
    stride: int = STRIDE,
) -> Draft:
    """Draft a net: an encoder, and `decode` on its features.

    Args:
        decode: from five features, at 1/32, 1/16, 1/8, 1/4 and 1/2 of the picture's height and width, to
            the logits.
        net: the net's name, for messages.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        input_size: (H, W), multiples of `stride`.
        channels: channels of the pictures.
        stride: what the picture's sides must be multiples of.

    Raises:
        InputError: for an unknown encoder, a size off the stride, or weights that cannot be had.
    """
    check_stride(input_size, stride, net=net)
    # Where an encoder's features lie, and what stands between a VGG and its decoder, is read off the
    # library's U-Net. Told no size, the encoders take any; the size comes in when the model is finished.
    library = build_on_encoder(
        "Unet",
        encoder=encoder,
        encoder_weights=encoder_weights,
        channels=channels,
        input_shape=(None, None, channels),
        decoder_filters=(1,) * 5,
    )
    skips = [library.get_layer(f"decoder_stage{stage}_concat").input[1] for stage in range(4)]
    features = [library.get_layer("decoder_stage0_upsampling").input, *skips]
    pixels = encoder_preprocessing(encoder, channels)
    model = keras.Model(library.input, decode(features))
    if encoder_weights in (None, "none"):
        return Draft(model, scale=pixels.scale, offset=pixels.offset)
    drawn = ("center_block", "decoder_", "final_conv")  # ours may be called like layers of the library's decoder
    read = {layer.name for layer in library.layers if not layer.name.startswith(drawn)}
    return Draft(model, scale=pixels.scale, offset=pixels.offset, loaded=read.__contains__, bgr=pixels.bgr)


def feature_sizes(features: Sequence[Any], input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of features of an encoder that was told no size."""
    inputs = keras.utils.get_source_inputs(features[0])
    shapes = keras.Model(inputs, list(features)).compute_output_shape((1, *input_size, inputs[0].shape[-1]))
    return [(height, width) for _, height, width, _ in map(tuple, shapes)]


def classify(x: Any, outputs: int) -> Any:
    """Return the logits (N, H, W, outputs): a 3x3 convolution."""
    return layers.Conv2D(outputs, 3, padding="same")(x)


def convolve(x: Any, filters: int, *, kernel: int = 3, name: str) -> Any:
    """Convolution, batch norm, ReLU: `NAME_conv`, `NAME_bn`, `NAME_relu`."""
    x = layers.Conv2D(
        filters, kernel, padding="same", use_bias=False, kernel_initializer="he_uniform", name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def grow(x: Any, skips: Sequence[Any], filters: int, *, name: str) -> Any:
    """Double height and width, join the skips of that size, and convolve twice."""
    x = layers.UpSampling2D(2, name=f"{name}_up")(x)
    if skips:
        x = layers.Concatenate(name=f"{name}_concat")([x, *skips])
    x = convolve(x, filters, name=f"{name}a")
    return convolve(x, filters, name=f"{name}b")
