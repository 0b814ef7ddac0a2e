"""Kernels on the grid of int8, rounded such that the errors of a filter cancel instead of adding up.

Nearest rounding leaves each filter with a sum of errors that its input multiplies: where that is far from
zero and changes slowly, as the pixels in front of a first convolution, the error is as large as what a filter
that looks for edges finds. So a few weights of a filter, those nearest to the middle between two steps, are
rounded the other way until the errors of each slice over the taps, and then of the filter, sum to less than
half a step (SQuant: Guo et al., ICLR 2022, arXiv 2202.07471, sections 3.2 and 3.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import flatbuffers
import numpy as np

from tfprune.keras import keras, tf

from tensorflow.lite.python import schema_py_generated as schema

_HIGHEST = 127
_FILTERS_LAST = {schema.BuiltinOperator.CONV_2D: 0, schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3}
"""Operators whose kernels are rounded -> the axis of the filters: (filters, h, w, inputs), (1, h, w, filters)."""

KERNELS = {keras.layers.Conv2D: "kernel", keras.layers.DepthwiseConv2D: "depthwise_kernel"}
"""Layers whose kernels are rounded -> the name of the kernel."""


def round_kernel(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel whose weights are whole steps of its filter, float32.

    The step of a filter is its largest size / 127, as the converter takes it, so that it finds the same grid.
    The largest weight of a filter stays, and so does what is zero.

    Args:
        kernel: shape (taps, inputs, filters).

    >>> kernel = np.array([127, 0.4, 0.4, 0.4, 0]).reshape(5, 1, 1)
    >>> round_kernel(kernel).ravel().tolist(), np.round(kernel).ravel().tolist()
    ([127.0, 1.0, 0.0, 0.0, 0.0], [127.0, 0.0, 0.0, 0.0, 0.0])
    """
    largest = np.abs(kernel).max(axis=(0, 1))
    steps = np.where(largest > 0, largest, 1.0) / _HIGHEST
    exact = kernel.astype(np.float64) / steps
    rounded = np.round(exact)
    movable = (np.abs(exact) < _HIGHEST - 0.5) & (exact != 0)
    rounded = _cancel(exact, rounded, movable)
    taps, inputs, filters = kernel.shape
    flat = (taps * inputs, filters)
    rounded = _cancel(exact.reshape(flat), rounded.reshape(flat), movable.reshape(flat))
    return (rounded.reshape(kernel.shape) * steps).astype(np.float32)


def _cancel(exact: np.ndarray, rounded: np.ndarray, movable: np.ndarray) -> np.ndarray:
    """Move as many weights by a step as brings the sum of errors along the first axis within half a step."""
    errors = rounded - exact
    excess = np.round(errors.sum(axis=0))
    direction = np.sign(excess)
    gain = np.where(movable, errors * direction, -np.inf)
    place = np.argsort(np.argsort(-gain, axis=0, kind="stable"), axis=0, kind="stable")
    moved = (place < np.abs(excess)) & movable
    return rounded - moved * direction


class RoundedFlatbuffer:
    """A float32 .tflite whose convolutions compute with rounded kernels, but for those that are to stay exact."""

    def __init__(self, flatbuffer: bytes) -> None:
        self._flatbuffer = flatbuffer
        model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
        kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        tensors = model.subgraphs[0].tensors
        self._rounded: dict[str, tuple[int, np.ndarray]] = {}
        for operator in model.subgraphs[0].operators:
            if kinds[operator.opcodeIndex] not in _FILTERS_LAST:
                continue
            kernel = tensors[operator.inputs[1]]
            data = model.buffers[kernel.buffer].data
            if kernel.type == schema.TensorType.FLOAT32 and data is not None and len(data):
                values = np.frombuffer(bytes(data), np.float32).reshape(kernel.shape)
                axis = _FILTERS_LAST[kinds[operator.opcodeIndex]]
                turned = np.moveaxis(values, axis, -1)
                rounded = round_kernel(turned.reshape(np.prod(turned.shape[:2]), -1, turned.shape[-1]))
                back = np.ascontiguousarray(np.moveaxis(rounded.reshape(turned.shape), -1, axis))
                self._rounded[tensors[operator.outputs[0]].name.decode()] = (kernel.buffer, back)

    def packed(self, *, exact: Collection[str]) -> bytes:
        """Return the flatbuffer; the convolutions that make the tensors named in `exact` keep their kernels."""
        model = schema.ModelT.InitFromPackedBuf(bytearray(self._flatbuffer), 0)
        for made, (buffer, kernel) in self._rounded.items():
            if made not in exact:
                model.buffers[buffer].data = np.frombuffer(kernel.tobytes(), np.uint8)
        builder = flatbuffers.Builder(len(self._flatbuffer))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@contextmanager
def rounded_kernels(model: keras.Model) -> Iterator[None]:
    """Let the convolutions of a model compute with rounded kernels while it is traced; its weights stay."""
    layers = [layer for layer in model._flatten_layers(include_self=False) if type(layer) in KERNELS]
    with _computing_with([(layer, KERNELS[type(layer)], rounded_kernel(layer)) for layer in layers]):
        yield


def rounded_kernel(layer: Any) -> np.ndarray:
    """Return the kernel of a layer of `KERNELS`, rounded by `round_kernel`, in its own shape."""
    values = getattr(layer, KERNELS[type(layer)]).numpy()
    taps = values.shape[0] * values.shape[1]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    shape = (taps, 1, values.shape[2] * values.shape[3]) if depthwise else (taps, *values.shape[2:])
    return round_kernel(values.reshape(shape)).reshape(values.shape)


@contextmanager
def distinct_biases(model: keras.Model) -> Iterator[None]:
    """Let no two biases of a model be equal while it is traced, but by the last bit of a float; its weights stay.

    The converter stores equal constants once, and with int16 activations it gives that one the step of its
    first reader alone: every other convolution would add a wrong bias. Branches that are summed learn equal
    biases whenever they begin so, as those of a residual block without norms do.
    """
    seen: set[bytes] = set()
    moved = []
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "bias", None) is None or not isinstance(layer.bias, tf.Variable):
            continue
        given = values = layer.bias.numpy()
        while values.tobytes() in seen and values.any():
            values = np.where(values, np.nextafter(values, np.inf, dtype=values.dtype), values)
        seen.add(values.tobytes())
        if values is not given:
            moved.append((layer, "bias", values))
    with _computing_with(moved):
        yield


@contextmanager
def _computing_with(replacements: Sequence[tuple[Any, str, np.ndarray]]) -> Iterator[None]:
    """Put values in the place of the variables (layer, name), and take them away again."""
    held = [(layer, name, getattr(layer, name)) for layer, name, _ in replacements]
    try:
        for layer, name, values in replacements:
            # object.__setattr__ goes past Keras' tracking: the variable stays the layer's weight.
            object.__setattr__(layer, name, tf.constant(values))
        yield
    finally:
        for layer, name, variable in held:
            object.__setattr__(layer, name, variable)
