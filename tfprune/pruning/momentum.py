"""Optimizers and masked weights: what must be still for a zero to stay a zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.keras import keras, tf

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


def holds_zeros(optimizer: Any) -> bool:
    """Return whether a weight of zero without gradient and momentum stays zero under this optimizer."""
    return isinstance(_inner(optimizer), _STILL)


def stop_momentum(optimizer: Any, variable: Any, mask: np.ndarray) -> None:
    """Set the momentum (and moving average) of masked weights to zero; the size of their steps stays known."""
    inner = _inner(optimizer)
    if not holds_zeros(inner) or not getattr(inner, "_built", False):
        return
    index = inner._index_dict.get(inner._var_key(variable))
    if index is None:
        return
    for name in ("_momentums", "momentums", "_m", "_model_variables_moving_average"):
        slots = getattr(inner, name, None)
        if slots:
            slots[index].assign(np.asarray(tf.convert_to_tensor(slots[index])) * mask)


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)
