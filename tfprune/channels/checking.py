"""The proof that a rebuilt model computes what the masked original computes.

Removing a channel equals setting to zero the slices of the weights that read it. The original is
built again with nothing removed (that twin must equal it bit for bit), the twin's reading slices are
set to zero, and its logits are compared with those of the rebuilt model. No live layer is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.channels.copying import copy_layer
from tfprune.channels.graph import ChannelGraph, walk
from tfprune.channels.rebuild import CannotRebuildError, Rebuilder, rebuild
from tfprune.channels.sampling import always_trains, random_inputs
from tfprune.keras import keras, tf

TOLERANCE = 1e-5
"""Largest accepted difference, relative to the largest logit of the masked model, in float32."""


@dataclass(frozen=True)
class Equality:
    """How far a rebuilt model is from the masked original.

    Attributes:
        difference: largest difference of a logit relative to the largest logit.
        unmasked_difference: the same between the original and its copy with nothing removed.
        precision: the float type that it was computed in.
    """

    difference: float
    unmasked_difference: float
    precision: str = "float32"

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.difference, self.unmasked_difference)

    @property
    def holds(self) -> bool:
        """Whether both are within `TOLERANCE`; a difference that is no number is not."""
        return self.difference <= TOLERANCE and self.unmasked_difference <= TOLERANCE


def compare_with_masked(graph: ChannelGraph, keep: np.ndarray, rebuilt: Any) -> Equality:
    """Compare a rebuilt model with the masked original, in float32, on two random inputs.

    Where layers compute in another dtype, or always train (dropout would never be the same twice),
    float32 twins of both are compared in inference mode. Where float32 says that
    they differ, float64 twins have the last word: a softmax of large numbers, as in attention on raw
    pixels, makes much of the last digit of float32, and the order of a sum changes with its length.
    """
    equality = _compare(graph, keep, rebuilt if runs_in_float32(graph.model) else None)
    if equality.holds:
        return equality
    try:
        exact = _compare(graph, keep, None, precision="float64")
    except (TypeError, ValueError, tf.errors.OpError, CannotRebuildError):  # something knows float32 only
        return equality
    return replace(exact, unmasked_difference=equality.unmasked_difference) if exact.holds else equality


def _compare(graph: ChannelGraph, keep: np.ndarray, rebuilt: Any | None, *, precision: str = "float32") -> Equality:
    """Compare in a precision; `rebuilt` None stands for a twin of it that computes in that precision."""
    dtype = precision if rebuilt is None else None
    twin = Rebuilder(graph, np.ones(len(keep), bool), dtype=dtype)
    inputs = random_inputs(graph.model, batch=2)
    unmasked = 0.0
    if rebuilt is not None:
        twin.fill()
        unmasked = relative_difference(logits_of(graph.model, inputs), logits_of(twin.model, inputs))
    twin.fill(masked_reader(graph, keep))
    small = rebuild(graph, keep, dtype=dtype) if rebuilt is None else rebuilt
    difference = relative_difference(logits_of(twin.model, inputs), logits_of(small, inputs))
    return Equality(difference, unmasked, precision)


def masked_reader(graph: ChannelGraph, keep: np.ndarray) -> Callable[[Any], np.ndarray]:
    """Return a function variable -> value, zero where it reads a removed channel.

    A channel that an op without weights sums over has no reader; its makers are zero as well.
    """
    contracted = np.zeros(len(keep), bool)
    if graph.contracted:
        roots = graph.space.find(np.concatenate(graph.contracted))
        contracted = np.isin(graph.space.find(np.arange(len(keep))), roots)

    def read(variable: Any) -> np.ndarray:
        value = variable.numpy()
        for axis in range(value.ndim):
            slot = graph.slots.get((id(variable), axis))
            if slot is None:
                continue
            gone = ~keep[slot.labels] & (contracted[slot.labels] | (slot.role == "in"))
            if gone.any():
                shape = [1] * value.ndim
                shape[axis] = -1
                value = np.where(gone.reshape(shape), np.zeros((), value.dtype), value)
        return value

    return read


def logits_of(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Return the model's outputs before their last activation, in inference mode.

    After a saturated softmax everything looks equal.
    """
    tensors = [_before_activation(tensor) for tensor in model.outputs]
    heads = [_linear_head(tensor) for tensor in tensors]
    features = [head[1] if head else tensor for head, tensor in zip(heads, tensors, strict=True)]
    inputs = [array.astype(tensor.dtype.as_numpy_dtype) for array, tensor in zip(inputs, model.inputs, strict=True)]
    values = tf.nest.flatten(keras.Model(model.inputs, features)(inputs, training=False))
    pairs = zip(heads, values, strict=True)
    return [np.asarray(head[0](value) if head else value) for head, value in pairs]


def _before_activation(tensor: Any) -> Any:
    """Step back over activation layers at the end."""
    history = tensor._keras_history
    if type(history.layer) in (keras.layers.Activation, keras.layers.Softmax):
        return history.layer._inbound_nodes[history.node_index].keras_inputs[0]
    return tensor


def _linear_head(tensor: Any) -> tuple[Any, Any] | None:
    """Return a copy of the last layer without its fused activation and the tensor it reads, or None."""
    history = tensor._keras_history
    layer = history.layer
    if getattr(layer, "activation", None) in (None, keras.activations.linear) or not layer.weights:
        return None
    source = layer._inbound_nodes[history.node_index].keras_inputs[0]
    head = copy_layer(layer, {"activation": keras.activations.linear})
    head.build(source.shape)
    head.set_weights(layer.get_weights())
    return head, source


def runs_in_float32(model: Any) -> bool:
    """Return whether a model computes in float32 and, in inference mode, nothing by chance."""
    float32 = all(layer.compute_dtype in (None, "float32") for layer in model._flatten_layers() if layer.weights)
    return float32 and not any(always_trains(node) for _, node in walk(model))


def relative_difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """Return the largest difference per image, relative to the largest value of that image."""
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape:
            return float("inf")
        axes = tuple(range(1, a.ndim))
        a, b = a.astype(np.float64), b.astype(np.float64)
        scale = np.maximum(np.abs(a).max(axis=axes), np.finfo(np.float32).tiny)
        ratio = np.abs(a - b).max(axis=axes) / scale
        worst = float(np.max([worst, *np.atleast_1d(ratio)]))
    return worst
