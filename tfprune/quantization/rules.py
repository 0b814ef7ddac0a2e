"""What an int8 file needs to know of each call of a net: where a range is learnt, and what stays float.

A tensor needs a range of its own where numbers are computed. Calls that only pick or move numbers, or average
neighbours, keep the range they are given; the runtimes fix that of a sigmoid, tanh or softmax. An activation that is
computed inside the operator in front of it has the one range of both, and what only a concatenation reads has that of
the concatenation: both are how the converter sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.channels.copying import is_op_layer
from tfprune.keras import keras, tf
from tfprune.quantization.folding import KERNELS, activation_name
from tfprune.quantization.wiring import answering_nodes, readers_of

layers = keras.layers

_COMPUTES = {
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Concatenate", "Dot", "Rescaling"),
    *("ReLU", "LeakyReLU", "PReLU", "GlobalAveragePooling2D", "QuantizedLayer"),
    *("tf.__operators__.add", "tf.math.add", "tf.math.multiply", "tf.math.subtract", "tf.concat", "tf.linalg.matmul"),
    *("tf.nn.relu", "tf.nn.relu6", "tf.nn.leaky_relu", "tf.nn.gelu", "tf.nn.silu", "tf.math.reduce_mean"),
    *("tf.math.maximum", "tf.math.minimum"),
}
_MOVES = {
    *("MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "UpSampling2D", "Resizing"),
    *("ZeroPadding2D", "Cropping2D", "Reshape", "Flatten", "Permute", "RepeatVector", "ActivityRegularization"),
    *("Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("tf.reshape", "tf.slice", "tf.gather", "tf.split", "tf.transpose", "tf.expand_dims", "tf.squeeze", "tf.identity"),
    *("tf.__operators__.getitem", "tf.pad", "tf.tile", "tf.broadcast_to", "tf.nn.depth_to_space"),
    *("tf.nn.space_to_depth", "tf.image.resize", "tf.nn.max_pool2d", "tf.nn.avg_pool2d", "tf.compat.v1.pad"),
}
_FIXED = {"Softmax", "tf.math.sigmoid", "tf.math.tanh", "tf.nn.softmax", "tf.nn.sigmoid"}
_ACTIVATIONS = {
    **dict.fromkeys(("relu", "relu6", "leaky_relu", "gelu", "swish", "silu"), "computes"),
    **dict.fromkeys(("sigmoid", "softmax", "tanh"), "fixed"),
    "linear": "moves",
}
_REASONS = {
    **dict.fromkeys(
        ("GroupNormalization", "LayerNormalization", "UnitNormalization"),
        "it divides by the deviation of every picture, which 8 bits may round to zero; batch norms are folded away",
    ),
    **dict.fromkeys(("Lambda", "TFOpLambda"), "what its code computes is not known; replace it by layers of Keras"),
}
_FUSE = {"Add", "Subtract", "Multiply", "tf.__operators__.add", "tf.math.add", "tf.math.multiply", "tf.math.subtract"}


@dataclass(frozen=True)
class FloatLayer:
    """A layer that an int8 file computes in float32, and the reason."""

    layer: str
    kind: str
    reason: str


def kind_of(layer: Any) -> str:
    """Return the class of a layer, or the name of the op that a layer of TensorFlow's calls."""
    return f"tf.{layer.symbol}" if is_op_layer(layer) else type(layer).__name__


def rule_of(layer: Any) -> str:
    """Return what a layer does: `computes`, `moves`, `fixed` (a known range), or `float` (no int8 form)."""
    kind = kind_of(layer)
    if kind == "Activation":
        return _ACTIVATIONS.get(activation_name(layer), "float")
    if type(layer) in KERNELS or kind in _COMPUTES:
        return "computes"
    return "moves" if kind in _MOVES else "fixed" if kind in _FIXED else "float"


def float_layers(model: Any) -> tuple[FloatLayer, ...]:
    """Return the layers of a folded or quantized model that an int8 file leaves float."""
    found = {}
    for node in answering_nodes(model):
        if rule_of(node.layer) == "float" and type(node.layer).__name__ != "LearntRange":
            kind = kind_of(node.layer)
            if kind == "Activation":
                kind = activation_name(node.layer)
            reason = _REASONS.get(kind, f"{kind} is not among the layers whose int8 form is known")
            found[node.layer.name] = FloatLayer(node.layer.name, kind, reason)
    return tuple(found.values())


def tensors_with_range(model: Any) -> Iterator[Any]:
    """Yield the symbolic tensors of a folded model whose range is learnt, the inputs left out."""
    nodes = answering_nodes(model)
    readers = readers_of(model, nodes)
    for node in nodes:
        rule = rule_of(node.layer)
        if rule in ("moves", "fixed"):
            continue
        for tensor in tf.nest.flatten(node.outputs):
            behind = readers.get(id(tensor), [])
            if tensor.dtype.is_floating and not (rule == "computes" and _has_range_of_reader(node, behind)):
                yield tensor


def folds_into_kernels(node: Any, behind: list[Any]) -> bool:
    """Return whether a call is a preprocessing whose factor the kernels behind it can take."""
    layer = node.layer
    inner = [getattr(reader.layer, "layer", reader.layer) if reader else None for reader in behind]
    return (
        type(layer) is layers.Rescaling
        and node.keras_inputs[0]._keras_history.layer.__class__.__name__ in ("InputLayer", "LearntRange")
        and not np.any(layer.offset)
        and np.ndim(layer.scale) == 0
        and all(type(one) in KERNELS for one in inner)
    )


def _has_range_of_reader(node: Any, behind: list[Any]) -> bool:
    if folds_into_kernels(node, behind):
        return True
    if len(behind) != 1 or behind[0] is None:
        return False
    reader = kind_of(behind[0].layer)
    return reader in ("Concatenate", "tf.concat") or (_fuses(node.layer) and _is_fused(behind[0].layer))


def _fuses(layer: Any) -> bool:
    """Return whether the operator of a layer computes a ReLU behind it; TensorFlow Lite's transposed one does not."""
    if type(layer) in KERNELS:
        return type(layer) is not layers.Conv2DTranspose and activation_name(layer) == "linear"
    return kind_of(layer) in _FUSE


def _is_fused(layer: Any) -> bool:
    kind = kind_of(layer)
    if kind == "ReLU":
        return layer.max_value in (None, 6.0) and not layer.negative_slope and not layer.threshold
    if kind == "Activation":
        return activation_name(layer) in ("relu", "relu6")
    return kind in ("tf.nn.relu", "tf.nn.relu6")
