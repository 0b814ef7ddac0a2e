"""A net that trains as its int8 file will compute, and what the file is made of afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.masked_model import check_wrappable
from tfprune.quantization.folding import KERNELS, activation_name, fold_model, takes_activation_out
from tfprune.quantization.layers import LearntRange, QuantizedLayer
from tfprune.quantization.rules import float_layers, folds_into_kernels, tensors_with_range
from tfprune.quantization.wiring import Copies, answering_nodes, readers_of, wire_flat

_BATCH = 4
_SMALLEST_RANGE = 256 * 1e-7


def quantize_model(model: Any, pictures: np.ndarray, *, keep_zeros: bool = True) -> Any:
    """Return a net that computes with the rounding of its int8 file, to be compiled, fitted and exported.

    It is flat, batch norms are folded into kernels, and stays within what `pictures` show until `fit` moves the
    ranges. `export_tflite` writes it with the ranges it has, without calibration.

    Args:
        model: a trained functional tf_keras model for raw pixels 0..255, or for floats, when `pictures` are floats;
            it is not changed.
        pictures: (N, H, W, C) of the training split; their extremes are the first ranges.
        keep_zeros: weights that are zero, because they were pruned, stay zero.

    Raises:
        InputError: when the model is not functional, or quantized already, or the pictures do not fit it, or an
            activity regularizer cannot be kept.
    """
    _check_model(model)
    _check_pictures(model, pictures)
    folded = fold_model(model)
    ranged = list(tensors_with_range(folded))
    wiring = _Quantizing({id(tensor) for tensor in ranged}, pictures.dtype == np.uint8, keep_zeros)
    quantized = wire_flat(folded, wiring, enter=wiring.enter)
    for layer in quantized.layers:
        if isinstance(layer, QuantizedLayer):
            layer.note_zeros()
    observed = ranged if pictures.dtype == np.uint8 else [*folded.inputs, *ranged]
    for layer, (low, high) in zip(wiring.ranges, _observer(folded, observed)(pictures), strict=True):
        layer.low.assign(min(low, 0.0))
        layer.high.assign(max(high, 0.0))
    return quantized


def _check_model(model: Any) -> None:
    """Refuse a model that cannot be quantized, or of which something would be lost."""
    if not getattr(model, "_is_graph_network", False):
        raise InputError(f"model '{model.name}' is not functional ({type(model).__name__}); it cannot be quantized")
    check_wrappable(model)
    if is_quantized(model):
        raise InputError(f"model '{model.name}' is quantized already; go on training it, or export it")
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "activity_regularizer", None) is not None and takes_activation_out(layer):
            raise InputError(
                f"layer '{layer.name}' of model '{model.name}' has an activity regularizer behind an activation "
                f"({activation_name(layer)}) that int8 files compute apart from it; make the activation a layer of its "
                "own with keras.layers.ActivityRegularization behind it, or leave the regularizer out"
            )


def _check_pictures(model: Any, pictures: np.ndarray) -> None:
    """Refuse pictures that a model does not take."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    fits = len(pictures) and model.inputs[0].shape.is_compatible_with(pictures.shape)
    if len(shapes) != 1 or not fits:
        raise InputError(
            f"pictures are {np.shape(pictures)}, and model '{model.name}' takes {', '.join(map(str, shapes))}; give "
            "pictures (N, H, W, C) that fit it, and a model with one input"
        )


def is_quantized(model: Any) -> bool:
    """Return whether a model is one of `quantize_model`."""
    return any(isinstance(layer, LearntRange) for layer in getattr(model, "layers", ()))


def describe_quantized(model: Any) -> dict[str, Any]:
    """Return the record of a quantized net: layers with int8 kernels, their zeros, ranges, and what stays float.

    `zeros` is the share of the weights of these kernels that are zero as the file holds them, 0-1.
    """
    kernels = {layer.name: layer.rounded().numpy() for layer in model.layers if isinstance(layer, QuantizedLayer)}
    ranges = {
        layer.name.removesuffix("_range"): [float(end) for end in layer.get_weights()]
        for layer in model.layers
        if isinstance(layer, LearntRange)
    }
    weights = sum(kernel.size for kernel in kernels.values())
    return {
        "layers": list(kernels),
        "zeros": sum(int((kernel == 0).sum()) for kernel in kernels.values()) / max(weights, 1),
        "ranges": ranges,
        "float_layers": float_layers(model),
    }


def observe_ranges(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function pictures (N, H, W, C) -> lowest and highest value, (tensors, 2), of what int8 files round.

    Args:
        model: a functional tf_keras model.
    """
    folded = fold_model(model)
    return _observer(folded, list(tensors_with_range(folded)))


def _observer(model: Any, tensors: Sequence[Any]) -> Callable[[np.ndarray], np.ndarray]:
    inside = keras.Model(model.inputs, list(tensors))

    @tf.function(reduce_retracing=True)
    def extremes(batch: Any) -> Any:
        values = tf.nest.flatten(inside(batch, training=False))
        return tf.stack([(tf.reduce_min(value), tf.reduce_max(value)) for value in values])

    def observe(pictures: np.ndarray) -> np.ndarray:
        batches = (pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH))
        rows = [extremes(tf.cast(batch, tf.float32)).numpy() for batch in batches]
        return np.stack([np.min([row[:, 0] for row in rows], 0), np.max([row[:, 1] for row in rows], 0)], 1)

    return observe


class _Quantizing:
    """Makes the calls of a folded model on rounded tensors."""

    def __init__(self, ranged: set[int], pixels: bool, keep_zeros: bool) -> None:
        self._copies = Copies()
        self._ranged, self._pixels, self._keep_zeros = ranged, pixels, keep_zeros
        self.ranges: list[LearntRange] = []

    def enter(self, tensor: Any) -> Any:
        """Round an input: pixels are whole numbers from 0 to 255 in any case."""
        if self._pixels:
            return LearntRange((0, 255), name=f"{tensor._keras_history.layer.name}_range")(tensor)
        return self._range(tensor, tensor._keras_history.layer.name)

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        layer = node.layer
        if type(layer) in KERNELS:
            wrap = partial(QuantizedLayer, keep_zeros=self._keep_zeros)
            made = self._copies.call(layer, args, kwargs, wrap=wrap)
        else:
            made = self._copies(node, args, kwargs)
        old, new = tf.nest.flatten(node.outputs), tf.nest.flatten(made)
        return [
            self._range(after, layer.name) if id(before) in self._ranged else after
            for before, after in zip(old, new, strict=True)
        ]

    def _range(self, tensor: Any, name: str) -> Any:
        self.ranges.append(LearntRange(name=self._copies.unique(f"{name}_range")))
        return self.ranges[-1](tensor)


def bake_model(model: Any) -> Any:
    """Return a quantized net for the converter: kernels at their rounded values, a first Rescaling inside them."""
    return wire_flat(model, _Baking(model), keep_added=False)


class _Baking:
    """Makes the calls of a quantized model with what its file will hold."""

    def __init__(self, model: Any) -> None:
        self._copies = Copies()
        nodes = answering_nodes(model)
        readers = readers_of(model, nodes)
        self._factors: dict[int, float] = {}
        self._dropped: set[int] = set()
        for node in nodes:
            behind = readers.get(id(node.outputs), [])
            if folds_into_kernels(node, behind):
                self._dropped.add(id(node.layer))
                self._factors.update((id(reader.layer), float(node.layer.scale)) for reader in behind)

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        layer = node.layer
        if id(layer) in self._dropped:
            return args[0]
        if isinstance(layer, QuantizedLayer):
            _, *bias = layer.layer.get_weights()
            kernel = layer.rounded().numpy() * self._factors.get(id(layer), 1.0)
            return self._copies.call(layer.layer, args, kwargs, weights=[kernel, *bias])
        if isinstance(layer, LearntRange):
            low, high = layer.get_weights()
            return self._copies.call(
                layer, args, kwargs, weights=[low, high] if high - low > _SMALLEST_RANGE else [0.0, 1.0]
            )
        return self._copies(node, args, kwargs)
