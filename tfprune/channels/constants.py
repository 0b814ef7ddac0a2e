"""Which channels of which tensors are the same number everywhere, whatever the image.

A filter whose weights are zero makes its bias everywhere; the norm, activation and pooling that
follow keep it one number. `find_constants` follows these numbers through a model, in inference mode.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tfprune.channels.graph import ChannelGraph, is_graph, nodes_of
from tfprune.channels.probing import keeps_channels_apart
from tfprune.keras import keras, tf

Constants = dict[int, np.ndarray]
"""id of a symbolic tensor -> per channel of its last axis the number, NaN where it is none; float64 (C,)."""

_READERS = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), ("kernel", -2, -1)),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), ("kernel", -1, -2)),
    "Dense": ("kernel", 0, 1),
}
_ACTIVATIONS = ("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")
_SAME = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout"),
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("UpSampling", "Cropping") for n in (1, 2, 3)),
)
_ZERO_STAYS = ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Resizing")
_MERGES = ("Add", "Subtract", "Average", "Maximum", "Minimum")


def find_constants(graph: ChannelGraph) -> Constants:
    """Return the constant channels of all tensors, those inside nested models included."""
    constants: Constants = {}
    _follow(graph, graph.model, [_unknown(tensor) for tensor in graph.model.inputs], constants)
    return constants


def reads_all_places_alike(layer: Any) -> bool:
    """Return whether a layer reads a constant channel alike at the border and inside: no padding."""
    kernel = getattr(layer, "kernel_size", (1,))
    return getattr(layer, "padding", "valid") == "valid" or set(kernel) == {1}


def reader_axes(layer: Any) -> tuple[Any, int, int] | None:
    """Return kernel, its reading axis and its making axis of a conv, transposed conv or dense layer."""
    found = _READERS.get(type(layer).__name__) if type(layer).__module__.startswith(("keras", "tf_keras")) else None
    return None if found is None else (getattr(layer, found[0]), found[1], found[2])


def _unknown(tensor: Any) -> np.ndarray:
    return np.full((tensor.shape[-1] or 1) if len(tensor.shape) else 1, np.nan)


def _follow(graph: ChannelGraph, model: Any, inputs: list[np.ndarray], constants: Constants) -> None:
    _note(constants, model.inputs, inputs)
    calls = Counter(id(node.layer) for node in nodes_of(model))
    for node in nodes_of(model):
        outputs = tf.nest.flatten(node.outputs)
        if is_graph(node.layer):
            # What is constant in one call of a shared model need not be in another.
            given = [constants[id(tensor)] for tensor in node.keras_inputs]
            once = calls[id(node.layer)] == 1
            _follow(graph, node.layer, given if once else [values * np.nan for values in given], constants)
            found = [constants[id(tensor)] for tensor in node.layer.outputs]
        else:
            found = _outputs_of(graph, node, outputs, constants)
        _note(constants, outputs, found)


def _note(constants: Constants, tensors: list[Any], found: list[np.ndarray]) -> None:
    """Take the constants of tensors; where two nested models share a tensor, those that both agree on."""
    for tensor, values in zip(tensors, found, strict=True):
        known = constants.get(id(tensor), values)
        constants[id(tensor)] = np.where(known == values, values, np.nan)


def _outputs_of(graph: ChannelGraph, node: Any, outputs: list[Any], constants: Constants) -> list[np.ndarray]:
    layer, given = node.layer, [constants[id(tensor)] for tensor in node.keras_inputs]
    if id(node) in graph.gathers:
        gather = graph.gathers[id(node)]
        source = np.concatenate([given[index] for index in gather.inputs])
        return [source[pick] for pick in gather.picks]
    if id(node) in graph.moves:
        before = graph.tensors[id(node.keras_inputs[0])]
        index = graph.moves[id(node)].function(np.arange(before.size).reshape(before.shape))
        in_rows = before.size == before.shape[-1] == len(given[0]) and index.size == index.shape[-1]
        return [given[0][index.reshape(-1)]] if in_rows else [_unknown(outputs[0])]
    found = _of_layer(layer, given) if type(layer).__module__.startswith(("keras", "tf_keras")) else None
    if found is None or len(outputs) > 1 or found.shape != _unknown(outputs[0]).shape:
        return [_unknown(tensor) for tensor in outputs]
    return [found]


def _of_layer(layer: Any, given: list[np.ndarray]) -> np.ndarray | None:
    """Return the constants that a layer makes of those it is given; None where its kind is unknown."""
    kind = type(layer).__name__
    if reader_axes(layer) is not None:
        return _of_kernel(layer, given[0])
    if kind == "DepthwiseConv2D":
        return _of_depthwise(layer, given[0])
    if kind == "BatchNormalization":
        return _of_norm(layer, given[0])
    if kind == "Activation":
        return _apply(layer.activation, given[0])
    if kind in _ACTIVATIONS:
        return _apply(layer, given[0])
    if kind in _SAME:
        return given[0]
    if kind in _ZERO_STAYS:
        return np.where(given[0] == 0, 0.0, np.nan)
    if kind == "Concatenate" and layer.axis in (-1, 3):
        return np.concatenate(given)
    width = max(map(len, given), default=0)
    given = [
        np.broadcast_to(values, width) if len(values) in (1, width) else np.full(width, np.nan) for values in given
    ]
    if kind == "Multiply":
        zero = np.any([values == 0 for values in given], axis=0)
        return np.where(zero, 0.0, np.prod(given, axis=0))
    if kind in _MERGES:
        merged = layer([tf.constant(values[None], tf.float32) for values in given])
        return np.asarray(merged, np.float64)[0]
    return None


def _apply(function: Any, values: np.ndarray) -> np.ndarray:
    """Return what an activation makes of constants: unknown, all of it, where it mixes in an unknown channel."""
    outputs = np.asarray(function(tf.constant(np.nan_to_num(values)[None], tf.float32)), np.float64)[0]
    unknown = np.isnan(values)
    return np.where(unknown | (unknown.any() and not keeps_channels_apart(function)), np.nan, outputs)


def _of_kernel(layer: Any, given: np.ndarray) -> np.ndarray:
    """A filter is constant when every weight that is not zero reads a constant (zero, if there is padding)."""
    variable, reads, makes = reader_axes(layer)
    kernel = np.moveaxis(keras.backend.get_value(variable).astype(np.float64), (reads, makes), (-2, -1))
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    groups = getattr(layer, "groups", 1)
    exact = reads_all_places_alike(layer) and "Transpose" not in type(layer).__name__
    known = np.where(exact | (given == 0), given, np.nan).reshape(groups, taps.shape[1])
    per_group = taps.shape[2] // groups
    values = np.zeros(taps.shape[2])
    for group in range(groups):
        made = slice(group * per_group, (group + 1) * per_group)
        part = taps[:, :, made]
        reads_unknown = (np.isnan(known[group])[None, :, None] & (part != 0)).any(axis=(0, 1))
        total = np.einsum("tio,i->o", part, np.nan_to_num(known[group]))
        values[made] = np.where(reads_unknown, np.nan, total)
    if layer.bias is not None:
        values = values + keras.backend.get_value(layer.bias)
    return _apply(layer.activation, values)


def _of_depthwise(layer: Any, given: np.ndarray) -> np.ndarray:
    kernel = keras.backend.get_value(layer.depthwise_kernel).astype(np.float64)
    given = np.repeat(given, layer.depth_multiplier)
    sums, dead = kernel.sum(axis=(0, 1)).reshape(-1), (kernel == 0).all(axis=(0, 1)).reshape(-1)
    values = np.where(dead | (given == 0), 0.0, given * sums if reads_all_places_alike(layer) else np.nan)
    if layer.bias is not None:
        values = values + keras.backend.get_value(layer.bias)
    return _apply(layer.activation, values)


def _of_norm(layer: Any, given: np.ndarray) -> np.ndarray:
    mean, variance = (keras.backend.get_value(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance))
    gamma = np.ones(len(mean)) if layer.gamma is None else keras.backend.get_value(layer.gamma)
    beta = np.zeros(len(mean)) if layer.beta is None else keras.backend.get_value(layer.beta)
    if len(mean) != len(given):
        return np.full(len(given), np.nan)
    values = gamma * (given - mean) / np.sqrt(variance + layer.epsilon) + beta
    return np.where(gamma == 0, beta, values)
