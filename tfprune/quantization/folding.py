"""Nets as their .tflite files compute them: batch norms inside the convolutions in front of them.

The converter folds norms too, but behind fake quantization it misses those of transposed convolutions, and a kernel
has its final values, and steps, only once its norm is in it (Jacob et al. 2018, arXiv 1712.05877, section 3.2). So it
happens before the training, with the statistics as they are then.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import Any

import numpy as np

from tfprune.channels.graph import nodes_of
from tfprune.keras import keras
from tfprune.quantization.wiring import Copies, readers_of, wire_flat

layers = keras.layers

KERNELS = {
    layers.Conv2D: "kernel",
    layers.Conv2DTranspose: "kernel",
    layers.DepthwiseConv2D: "depthwise_kernel",
    layers.Dense: "kernel",
}
"""Layers with a kernel of int8 -> the name of it."""

FUSED = ("linear", "relu", "relu6")
"""Activations that the operators of a .tflite file compute themselves."""

_OF_TWO = (layers.Add, layers.Multiply, layers.Maximum, layers.Minimum)
"""Layers that take any number of tensors, where the operator of a .tflite file takes two."""


def fold_model(model: Any) -> Any:
    """Return a flat net that computes the same in inference, of layers that int8 files have an operator for.

    A batch norm behind a convolution, transposed convolution or dense layer that nothing else reads is folded into
    it; every other one on maps (N, H, W, C), and a Rescaling with an offset, becomes a depthwise 1x1 convolution.
    A separable convolution becomes its two parts, a sum or product of many one of two after the other, and an
    activation inside a layer a layer of its own, unless files fuse it. A norm whose input is looked at by an added loss
    or an activity regularizer is not folded.

    Args:
        model: a functional or sequential tf_keras model; it is not changed.
    """
    flat = wire_flat(model, _Splitting())
    return wire_flat(flat, _Folding(flat))


def activation_name(layer: Any) -> str:
    """Return the name of a layer's activation: of the function, or of the class of what is called like one."""
    return getattr(layer.activation, "__name__", type(layer.activation).__name__)


def takes_activation_out(layer: Any) -> bool:
    """Return whether the activation inside a layer becomes a layer of its own."""
    activation = getattr(layer, "activation", None)
    is_layer = isinstance(activation, layers.Layer)
    return is_layer or bool(layer.weights and activation is not None and activation_name(layer) not in FUSED)


class _Splitting:
    """Copies every layer; what is two operators in a file becomes two layers."""

    def __init__(self) -> None:
        self._copies = Copies()
        self._parts: dict[int, tuple[Any, Any]] = {}  # of a separable convolution

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        layer = node.layer
        changes = {"activation": "linear"} if takes_activation_out(layer) else {}
        if type(layer) is layers.SeparableConv2D:
            made = self._separated(layer, args[0], **changes)
        elif type(layer) in _OF_TWO and len(args[0]) > 2:
            made = reduce(lambda two, one: type(layer)(name=self._copies.unique(layer.name))([two, one]), args[0])
        else:
            made = self._copies.call(layer, args, kwargs, weights=_own_weights(layer), **changes)
        if not changes:
            return made
        if isinstance(layer.activation, layers.Layer):
            return self._copies.call(layer.activation, (made,), {})
        return layers.Activation(layer.activation, name=self._copies.unique(f"{layer.name}_act"))(made)

    def _separated(self, layer: Any, tensor: Any, **changes: Any) -> Any:
        if id(layer) not in self._parts:
            self._parts[id(layer)] = _parts_of(layer)
        first, second = self._parts[id(layer)]
        depthwise, *pointwise = _own_weights(layer)
        tensor = self._copies.call(first, (tensor,), {}, weights=[depthwise])
        return self._copies.call(second, (tensor,), {}, weights=pointwise, **changes)


def _parts_of(layer: Any) -> tuple[Any, Any]:
    """Return the depthwise and the 1x1 convolution of a separable one, with its regularizers and constraints."""
    config = layer.get_config()
    shared = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "data_format")
    first = layers.DepthwiseConv2D(
        **{key: config[key] for key in shared},
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=f"{layer.name}_depthwise",
    )
    second = layers.Conv2D(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        activity_regularizer=layer.activity_regularizer,
        name=layer.name,
    )
    first._trainable = second._trainable = layer._trainable
    return first, second


def _own_weights(layer: Any) -> list[np.ndarray]:
    """Return the weights of a layer without those of an activation that is a layer, which come last."""
    inside = getattr(getattr(layer, "activation", None), "weights", ())
    return layer.get_weights()[: len(layer.weights) - len(inside)]


class _Folding:
    """Makes the calls of a flat model, its norms inside the layers in front of them."""

    def __init__(self, model: Any) -> None:
        self._copies = Copies()
        self._norms = _norms_to_fold(model)
        self._folded = {id(norm) for norm in self._norms.values()}

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        layer = node.layer
        if id(layer) in self._folded:
            return args[0]
        if id(layer) in self._norms:
            scale, offset = _factors(self._norms[id(layer)], node.outputs.shape[-1])
            kernel, *bias = layer.get_weights()
            bias = offset + (scale * bias[0] if bias else 0)
            return self._copies.call(layer, args, kwargs, weights=[_scaled(layer, kernel, scale), bias], use_bias=True)
        if _is_pointwise(layer) and node.outputs.shape.rank == 4:
            scale, offset = _factors(layer, node.outputs.shape[-1])
            one = layers.DepthwiseConv2D(1, name=layer.name)
            one._trainable = layer._trainable and isinstance(layer, layers.BatchNormalization)
            return self._copies.call(one, args, {}, weights=[scale.reshape(1, 1, -1, 1), offset])
        return self._copies(node, args, kwargs)


def _norms_to_fold(model: Any) -> dict[int, Any]:
    """Return id of a layer -> the batch norm that alone reads it, both called once."""
    nodes = list(nodes_of(model))
    readers = readers_of(model, nodes)
    calls = Counter(id(node.layer) for node in nodes)
    found = {}
    for node in nodes:
        layer, behind = node.layer, readers.get(id(node.outputs), []) if type(node.layer) in KERNELS else []
        if len(behind) != 1 or behind[0] is None or activation_name(layer) != "linear" or layer.activity_regularizer:
            continue
        norm, once = behind[0].layer, calls[id(layer)] == calls[id(behind[0].layer)] == 1
        if once and isinstance(norm, layers.BatchNormalization) and list(norm.axis) == [len(node.outputs.shape) - 1]:
            found[id(layer)] = norm
    return found


def _is_pointwise(layer: Any) -> bool:
    """Return whether a layer only multiplies and shifts every channel."""
    if type(layer) is layers.Rescaling:
        return bool(np.any(layer.offset))
    return isinstance(layer, layers.BatchNormalization) and list(layer.axis) == [3]


def _factors(layer: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (scale, offset), each (C,), of a batch norm in inference or of a Rescaling."""
    if type(layer) is layers.Rescaling:
        parts = (layer.scale, layer.offset)
        return tuple(np.broadcast_to(np.asarray(part, np.float64), channels) for part in parts)
    mean, variance = (part.numpy().astype(np.float64) for part in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * layer.gamma.numpy()
    return scale, (0 if layer.beta is None else layer.beta.numpy()) - scale * mean


def _scaled(layer: Any, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return a kernel with each filter multiplied by a number; `scale` is (filters,)."""
    if isinstance(layer, layers.Conv2DTranspose):  # (h, w, filters, inputs)
        return kernel * scale[:, None]
    if isinstance(layer, layers.DepthwiseConv2D):  # (h, w, inputs, multiplier)
        return kernel * scale.reshape(kernel.shape[-2:])
    return kernel * scale
