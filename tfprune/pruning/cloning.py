"""New models from old ones, with layers wrapped or unwrapped, and the weights carried over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras
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

    plain = clone_layers(model, wrap)
    wrapped = MaskedModel(plain.inputs, plain.outputs, name=model.name)
    wrapped.composite = getattr(model, "composite", None)
    copy_weights(model, wrapped)
    return wrapped


def unwrap_model(model: Any) -> Any:
    """Return a plain functional model like a masked one, with its weights as they are."""
    inner = clone_layers(model, lambda path, layer: layer)
    plain = keras.Model(inner.inputs, inner.outputs, name=model.name)
    copy_weights(model, plain)
    return plain


def clone_layers(model: Any, change: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """Return a functional model of copied layers, each passed through `change(path, copy)`, without its weights."""

    def clone(layer: Any) -> Any:
        if is_nested(layer):
            return clone_layers(layer, change, f"{prefix}{layer.name}/")
        inner = _inner(layer)
        copy = type(inner).from_config(inner.get_config())
        return change(prefix + inner.name, copy)

    if type(model) is not keras.Model:
        # A subclass (Sequential, MaskedModel) would be rebuilt as such; only its graph is wanted.
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    return keras.models.clone_model(model, clone_function=clone)


def copy_weights(source: Any, target: Any) -> None:
    """Copy weights layer by layer, by path, whether wrapped or not."""
    layers = {path: _inner(layer) for path, layer in walk_layers(source)}
    for path, layer in walk_layers(target):
        if _inner(layer).weights:
            _inner(layer).set_weights(layers[path].get_weights())


def _inner(layer: Any) -> Any:
    return layer.layer if isinstance(layer, PruneLowMagnitude) else layer
