"""What keeps XNNPACK's sparse kernels away from a net: they take a whole cluster of it, or nothing.

The cluster begins with a 3x3 convolution of stride 2 over 3 channels, padded alike on all sides, holds 1x1 and
depthwise 3x3 or 5x5 convolutions, ADD, MUL and bilinear resizes, and ends in DEPTH_TO_SPACE; more than two thirds
of its 1x1 weights are zero. Sources: XNNPACK, the rewriting of a subgraph for sparse inference; Elsen et al., "Fast
Sparse ConvNets", CVPR 2020, arXiv 1911.09723. It also ends clusters in MEAN, where wrong numbers were seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfprune.targets.rules import Fault, Finding, finding
from tfprune.verification.graph import Operator

_POINTWISE = ("RELU", "RELU6", "HARD_SWISH", "LOGISTIC", "ELU", "LEAKY_RELU", "TANH", "ABS", "NEG", "SQUARE")
_INSIDE = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MUL", "RESIZE_BILINEAR", "PAD", *_POINTWISE)
_UNPACKING = ("DEQUANTIZE", "DENSIFY")
_INSTEAD = {
    "CONCATENATION": "add skip connections instead of concatenating them, as the architecture sparse_unet does",
    "RESIZE_NEAREST_NEIGHBOR": "use bilinear upsampling",
    "TRANSPOSE_CONV": "use bilinear upsampling and 1x1 convolutions",
    "MAX_POOL_2D": "use a depthwise convolution of stride 2 behind ZeroPadding2D",
    "MEAN": "leave out squeeze and excitation; wrong numbers and load errors were seen with it",
}
_SAME = 0
"""The schema's number for padding that the operator computes itself."""


def fits_sparse_kernels(operators: Sequence[Operator]) -> Iterator[Finding]:
    """Name everything that keeps the sparse kernels away, about the whole file first."""
    stem = next((place for place, operator in enumerate(operators) if operator.name == "CONV_2D"), None)
    if stem is None:
        yield _of_the_file("has no convolution", "build one with the architecture sparse_unet")
        return
    makers = {tensor.index: operator for operator in operators for tensor in operator.outputs}
    last = next((place for place, found in enumerate(operators) if found.name == "DEPTH_TO_SPACE"), None)
    fault = _stem_fault(operators[stem], makers)
    if fault is not None:
        yield _of_the_file(*fault)
    if last is None:
        yield _of_the_file(
            "does not end in DEPTH_TO_SPACE",
            "end in a 1x1 convolution and tf.nn.depth_to_space, as the architecture sparse_unet does",
        )
    inside = range(stem + 1, len(operators) if last is None else last)
    share = _zero_ratio([_weights(operators[place], makers) for place in inside])
    if share is not None and share <= 2 / 3:
        yield _of_the_file(
            f"{share:.0%} of the weights in 1x1 convolutions are zero, and more than 67 % must be",
            "prune the 1x1 convolutions to 80 % and more",
        )
    for place in inside:
        fault = _fault(operators[place], makers)
        if fault is not None:
            yield finding(operators, place, *fault)


def _of_the_file(reason: str, way_out: str) -> Finding:
    return Finding(None, "", "", reason, way_out)


def _stem_fault(operator: Operator, makers: Mapping[int, Operator]) -> Fault | None:
    height, width, channels = operator.inputs[1].shape[1:]
    stride = operator.options.strideH
    if (height, width, channels, stride) == (3, 3, 3, 2) and _padding(operator, makers) == (1, 1, 1, 1):
        return None
    padded = "padded by the convolution" if operator.options.padding == _SAME else "not padded by 1 on all sides"
    return (
        f"begins with a {height}x{width} convolution of stride {stride} over {channels} channels, {padded}; "
        "the sparse kernels begin with 3x3, stride 2, 3 channels and zeros on all four sides",
        "begin with ZeroPadding2D(1) and a valid convolution: padding='same' at stride 2 pads one side only",
    )


def _padding(operator: Operator, makers: Mapping[int, Operator]) -> tuple[int, ...] | None:
    """Return the rows and columns of zeros on the four sides; None where they differ with the picture's size."""
    if operator.options.padding == _SAME:
        one = (operator.options.strideH, operator.options.strideW) == (1, 1)
        return tuple(side // 2 for side in operator.inputs[1].shape[1:3] for _ in range(2)) if one else None
    before = makers.get(operator.inputs[0].index)
    if before is None or before.name != "PAD" or before.inputs[1].values is None:
        return (0, 0, 0, 0)
    return tuple(int(amount) for amount in before.inputs[1].values[1:3].reshape(-1))


def _fault(operator: Operator, makers: Mapping[int, Operator]) -> Fault | None:
    """Return what the sparse kernels have against one operator inside."""
    if operator.name in _UNPACKING and operator.inputs[0].constant:
        return None
    if operator.name not in _INSIDE:
        return "is not among the sparse kernels", _INSTEAD.get(operator.name, "use ADD, MUL, 1x1 and depthwise layers")
    if any(tensor is not None and tensor.dtype == "INT8" for tensor in operator.inputs):
        return "works on integers", "export with --scheme float32 or float16"
    if operator.name == "RESIZE_BILINEAR" and 1 in operator.inputs[0].shape[1:3]:
        return "enlarges a single row or column", "use a larger input, or fewer levels"
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return _convolution_fault(operator, makers)
    return None


def _convolution_fault(operator: Operator, makers: Mapping[int, Operator]) -> Fault | None:
    kernel, options = operator.inputs[1].shape[1:3], operator.options
    strides = (options.strideH, options.strideW)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return "is dilated", "use a larger depthwise kernel, up to 5x5"
    if operator.name == "CONV_2D":
        if kernel != (1, 1):
            return f"has a {kernel[0]}x{kernel[1]} kernel", "make it a depthwise and a 1x1 convolution"
        return None if strides == (1, 1) else ("skips pixels", "put a depthwise convolution of stride 2 in front")
    if kernel not in ((3, 3), (5, 5)) or strides not in ((1, 1), (2, 2)) or options.depthMultiplier != 1:
        return (
            f"has a {kernel[0]}x{kernel[1]} kernel, stride {strides[0]}x{strides[1]}, "
            f"{options.depthMultiplier} outputs per channel",
            "use 3x3 or 5x5, stride 1 or 2, one output per channel",
        )
    side = kernel[0] // 2
    if _padding(operator, makers) == (side,) * 4:
        return None
    return "is not padded alike on all sides", f"put ZeroPadding2D({side}) in front of it, and padding='valid'"


def _weights(operator: Operator, makers: Mapping[int, Operator]) -> np.ndarray | None:
    """Return the weights of a 1x1 convolution, also those stored in float16."""
    if operator.name != "CONV_2D" or operator.inputs[1].shape[1:3] != (1, 1):
        return None
    unpacked = makers.get(operator.inputs[1].index)
    return (unpacked or operator).inputs[0 if unpacked else 1].values


def _zero_ratio(found: Sequence[np.ndarray | None]) -> float | None:
    """Return the share of zeros; None where no weights are stored one by one."""
    weights = [values for values in found if values is not None]
    total = sum(values.size for values in weights)
    return 1 - sum(np.count_nonzero(values) for values in weights) / total if total else None
