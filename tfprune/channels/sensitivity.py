"""How much the loss rises when channels of a coupled family are masked: measured, family by family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfprune.channels.checking import masked_reader
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.planning import share_of
from tfprune.channels.rebuild import Rebuilder
from tfprune.errors import InputError
from tfprune.keras import tf

_SMALLEST = 0.05
"""Of the mean rise: a family whose masking does no harm, or good, still has a price."""


def measure_sensitivity(
    groups: ChannelGroups,
    scores: np.ndarray,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    *,
    share: float = 0.5,
) -> np.ndarray:
    """Return for each family the rise of the loss when its lowest groups are masked, shape (families,).

    Layers that are coupled are masked together: measured alone, one of them looks safest and is not.

    Args:
        groups: of the model that is asked; it is not changed.
        scores: one per group; the lowest of each family are masked.
        batches: (images, truth), at least one; they are walked through once per family.
        loss: (truth, outputs) -> loss per image or one number.
        share: of the groups of a family to mask, at least one of them.

    Raises:
        InputError: when there is no batch.
    """
    graph, nothing = groups.graph, np.zeros(len(groups), bool)
    twin = Rebuilder(graph, groups.keep(nothing))

    @tf.function
    def loss_of(images: Any, truth: Any) -> Any:
        return tf.reduce_mean(loss(truth, twin.model(images, training=False)))

    def mean_loss(masked: np.ndarray) -> float:
        twin.fill(masked_reader(graph, groups.keep(masked)))
        values = [float(loss_of(images, truth)) for images, truth in batches]
        if not values:
            raise InputError("sensitivity needs at least one batch of images and truth; none was given")
        return float(np.mean(values))

    whole, rises = mean_loss(nothing), []
    for family in groups.families:
        lowest = family.groups[np.argsort(scores[family.groups], kind="stable")]
        masked = nothing.copy()
        masked[lowest[: max(1, share_of(len(lowest), share))]] = True
        rises.append(mean_loss(masked) - whole)
    return np.array(rises)


def weigh_by_sensitivity(groups: ChannelGroups, scores: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """Return scores times what their family's masking costs, in units of the mean over the families.

    Args:
        groups: the groups.
        scores: one per group.
        rises: of `measure_sensitivity`.
    """
    scale = max(float(np.mean(np.maximum(rises, 0))), np.finfo(np.float64).tiny)
    weighed = scores.copy()
    for family, rise in zip(groups.families, rises, strict=True):
        weighed[family.groups] *= max(float(rise) / scale, _SMALLEST)
    return weighed
