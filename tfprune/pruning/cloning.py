"""New models from old ones, with layers wrapped or unwrapped, and the weights carried over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfprune.channels.copying import added_tensors, copy_layer, insert_added, restore_settings
from tfprune.channels.graph import nodes_of
from tfprune.channels.sampling import map_arguments, map_tensors
from tfprune.errors import InputError
from tfprune.keras import finish_weights, keras, tf
from tfprune.pruning.graph import is_nested, prunable_kernel, walk_layers
from tfprune.pruning.groups import ChannelGroup
from tfprune.pruning.masked_model import MaskedModel
from tfprune.pruning.wrapper import MaskedLayer

from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude


def wrap_model(
    model: Any, masked: Sequence[str], groups: Sequence[ChannelGroup], *, gathers: Mapping[str, str | None]
) -> Any:
    """Return a `MaskedModel` like `model`, with the kernels of the masked layers and all that groups touch masked.

    Args:
        gathers: per layer what is gathered about it, for those where something is.

    Raises:
        InputError: when a name is not that of a layer with such a weight.
    """
    layers = dict(walk_layers(model))
    unknown = [path for path in masked if path not in layers or prunable_kernel(layers[path]) is None]
    names: dict[str, list[str]] = {path: [prunable_kernel(layers[path])] for path in masked if path not in unknown}
    for member in (member for group in groups for member in group.members):
        if getattr(layers.get(member.layer), member.weight, None) is None:
            unknown.append(f"{member.layer}.{member.weight}")
        elif member.weight not in names.setdefault(member.layer, []):
            names[member.layer].append(member.weight)
    if unknown:
        raise InputError(
            f"model '{model.name}' has nothing to mask in {', '.join(sorted(set(unknown)))}; "
            "select_layers(model) lists what it has"
        )

    def wrap(path: str, layer: Any) -> Any:
        if path not in names:
            return layer
        return MaskedLayer(layer, masked=names[path], gathers=gathers.get(path))

    wrapped = clone_layers(model, wrap, build=MaskedModel)
    wrapped.composite = getattr(model, "composite", None)
    return wrapped


def unwrap_model(model: Any) -> Any:
    """Return a plain functional model like a masked one, with its weights as they are."""
    return clone_layers(model, lambda path, layer: layer)


def clone_layers(model: Any, change: Callable[[str, Any], Any], *, build: Callable[..., Any] = keras.Model) -> Any:
    """Return a model of copied layers, each passed through `change(path, copy)`, with the weights of the old one.

    What else training sees stays too: the structure of inputs and outputs, trainable flags, shared layers, and
    what `model.add_loss` and `model.add_metric` added. Wrappers of tfmot's kind are left out.

    Args:
        build: `build(inputs, outputs, name=...)`, the class of the new model; nested ones are plain.
    """
    clone = _clone(model, change, build, "", {})
    layers = dict(walk_layers(model))
    for path, layer in walk_layers(clone):
        if path in layers:  # the input of a Sequential is none of its layers
            restore_settings(_inner(layers[path]), _inner(layer))
    copy_weights(model, clone)
    return clone


def _clone(
    model: Any, change: Callable[[str, Any], Any], build: Callable[..., Any], prefix: str, copies: dict[int, Any]
) -> Any:
    """Clone a model; `copies` holds what was made of a layer, which several nested models may share."""

    def copy(layer: Any) -> Any:
        if id(layer) not in copies:
            inner = _inner(layer)
            copies[id(layer)] = (
                _clone(layer, change, keras.Model, f"{prefix}{layer.name}/", copies)
                if is_nested(layer)
                else change(prefix + inner.name, copy_layer(inner))
            )
        return copies[id(layer)]

    values = {
        id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names, strict=True)
    }
    for node in nodes_of(model):
        args, kwargs = map_arguments(node, values)
        made = tf.nest.flatten(copy(node.layer)(*args, **kwargs))
        values.update(zip(map(id, tf.nest.flatten(node.outputs)), made, strict=True))
    ends = [map_tensors(structure, values) for structure in (model._nested_inputs, model._nested_outputs)]
    clone = build(*ends, name=model.name)
    insert_added(clone, [values[id(tensor)] for tensor in added_tensors(model)])
    clone._trainable = model._trainable
    return clone


def copy_weights(source: Any, target: Any) -> None:
    """Copy weights layer by layer, by path, whether wrapped or not."""
    layers = {path: _inner(layer) for path, layer in walk_layers(source)}
    for path, layer in walk_layers(target):
        if _inner(layer).weights:
            _inner(layer).set_weights(layers[path].get_weights())
    finish_weights(target)


def _inner(layer: Any) -> Any:
    return layer.layer if isinstance(layer, PruneLowMagnitude) else layer
