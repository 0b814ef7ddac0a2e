"""U-Net++: a U-Net whose skips pass through nodes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.architectures.encoder_features import (
    DECODER_FILTERS,
    classify,
    draft_on_features,
    grow,
)
from tfprune.architectures.finishing import Draft
from tfprune.architectures.options import check_wholes


def unet_plus_plus(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    decoder_filters: Sequence[int] = DECODER_FILTERS,
) -> Draft:
    """Draft a U-Net++ with a named encoder, without deep supervision.

    Node (d, l) starts from feature d and ends at the size of feature l + 1 (0 is the coarsest); its layers
    are `decoder_xD_L...`. A node doubles the one to its left, joins the nodes below it of its size and the
    encoder's feature, and convolves twice. The nodes d = 0 have the decoder's widths, the others that of
    the feature they end at. Source: Zhou et al. 2018, arXiv 1807.10165, in the form of
    segmentation_models.pytorch.

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
    filters = check_wholes("unet_plus_plus", 5, decoder_filters=decoder_filters)

    def decode(features: list[Any]) -> Any:
        nodes: dict[tuple[int, int], Any] = {}
        for level, skip in enumerate(features[1:]):
            for start in range(level, -1, -1):
                nodes[start, level] = grow(
                    features[level] if start == level else nodes[start, level - 1],
                    [*(nodes[below, level] for below in range(start + 1, level + 1)), skip],
                    filters[level] if start == 0 else skip.shape[-1],
                    name=f"decoder_x{start}_{level}",
                )
        return classify(grow(nodes[0, 3], [], filters[4], name="decoder_x0_4"), outputs)

    return draft_on_features(
        decode,
        net="unet_plus_plus",
        encoder=encoder,
        encoder_weights=encoder_weights,
        input_size=input_size,
        channels=channels,
    )
