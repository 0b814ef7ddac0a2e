"""Optimizers and masked weights: what must be still for a zero to stay a zero."""

from __future__ import annotations

from typing import Any

from tfprune.keras import keras

_STILL = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.Nadam,
    keras.optimizers.Adamax,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adafactor,
    keras.optimizers.AdamW,
    keras.optimizers.Lion,
)
_MOVING = ("_momentums", "momentums", "_m", "_model_variables_moving_average")


def holds_zeros(optimizer: Any) -> bool:
    """Return whether a weight of zero without gradient and momentum stays zero under this optimizer."""
    return isinstance(_inner(optimizer), _STILL)


def momenta(optimizer: Any, variable: Any) -> list[Any]:
    """Return the variables of an optimizer that would move a masked weight without a gradient.

    They are its momentum and its moving average; what only knows the size of its steps may stay.
    """
    inner = _inner(optimizer)
    if not holds_zeros(inner) or not getattr(inner, "_built", False):
        return []
    index = inner._index_dict.get(inner._var_key(variable))
    if index is None:
        return []
    slots = (getattr(inner, name, None) for name in _MOVING)
    return [each[index] for each in slots if each]


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)
