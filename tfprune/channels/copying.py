"""Copies of single layers, with numbers of their config changed, and without drawing new weights."""

from __future__ import annotations

from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras

_OP_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_LIVE_ENDINGS = ("activation", "regularizer", "constraint")


def is_op_layer(layer: Any) -> bool:
    """Return whether a layer is a TensorFlow op that was called on a symbolic tensor."""
    return type(layer).__name__ in _OP_LAYERS


def copy_layer(layer: Any, changes: dict[str, Any] | None = None, *, dtype: str | None = None) -> Any:
    """Return a new, unbuilt layer like `layer`.

    Functions and objects (activations, regularizers, constraints) are handed over as they are, not
    by name, so that those need not be registered. Initializers are handed over after building, by
    `restore_initializers`: the weights are about to be overwritten, and drawing them costs more
    than anything else here.

    Args:
        layer: the layer, not a model.
        changes: values of its config to replace.
        dtype: replaces the dtype policy.

    Raises:
        InputError: when the layer has no usable config.
    """
    if is_op_layer(layer):
        return type(layer)(layer.function, name=layer.name)
    if type(layer) is keras.layers.Lambda:
        return keras.layers.Lambda(
            layer.function, mask=layer.mask, arguments=layer.arguments, name=layer.name, dtype=dtype or layer.dtype
        )
    try:
        config = layer.get_config()
        for key in config:
            value = getattr(layer, key, None)
            if key.endswith(_LIVE_ENDINGS) and value is not None and not isinstance(value, str):
                config[key] = value
            elif key.endswith("_initializer") and value is not None:
                config[key] = "zeros"
        config.update(changes or {})
        if dtype:
            config["dtype"] = dtype
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be copied from its config: {error}. "
            "Give it get_config and from_config that are inverse."
        ) from error


def restore_initializers(source: Any, copy: Any) -> None:
    """Give a built copy the initializers of its source, so that its config is whole again."""
    for key in list(vars(source)):
        if key.endswith("_initializer") and hasattr(copy, key):
            setattr(copy, key, getattr(source, key))


def drawn_anew(model: Any, *, seed: int) -> Any:
    """Return a new functional model of the same layers, its weights drawn by their initializers."""
    keras.utils.set_random_seed(seed)
    return keras.models.clone_model(model)
