"""Copies of single layers, with numbers of their config changed, and without drawing new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import finish_weights, keras, tf

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


def restore_settings(source: Any, copy: Any) -> None:
    """Give a built copy of a layer or a model the trainable flags and the initializers of its source."""
    # Setting `trainable` would overwrite the flags of all layers inside; each gets its own.
    for old, new in zip(source._flatten_layers(), copy._flatten_layers(), strict=True):
        new._trainable = old._trainable
        restore_initializers(old, new)


def added_tensors(model: Any) -> list[Any]:
    """Return what `model.add_loss` and `model.add_metric` look at, tensors that no output hangs on."""
    nodes = (node for nodes in model._nodes_by_depth.values() for node in nodes)
    added = [node for node in nodes if type(node.layer).__name__ in ("AddLoss", "AddMetric")]
    return [tensor for node in added for tensor in tf.nest.flatten(node.outputs)]


def insert_added(model: Any, tensors: Sequence[Any]) -> None:
    """Put into a functional model the layers that such tensors come from."""
    nodes: dict[int, Any] = {}
    waiting = [tensor.node for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            waiting.extend(node.parent_nodes)
    layers = {id(node.layer): node.layer for node in reversed(nodes.values())}
    for known in model.layers:
        layers.pop(id(known), None)
    if layers:
        model._insert_layers(list(layers.values()), list(reversed(nodes.values())))


def drawn_anew(model: Any, *, seed: int) -> Any:
    """Return a new functional model of the same layers, its weights drawn by their initializers; all of them train."""
    keras.utils.set_random_seed(seed)
    drawn = keras.models.clone_model(model)
    drawn.trainable = True
    for old, new in zip(model._flatten_layers(), drawn._flatten_layers(), strict=True):
        if isinstance(old, keras.layers.Normalization):
            new.set_weights(old.get_weights())  # found in data, and not drawn
    finish_weights(drawn)
    return drawn
