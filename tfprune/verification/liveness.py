"""The most bytes of activations that are alive at once while a file runs: what sets a microcontroller's arena."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfprune.verification.graph import Operator, Tensor

_VALUE_BYTES = {
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16"), 2),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 4),
    "INT64": 8,
}
_SUM_BYTES = {"INT8": 4, "UINT8": 4, "INT16": 8}


def peak_activation_bytes(operators: Sequence[Operator]) -> int | None:
    """Return the peak over the operators, in order, of the bytes of all tensors that are still needed.

    While an operator runs, its inputs, its outputs, its sums where a kernel keeps them apart, and what later ones
    read are alive; what no operator makes is alive from the start, what no operator reads to the end. Weights, also
    those that are stored in a form of their own, do not count. None when a size is open or a dtype unknown.
    """
    weights: set[int] = set()
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    sizes: dict[int, int | None] = {}
    for step, operator in enumerate(operators):
        inputs = [
            tensor for tensor in operator.inputs if tensor and not tensor.constant and tensor.index not in weights
        ]
        if not inputs and operator.name in ("DEQUANTIZE", "DENSIFY"):
            weights |= {tensor.index for tensor in operator.outputs}
            continue
        for tensor in inputs:
            first.setdefault(tensor.index, 0)
            last[tensor.index] = step
        for tensor in operator.outputs:
            first.setdefault(tensor.index, step)
            last.setdefault(tensor.index, len(operators))
        sizes |= {tensor.index: _bytes(tensor) for tensor in (*inputs, *operator.outputs)}
    if None in sizes.values():
        return None
    alive = [
        sum(size for key, size in sizes.items() if first[key] <= step <= last[key]) for step in range(len(operators))
    ]
    return max((bytes_ + _sums_bytes(operator) for bytes_, operator in zip(alive, operators, strict=True)), default=0)


def _sums_bytes(operator: Operator) -> int:
    """Return the bytes of the sums of an integer transposed convolution: TFLite's kernels scatter into them."""
    output = operator.outputs[0] if operator.outputs else None
    if operator.name != "TRANSPOSE_CONV" or output.dtype not in _SUM_BYTES:
        return 0
    return math.prod(output.shape) * _SUM_BYTES[output.dtype]


def _bytes(tensor: Tensor) -> int | None:
    if any(size < 0 for size in tensor.shape) or tensor.dtype not in _VALUE_BYTES:
        return None
    return math.prod(tensor.shape) * _VALUE_BYTES[tensor.dtype]
