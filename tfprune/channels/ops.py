"""Rules of TensorFlow ops that stand in a functional model, and of layers that only move values.

An op that is in no table is probed. Those here are either faster to know than to probe, or, like
reshape, carry a number of channels among their arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.channels.graph import Call, Move, Rule
from tfprune.channels.labels import Labels
from tfprune.channels.probing import probe
from tfprune.channels.sampling import is_symbolic, map_arguments
from tfprune.keras import tf


def merge(call: Call) -> Any:
    """Add, multiply and their like: channel by channel; an operand with one channel stays as it is."""
    if len({labels.shape for labels in call.inputs}) == 1:  # whatever axes the channels are on
        for other in call.inputs[1:]:
            call.unite(other, call.inputs[0])
        return call.inputs[0]
    sides = [call.channels(index) for index in range(len(call.inputs))]
    widest = max(sides, key=len)
    for side in sides:
        if len(side) == len(widest):
            call.unite(side, widest)
        else:
            call.freeze(side, "one channel is spread over many")
    return call.spread(widest)


def arithmetic(call: Call) -> Any:
    """A binary or unary op: tensors merge, numbers do nothing."""
    arguments = [*call.node.call_args, *call.node.call_kwargs.values()]
    in_lists = len(call.tensors) > sum(map(is_symbolic, arguments))
    if in_lists or any(len(tensor.shape) == 0 for tensor in call.tensors):
        return probe(call)
    has_arrays = any(np.ndim(item) > 0 for item in arguments if not is_symbolic(item))
    return probe(call) if has_arrays else merge(call)


def shape_of(call: Call) -> Any:
    """tf.shape reads sizes, no values: its input stays free unless something goes on with its number of channels."""
    (vector,), rank = call.outputs, len(call.tensors[0].shape)
    sizes = np.arange(2, rank + 2, dtype=vector.dtype.as_numpy_dtype)
    if any(labels.size > 1 for labels in call.inputs) and _goes_on(call, vector, sizes, sizes + (sizes == rank + 1)):
        return call.opaque("its number of channels is read")
    return call.frozen_outputs("a shape")


def _goes_on(call: Call, tensor: Any, values: np.ndarray, others: np.ndarray) -> bool:
    """Return whether it makes a difference that a tensor holds other values: to another input, or to the outputs."""
    if any(tensor is output for output in call.graph.model.outputs):
        return True
    for node in tensor._keras_history.layer._outbound_nodes:
        if not any(given is tensor for given in node.keras_inputs):
            continue
        if len(node.keras_inputs) > 1:
            return True
        try:
            made, instead = (
                tf.nest.flatten(node.layer(*args, **kwargs))
                for args, kwargs in (map_arguments(node, {id(tensor): tf.constant(v)}) for v in (values, others))
            )
        except (ValueError, TypeError, tf.errors.OpError):
            return True
        for output, a, b in zip(tf.nest.flatten(node.outputs), made, instead, strict=True):
            if not np.array_equal(a, b) and _goes_on(call, output, a.numpy(), b.numpy()):
                return True
    return False


def reshape_op(call: Call) -> Any:
    """tf.reshape and tf.ensure_shape; the target stands among the arguments and is written anew when rebuilding."""
    args, kwargs = call.node.call_args, call.node.call_kwargs
    target = kwargs.get("shape", args[1] if len(args) > 1 else None)
    if is_symbolic(target):
        return call.opaque("reshapes to a size that is only known when it runs")
    return reshape_labels(call, target_in_arguments=True)


def transpose_op(call: Call) -> Any:
    """tf.transpose: the axes of the labels are transposed."""
    args, kwargs = call.node.call_args, call.node.call_kwargs
    order = kwargs.get("perm", args[1] if len(args) > 1 else None)
    order = list(range(len(call.tensors[0].shape)))[::-1] if order is None else [int(axis) for axis in order]
    return transpose_labels(call, order)


def transpose_labels(call: Call, order: list[int]) -> Labels:
    """Transpose the labels, and note how."""
    call.graph.moves[id(call.node)] = Move(lambda array: array.transpose(order))
    return call.inputs[0].transpose(order)


def reshape_labels(call: Call, *, target_in_arguments: bool = False) -> Any:
    """Reshape the labels as the tensor is reshaped, and note how."""
    before, after = tuple(call.tensors[0].shape), tuple(call.outputs[0].shape)

    def function(array: np.ndarray) -> np.ndarray:
        return reshape_marked(array, before, after)

    try:
        labels = function(call.inputs[0])
    except ValueError as error:
        return call.opaque(str(error))
    call.graph.moves[id(call.node)] = Move(function, target_in_arguments)
    return labels


def reshape_marked(array: np.ndarray, before: tuple, after: tuple) -> np.ndarray:
    """Reshape an array that has size 1 where a tensor of shape `before` is not told apart.

    Equal axes at both ends are left alone, so that images of unknown size can be reshaped too and
    nothing of the size of an image is ever made when only its channels are split.

    >>> reshape_marked(np.array([[[7, 8]]]), (None, 3, 2), (None, 6)).tolist()
    [[7, 8, 7, 8, 7, 8]]
    >>> reshape_marked(np.array([[[7, 8, 9, 10]]]), (None, None, 4), (None, None, 2, 2)).shape
    (1, 1, 2, 2)
    """
    first = 0
    while first < min(len(before), len(after)) and before[first] == after[first] and array.shape[first] == 1:
        first += 1
    tail = 0
    while tail < min(len(before), len(after)) - first and before[-1 - tail] == after[-1 - tail] is not None:
        tail += 1
    end = array.ndim - tail
    head, middle, ends = array.shape[:first], array.shape[first:end], array.shape[end:]
    sizes, target = before[first:end], after[first : len(after) - tail]
    if max(middle, default=1) == 1:
        return array.reshape(head + (1,) * len(target) + ends)
    if None in sizes or None in target:
        raise ValueError("reshapes channels together with a size that is only known when it runs")
    full = np.broadcast_to(array, head + sizes + ends)
    return _merge_equal(full.reshape(head + target + ends), range(first, len(after) - tail))


def _merge_equal(array: np.ndarray, axes: range) -> np.ndarray:
    """Shrink to size 1 the axes along which nothing differs; the last only if another one is left."""
    for axis in axes:
        one = array.take([0], axis)
        is_last_labelled = axis == array.ndim - 1 and one.size == 1
        if array.shape[axis] > 1 and not is_last_labelled and np.array_equal(np.broadcast_to(one, array.shape), array):
            array = one
    return array


_UNARY = (
    *("relu", "relu6", "elu", "selu", "leaky_relu", "gelu", "silu"),
    *("softplus", "softsign", "sigmoid", "tanh", "dropout", "swish"),
)
_MATH = (
    *("abs", "negative", "square", "sqrt", "rsqrt", "exp", "log"),
    *("sigmoid", "tanh", "softplus", "sign", "floor", "round"),
)
_BINARY = (
    *("add", "subtract", "multiply", "divide", "truediv", "maximum", "minimum"),
    *("divide_no_nan", "squared_difference"),
)

OPS: dict[str, Rule] = {
    "reshape": reshape_op,
    "ensure_shape": reshape_op,
    "transpose": transpose_op,
    "compat.v1.transpose": transpose_op,
    "shape": shape_of,
    "compat.v1.shape": shape_of,
    "clip_by_value": arithmetic,
    "cast": arithmetic,
    "identity": arithmetic,
    "__operators__.add": arithmetic,
    **{f"nn.{name}": arithmetic for name in _UNARY},
    **{f"math.{name}": arithmetic for name in _MATH + _BINARY},
    "tanh": arithmetic,
    "sigmoid": arithmetic,
}
"""Symbol of a TensorFlow op in the graph -> its rule."""
