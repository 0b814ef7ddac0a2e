"""Values of every tensor of a model for one random input, for probes that need real shapes or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.keras import keras, tf

DYNAMIC_SIZE = 64
"""Size in pixels that stands for an axis of unknown size."""


def random_inputs(
    model: Any, *, batch: int, seed: int = 0, size: tuple[int, int] = (DYNAMIC_SIZE, DYNAMIC_SIZE)
) -> list[np.ndarray]:
    """Return random arrays for the inputs of a model: pixels 0..255 first, numbers around 0 after.

    Half the batch suits nets that scale raw pixels, the other half nets that expect them scaled.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        known = tuple(tensor.shape)[1:]
        shape = (batch, *(axis or (*size, DYNAMIC_SIZE)[min(i, 2)] for i, axis in enumerate(known)))
        values = rng.uniform(0, 255, shape)
        if tensor.dtype.is_floating:
            values[batch // 2 :] = rng.normal(0, 1, values[batch // 2 :].shape)
        arrays.append(values.astype(tensor.dtype.as_numpy_dtype))
    return arrays


def sample_tensors(model: Any, *, size: tuple[int, int] = (DYNAMIC_SIZE, DYNAMIC_SIZE)) -> dict[int, Any]:
    """Return id of symbolic tensor -> its value for one random input, nested models included.

    `size` is (H, W) where the model leaves it open.
    """
    values: dict[int, Any] = {}
    run_graph(model, [tf.constant(array) for array in random_inputs(model, batch=2, size=size)], values)
    return values


def run_graph(model: Any, inputs: list[Any], values: dict[int, Any]) -> list[Any]:
    """Call a functional model in inference mode, and note in `values` what each symbolic tensor is, by its id."""
    for tensor, value in zip(model.inputs, inputs, strict=True):
        values[id(tensor)] = value
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = map_arguments(node, values, inference=True)
            if isinstance(node.layer, keras.Model) and getattr(node.layer, "_is_graph_network", False):
                inner: dict[int, Any] = {}
                outputs = run_graph(node.layer, [values[id(tensor)] for tensor in node.keras_inputs], inner)
                # Of a model that is called twice the first call counts; the two may share tensors.
                values.update({key: value for key, value in inner.items() if key not in values})
            else:
                outputs = tf.nest.flatten(node.layer(*args, **kwargs))
            for tensor, value in zip(tf.nest.flatten(node.outputs), outputs, strict=True):
                values[id(tensor)] = value
    return [values[id(tensor)] for tensor in model.outputs]


@dataclass(frozen=True)
class Left:
    """Channels that are left: `chosen` of `count`, and the axis of arrays that have a number for each."""

    chosen: np.ndarray
    count: int
    axis: int = -1

    def of(self, item: Any) -> Any:
        """Return what is left of an array with numbers per channel, of its own type; anything else as it is."""
        if len(self.chosen) == self.count or not is_constant(item) or np.ndim(item) < -self.axis:
            return item
        if np.shape(item)[self.axis] != self.count:
            return item
        left = np.take(item, self.chosen, self.axis)
        if tf.is_tensor(item):
            return tf.constant(left)
        return left if isinstance(item, np.ndarray) else left.tolist()


def is_constant(item: Any) -> bool:
    """Return whether an argument is an array, or a list of numbers, that no training changes."""
    if isinstance(item, list | tuple):
        return not any(map(tf.is_tensor, tf.nest.flatten(item)))
    return not (is_symbolic(item) or isinstance(item, tf.Variable))


def map_arguments(
    node: Any, values: dict[int, Any], *, inference: bool = False, left: Left | None = None
) -> tuple[Any, Any]:
    """Return the arguments of a call with its symbolic tensors replaced by `values[id(tensor)]`.

    With `inference`, a call that always trains (`Dropout(...)(x, training=True)`) does not. With `left`, arrays that
    have numbers per channel lose those of the others.
    """

    def replace(item: Any) -> Any:
        return values.get(id(item), item) if is_symbolic(item) else item

    args, kwargs = node.call_args, node.call_kwargs
    if left is not None:
        args, kwargs = [left.of(item) for item in args], {key: left.of(item) for key, item in kwargs.items()}
    if inference and always_trains(node):
        args, kwargs = node.layer._call_spec.set_arg_value("training", False, args, dict(kwargs), inputs_in_args=True)
    return tf.nest.map_structure(replace, (args, kwargs))


def always_trains(node: Any) -> bool:
    """Return whether a call is in training mode whatever the model is in."""
    spec, given = node.layer._call_spec, (node.call_args, node.call_kwargs)
    return spec.arg_was_passed("training", *given, inputs_in_args=True) and (
        spec.get_arg_value("training", *given, inputs_in_args=True) is True
    )


def map_tensors(structure: Any, values: dict[int, Any]) -> Any:
    """Return a nested structure of symbolic tensors with each replaced by `values[id(tensor)]`."""
    return tf.nest.map_structure(lambda tensor: values[id(tensor)], structure)


def is_symbolic(item: Any) -> bool:
    """Return whether an argument of a call is a tensor of the model, not a constant."""
    return tf.is_tensor(item) and keras.backend.is_keras_tensor(item)
