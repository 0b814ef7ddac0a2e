"""Progressive unfreezing: the decoder trains first, then the encoder joins it in groups, the deepest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.pruning.selection import layers_of_kind


def encoder_groups(model: Any, groups: int) -> list[list[Any]]:
    """Return the encoder's layers with weights in `groups` parts of as many layers each, the deepest part first.

    What the encoder is, `tfprune.pruning.selection.select_layers` says.

    Raises:
        InputError: the model has no encoder, or fewer layers in it than groups.
    """
    layers = [layer for layer in layers_of_kind(model, "encoder") if layer.weights]
    if len(layers) < groups or len(layers) == len([layer for layer in model.layers if layer.weights]):
        raise InputError(
            f"progressive unfreezing needs an encoder of at least {groups} layers with weights and a decoder "
            f"behind it; {model.name} has {len(layers)} layers before the first that enlarges or is named decoder..."
        )
    return [[layers[index] for index in part] for part in reversed(np.array_split(np.arange(len(layers)), groups))]


@contextmanager
def only_open(groups: Sequence[Sequence[Any]], opened: int) -> Iterator[None]:
    """Train the first `opened` groups and what is in none, inside this context; frozen norms keep their statistics."""
    frozen = [layer for group in groups[opened:] for layer in group if layer.trainable]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
