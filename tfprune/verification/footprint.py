"""What a .tflite file weighs: bytes, parameters, multiply-accumulates, operators."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfprune.verification.graph import Operator, Tensor, read_model_bytes, read_operators
from tfprune.verification.liveness import peak_activation_bytes


@dataclass(frozen=True)
class Footprint:
    """Figures of one file; None where the file or this machine cannot tell.

    `file_bytes` is the whole file with its card, `gzip_bytes` the same after gzip -9. `parameters` are the
    constant weights and biases of the operators in `KERNELS`, so that a batch norm counts where the converter
    has folded it into a convolution and not where it is left as MUL and ADD; weights that several operators
    share count once. A parameter is non-zero when it differs from its zero point. `macs` are the
    multiply-accumulates of the same operators for one picture, zeros included. `float_ops` names what computes
    in floats inside an integer file (`OPERATOR (tensor)`); QUANTIZE and DEQUANTIZE only convert and are not listed.
    `peak_activation_bytes` is the working memory that the tensors alone need (`liveness`).
    """

    file_bytes: int
    gzip_bytes: int
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    peak_activation_bytes: int | None = None
    ops: dict[str, int] | None = None
    float_ops: tuple[str, ...] | None = None


def measure_footprint(path: str | Path) -> Footprint:
    """Measure the file at `path`. Reading operators needs ai-edge-litert; the bytes need nothing.

    Raises:
        InputError: the file is missing, truncated, or no TensorFlow Lite file.
    """
    data = read_model_bytes(path)
    file_bytes, gzip_bytes = len(data), len(gzip.compress(data, 9, mtime=0))
    operators = read_operators(path)
    if operators is None:
        return Footprint(file_bytes, gzip_bytes)
    parameters, nonzero = count_parameters(operators)
    return Footprint(
        file_bytes,
        gzip_bytes,
        parameters=parameters,
        nonzero_parameters=nonzero,
        macs=count_macs(operators),
        peak_activation_bytes=peak_activation_bytes(operators),
        ops=dict(sorted(Counter(operator.name for operator in operators).items())),
        float_ops=find_float_ops(operators),
    )


def count_macs(operators: Sequence[Operator]) -> int | None:
    """Return the multiply-accumulates of one inference, or None when a size is open or an operator opaque."""
    if any(operator.name not in KERNELS and _is_opaque(operator.name) for operator in operators):
        return None
    counted = [operator for operator in operators if operator.name in KERNELS]
    tensors = [tensor for operator in counted for tensor in (*operator.inputs, *operator.outputs) if tensor]
    if any(size < 0 for tensor in tensors for size in tensor.shape):
        return None
    return sum(KERNELS[operator.name].macs(operator) for operator in counted)


def count_parameters(operators: Sequence[Operator]) -> tuple[int, int | None]:
    """Return (parameters, non-zero parameters) of the operators in `KERNELS`.

    The second is None when weights are stored in a form that is not read here (packed or sparse).
    """
    producers = {tensor.index: operator for operator in operators for tensor in operator.outputs}
    parameters, nonzero, seen = 0, 0, set()
    for operator in operators:
        kernel = KERNELS.get(operator.name)
        if kernel is None:
            continue
        constants = [
            _constant(operator.inputs[place], producers) for place in kernel.constants if place < len(operator.inputs)
        ]
        found = [tensor for tensor in constants if tensor is not None]
        # equal biases of different layers may share one tensor, so the weights decide what is a repetition
        if not found or found[0].index in seen:
            continue
        seen.add(found[0].index)
        parameters += sum(math.prod(tensor.shape) for tensor in found)
        known = nonzero is not None and all(tensor.values is not None for tensor in found)
        nonzero = nonzero + sum(_count_nonzero(tensor) for tensor in found) if known else None
    return parameters, nonzero


def find_float_ops(operators: Sequence[Operator]) -> tuple[str, ...]:
    """Return the operators that compute in floats, when any activation of the file is quantized."""
    activations = [tensor for operator in operators for tensor in operator.outputs]
    if not any(tensor.quantized and tensor.dtype in ("INT8", "UINT8", "INT16") for tensor in activations):
        return ()
    return tuple(
        f"{operator.name} ({operator.outputs[0].name})"
        for operator in operators
        if operator.name not in ("QUANTIZE", "DEQUANTIZE") and _computes_in_floats(operator)
    )


def _computes_in_floats(operator: Operator) -> bool:
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor and not tensor.constant]
    return any(tensor.dtype.startswith("FLOAT") for tensor in tensors)


def _is_opaque(name: str) -> bool:
    """Say whether an operator may multiply out of sight: a recurrent or custom one, or another subgraph's call."""
    calls = ("IF", "WHILE", "CALL", "CALL_ONCE")
    return not name.isupper() or name in calls or any(part in name for part in ("LSTM", "RNN", "SVDF"))


def _constant(tensor: Tensor | None, producers: dict[int, Operator]) -> Tensor | None:
    """Return the stored weights behind an input; float16 and sparse weights pass through an operator of their own."""
    while tensor is not None and not tensor.constant:
        producer = producers.get(tensor.index)
        if producer is None or producer.name not in ("DEQUANTIZE", "DENSIFY"):
            return None
        tensor = producer.inputs[0]
    return tensor


def _count_nonzero(tensor: Tensor) -> int:
    zero = tensor.zero_points
    if zero.size > 1:
        zero = zero.reshape([-1 if axis == tensor.channel_axis else 1 for axis in range(tensor.values.ndim)])
    return int(np.count_nonzero(tensor.values != (zero if zero.size else 0)))


@dataclass(frozen=True)
class Kernel:
    """How many multiply-accumulates an operator does, and at which of its inputs weights and bias stand."""

    macs: Callable[[Operator], int]
    constants: tuple[int, ...]


def _convolution_macs(operator: Operator) -> int:
    """Output elements times the filter's height, width and channels; weights are (out, h, w, in per group)."""
    return math.prod(operator.outputs[0].shape) * math.prod(operator.inputs[1].shape[1:])


def _depthwise_macs(operator: Operator) -> int:
    """Output elements times the filter's height and width; weights are (1, h, w, out)."""
    return math.prod(operator.outputs[0].shape) * math.prod(operator.inputs[1].shape[1:3])


def _transposed_macs(operator: Operator) -> int:
    """Input elements times the filter's height, width and outputs; weights are (out, h, w, in)."""
    return math.prod(operator.inputs[2].shape) * math.prod(operator.inputs[1].shape[:3])


def _dense_macs(operator: Operator) -> int:
    """Output elements times the inputs of each; weights are (out, in)."""
    return math.prod(operator.outputs[0].shape) * operator.inputs[1].shape[-1]


def _matmul_macs(operator: Operator) -> int:
    """Output elements times the summed axis of the left matrix."""
    axis = -2 if operator.options.adjX else -1
    return math.prod(operator.outputs[0].shape) * operator.inputs[0].shape[axis]


def _volume_macs(operator: Operator) -> int:
    """Output elements times depth, height, width and channels; weights are (d, h, w, in, out)."""
    return math.prod(operator.outputs[0].shape) * math.prod(operator.inputs[1].shape[:4])


KERNELS = {
    "CONV_2D": Kernel(_convolution_macs, constants=(1, 2)),
    "DEPTHWISE_CONV_2D": Kernel(_depthwise_macs, constants=(1, 2)),
    "TRANSPOSE_CONV": Kernel(_transposed_macs, constants=(1, 3)),
    "FULLY_CONNECTED": Kernel(_dense_macs, constants=(1, 2)),
    "BATCH_MATMUL": Kernel(_matmul_macs, constants=(1, 0)),
    "CONV_3D": Kernel(_volume_macs, constants=(1, 2)),
}
"""The operators whose multiply-accumulates and weights are counted."""
