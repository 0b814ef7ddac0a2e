"""What a model costs: multiplications, parameters, bytes of weights, and the peak of its activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.channels.copying import is_op_layer
from tfprune.channels.graph import is_graph, nodes_of
from tfprune.channels.liveness import Shape, trace_moments
from tfprune.channels.sampling import DYNAMIC_SIZE, map_arguments, run_graph, sample_tensors
from tfprune.errors import InputError
from tfprune.keras import keras, tf


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer, for a batch of one; a shared layer's parameters count at its first call."""

    layer: str
    kind: str
    output_shape: tuple[int, ...]
    macs: int
    parameters: int


@dataclass(frozen=True)
class Cost:
    """The cost of a model for a batch of one.

    Attributes:
        macs: multiply-accumulates of convolutions, dense layers and matrix products.
        parameters: all numbers stored, moving statistics included.
        weight_bytes_float32, weight_bytes_int8: bytes of the parameters at 4 and at 1 byte each.
        peak_activation_bytes_float32, peak_activation_bytes_int8: most bytes of tensors alive at once,
            see `tfprune.channels.liveness`.
        layers: the parts, in order of execution.
    """

    macs: int
    parameters: int
    weight_bytes_float32: int
    weight_bytes_int8: int
    peak_activation_bytes_float32: int
    peak_activation_bytes_int8: int
    layers: tuple[LayerCost, ...]


def measure_cost(model: Any, *, input_size: tuple[int, int] | None = None) -> Cost:
    """Count what a functional model costs for a batch of one.

    Args:
        model: a functional or sequential tf_keras model, nested ones included.
        input_size: (H, W) in pixels, for models of unknown size.

    Raises:
        InputError: when the model is no graph of layers, or its size is unknown and not given.
    """
    shapes = tensor_shapes(model, input_size=input_size)
    layers, counted = [], set()
    for path, node, here in walk_shapes(model, shapes):
        parameters = sum(math.prod(w.shape) for w in node.layer.weights if id(w) not in counted)
        counted |= {id(weight) for weight in node.layer.weights}
        output = here[id(tf.nest.flatten(node.outputs)[0])]
        layers.append(LayerCost(path, type(node.layer).__name__, output, macs_of(node, here), parameters))
    parameters = sum(math.prod(weight.shape) for weight in model.weights)
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    peak = max((moment.size(sizes) for moment in trace_moments(model, shapes)), default=0)
    return Cost(
        macs=sum(layer.macs for layer in layers),
        parameters=parameters,
        weight_bytes_float32=4 * parameters,
        weight_bytes_int8=parameters,
        peak_activation_bytes_float32=4 * peak,
        peak_activation_bytes_int8=peak,
        layers=tuple(layers),
    )


def tensor_shapes(model: Any, *, input_size: tuple[int, int] | None = None) -> dict[int, Shape]:
    """Return id of symbolic tensor -> its shape for a batch of one, nested models included."""
    if not is_graph(model):
        raise InputError(f"'{model.name}' is a {type(model).__name__}; costs are counted on functional models")
    if all(None not in tuple(tensor.shape)[1:] for tensor in _tensors(model)):
        return {id(tensor): _batch_of_one(tuple(tensor.shape)) for tensor in _tensors(model)}
    if input_size is None and any(None in tuple(tensor.shape)[1:] for tensor in model.inputs):
        raise InputError(f"model '{model.name}' takes images of any size; give input_size=(height, width)")
    return _shapes_of(sample_tensors(model, size=input_size or (DYNAMIC_SIZE, DYNAMIC_SIZE)))


def _shapes_of(values: dict[int, Any]) -> dict[int, Shape]:
    return {key: (1, *np.shape(value)[1:]) if np.ndim(value) else () for key, value in values.items()}


def _batch_of_one(shape: tuple[int | None, ...]) -> Shape:
    return (1, *shape[1:]) if shape and shape[0] is None else shape


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.inputs
    for node in nodes_of(model):
        yield from tf.nest.flatten(node.outputs)
        if is_graph(node.layer):
            yield from _tensors(node.layer)


def walk_shapes(model: Any, shapes: dict[int, Shape], prefix: str = "") -> Iterator[tuple[str, Any, dict[int, Shape]]]:
    """Yield (path, node, shapes of the tensors then) of all calls that compute, nested models in their place."""
    for node in nodes_of(model):
        path = prefix + node.layer.name
        if is_graph(node.layer):
            yield from walk_shapes(node.layer, _shapes_within(node, shapes), f"{path}/")
        else:
            yield path, node, shapes


def _shapes_within(node: Any, shapes: dict[int, Shape]) -> dict[int, Shape]:
    """Return the shapes inside a nested model in one call of it: a head may be called on maps of several sizes."""
    if all(None not in tuple(tensor.shape)[1:] for tensor in _tensors(node.layer)):
        return shapes
    values: dict[int, Any] = {}
    run_graph(node.layer, [tf.zeros(shapes[id(tensor)], tensor.dtype) for tensor in node.keras_inputs], values)
    return _shapes_of(values)


Uses = list[tuple[Any, int]]
"""The kernels of a layer, each with the number of times that all of its numbers are multiplied."""


def _at_outputs(name: str) -> Callable[[Any, Shape, Shape], Uses]:
    return lambda layer, _, output: [(getattr(layer, name), math.prod(output[:-1]))]


def _at_inputs(layer: Any, given: Shape, _: Shape) -> Uses:
    return [(layer.kernel, math.prod(given[:-1]))]


def _separable(layer: Any, _: Shape, output: Shape) -> Uses:
    return [(kernel, math.prod(output[:-1])) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)]


_USES: dict[str, Callable[[Any, Shape, Shape], Uses]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Dense"), _at_outputs("kernel")),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _at_outputs("depthwise_kernel")),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _at_inputs),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
}


def kernel_uses(node: Any, shapes: dict[int, Shape]) -> Uses | None:
    """Return the kernels of a call and how often each is used; None for a layer that is not in the table."""
    layer = node.layer
    uses = _USES.get(type(layer).__name__)
    if uses is None or type(layer) is not getattr(keras.layers, type(layer).__name__, None):
        return None
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    output = shapes[id(tf.nest.flatten(node.outputs)[0])]
    return uses(layer, shapes[id(node.keras_inputs[0])], output)


def macs_of(node: Any, shapes: dict[int, Shape]) -> int:
    """Return the multiply-accumulates of one call."""
    uses = kernel_uses(node, shapes)
    if uses is not None:
        return sum(positions * math.prod(kernel.shape) for kernel, positions in uses)
    layer = node.layer
    known = type(layer) is getattr(keras.layers, type(layer).__name__, None)
    without_kernel = type(layer).__name__ in _NO_KERNEL or not layer.weights
    if (known and without_kernel and type(layer) not in _MAY_MULTIPLY) or (
        is_op_layer(layer) and layer.symbol not in _PRODUCTS
    ):
        return 0
    return _traced_macs(node, shapes)


_NO_KERNEL = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "Normalization", "PReLU")
_MAY_MULTIPLY = {keras.layers.Lambda, keras.layers.Dot, keras.layers.Attention, keras.layers.AdditiveAttention}
_PRODUCTS = {"linalg.matmul", "einsum", "tensordot", "nn.conv2d", "nn.depthwise_conv2d", "nn.conv2d_transpose"}


def _traced_macs(node: Any, shapes: dict[int, Shape]) -> int:
    """Count the products in the TensorFlow graph of a call that no table knows."""
    tensors = node.keras_inputs

    @tf.function
    def run(*values: Any) -> Any:
        args, kwargs = map_arguments(node, {id(t): value for t, value in zip(tensors, values, strict=True)})
        return node.layer(*args, **kwargs)

    signature = [tf.TensorSpec(shapes[id(tensor)], tensor.dtype) for tensor in tensors]
    graph = run.get_concrete_function(*signature).graph
    functions = [graph, *(function.graph for function in graph._functions.values() if hasattr(function, "graph"))]
    return sum(_op_macs(op) for function in functions for op in function.get_operations())


def _op_macs(op: Any) -> int:
    if op.type in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
        kernel = op.inputs[1].shape.as_list()
        taps = math.prod(kernel[:-2]) if op.type.startswith("Depthwise") else math.prod(kernel[:-1])
        return math.prod(op.outputs[0].shape.as_list()) * taps
    if op.type == "Conv2DBackpropInput":
        return math.prod(op.inputs[2].shape.as_list()[:-1]) * math.prod(op.inputs[1].shape.as_list())
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        return math.prod(op.outputs[0].shape.as_list()) * op.inputs[0].shape.as_list()[-2 if transposed else -1]
    if op.type == "Einsum":
        terms = op.get_attr("equation").decode().split("->")[0].split(",")
        sizes: dict[str, int] = {}
        for term, tensor in zip(terms, op.inputs, strict=True):
            sizes.update(zip(term, tensor.shape.as_list(), strict=True))
        return math.prod(sizes.values())
    return 0
