"""MA-Net: attention between positions at the coarsest feature, and gates of both scales at every skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.encoder_features import (
    DECODER_FILTERS,
    classify,
    convolve,
    draft_on_features,
    grow,
)
from tfprune.architectures.encoders import STRIDE
from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_wholes
from tfprune.keras import keras

layers = keras.layers

ATTENTION_FILTERS = 64
"""Width of the queries and keys."""

REDUCTION = 16
"""How many times narrower a gate is inside."""


def manet(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    decoder_filters: Sequence[int] = DECODER_FILTERS,
) -> Draft:
    """Draft a multi-scale attention net with a named encoder. Source: Fan et al. 2020, IEEE Access 8.

    Both convolutions of values are as wide as the coarsest feature: with the wide encoders most of the
    parameters are there. The attention map has (H / 32 * W / 32)^2 entries.

    Args:
        input_size: (H, W), multiples of 32.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: a name of `ENCODERS`; VGGs get two more convolutions in front of the decoder.
        encoder_weights: `imagenet`, the path of a weights file of the encoder (.h5, without top), or None.
        decoder_filters: widths of the five decoder stages, from coarse to fine.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    filters = check_wholes("manet", 5, decoder_filters=decoder_filters)
    grid = (input_size[0] // STRIDE, input_size[1] // STRIDE)

    def decode(features: list[Any]) -> Any:
        x = _attend(features[0], grid=grid, name="decoder_attention")
        for stage, skip in enumerate(features[1:]):
            x = _fuse(x, skip, filters[stage], name=f"decoder_stage{stage}")
        return classify(grow(x, [], filters[4], name="decoder_stage4"), outputs)

    return draft_on_features(
        decode,
        net="manet",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
    )


def _attend(x: Any, *, grid: tuple[int, int], name: str) -> Any:
    """Add to every position the values of all positions, weighted by query . key (position attention block).

    Keras' own Reshape, Dot and Softmax carry it, so that files load anywhere, and that pruning and
    channel removal see each step. Query and key have the same channels, which Dot sums away.
    """

    def flat(width: int, kernel: int, part: str) -> Any:
        values = layers.Conv2D(width, kernel, padding="same", name=f"{name}_{part}_conv")(x)
        return layers.Reshape((grid[0] * grid[1], width), name=f"{name}_{part}")(values)

    width = x.shape[-1]
    query, key = flat(ATTENTION_FILTERS, 1, "query"), flat(ATTENTION_FILTERS, 1, "key")
    weights = layers.Dot(axes=(2, 2), name=f"{name}_scores")([query, key])
    weights = layers.Softmax(axis=-1, name=f"{name}_weights")(weights)
    mixed = layers.Dot(axes=(2, 1), name=f"{name}_mix")([weights, flat(width, 3, "value")])
    mixed = layers.Reshape((*grid, width), name=f"{name}_grid")(mixed)
    x = layers.Add(name=f"{name}_add")([x, mixed])
    return layers.Conv2D(width, 3, padding="same", name=f"{name}_out_conv")(x)


def _fuse(x: Any, skip: Any, filters: int, *, name: str) -> Any:
    """Join a coarse tensor, gated by both scales, with a skip of twice its size (multi-scale fusion block)."""
    x = convolve(x, x.shape[-1], name=f"{name}_coarse_a")
    x = convolve(x, skip.shape[-1], kernel=1, name=f"{name}_coarse_b")
    gate = layers.Add(name=f"{name}_gate")(
        [_gate(x, name=f"{name}_coarse_gate"), _gate(skip, name=f"{name}_fine_gate")]
    )
    # before the upsampling in `grow`, which repeats pixels: the same numbers from a quarter of them
    x = layers.Multiply(name=f"{name}_gated")([x, gate])
    return grow(x, [skip], filters, name=name)


def _gate(x: Any, *, name: str) -> Any:
    """Return one number in 0..1 per channel, (N, 1, 1, C). Source: Hu et al. 2018, arXiv 1709.01507."""
    width = x.shape[-1]
    x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    x = layers.Conv2D(max(1, width // REDUCTION), 1, name=f"{name}_squeeze")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Conv2D(width, 1, name=f"{name}_excite")(x)
    return layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
