"""All masked weights of a model read, and their masks set, in one compiled TensorFlow function each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfprune.keras import tf
from tfprune.pruning.momentum import momenta
from tfprune.pruning.wrapper import MaskedLayer

Weights = dict[tuple[str, str], Any]
"""(layer, weight) -> a tensor of the weight's shape."""


class MaskAssignment:
    """Moves whole weights out of, and masks into, the variables of a model.

    Between the two only scores are computed; everything else of a mask update is memory traffic,
    which a graph spreads over all cores without a detour through Python or numpy. Both graphs are
    called as concrete functions: to look each of hundreds of arguments up anew costs a tenth of an update.

    Args:
        owners: path -> masked layer.
    """

    def __init__(self, owners: Mapping[str, MaskedLayer]) -> None:
        self._owners = owners
        self._keys = [(path, name) for path, layer in owners.items() for name in layer.masked]
        self._read: Any = None
        self._optimizer: Any = None
        self._momenta: list[list[Any]] = []
        self._write: Any = None

    def wholes(self) -> Weights:
        """Return every masked weight with the values that are kept aside, float32."""
        self._read = self._read or tf.function(self._wholes).get_concrete_function()
        return dict(zip(self._keys, self._read(), strict=True))

    def assign(self, masks: Mapping[tuple[str, str], Any], wholes: Weights, optimizer: Any) -> None:
        """Set all masks, and stop the momentum of what they drop.

        Args:
            masks: bool arrays for every masked weight.
            wholes: what `wholes()` gave.
            optimizer: the one that trains the model.
        """
        if optimizer is not self._optimizer or not any(self._momenta):  # a new optimizer has none before its first step
            slots = [momenta(optimizer, self._owners[path].variable(name)) for path, name in self._keys]
            if any(slots) or any(self._momenta):
                self._write = None
            self._optimizer, self._momenta = optimizer, slots
        values = [tf.constant(masks[key]) for key in self._keys] + [wholes[key] for key in self._keys]
        self._write = self._write or tf.function(self._assign).get_concrete_function(*values)
        self._write(*values)

    def _wholes(self) -> list[Any]:
        return [self._owners[path].whole(name) for path, name in self._keys]

    def _assign(self, *values: Any) -> None:
        masks, wholes = values[: len(self._keys)], values[len(self._keys) :]
        for (path, name), mask, whole, slots in zip(self._keys, masks, wholes, self._momenta, strict=True):
            self._owners[path].set_mask(name, mask, whole)
            for slot in slots:
                slot.assign(slot * tf.cast(mask, slot.dtype))
