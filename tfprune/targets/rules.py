"""What a device asks of a file: rules over its operators, each finding with the reason and the way out.

A rule is a callable: operators in order of execution -> findings. Most look at one operator at a time
and are written as `operator -> (reason, way out) or None` under `each`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tfprune.verification.graph import Operator

Fault = tuple[str, str]
"""(reason, way out)"""

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64")


@dataclass(frozen=True)
class Finding:
    """What a device makes of one operator.

    Attributes:
        place: the number of the operator in order of execution, from 0; None for the file as a whole.
        operator: its name in the schema, empty for the file.
        tensor: the name of what it makes, which starts with that of the Keras layer.
        reason, way_out: why, and what to do.
        falls_back: True where the operator leaves the accelerator (or does not run at all), False where
            it runs and wastes something.
    """

    place: int | None
    operator: str
    tensor: str
    reason: str
    way_out: str
    falls_back: bool = True


Rule = Callable[[Sequence[Operator]], Iterable[Finding]]


def each(rule: Callable[[Operator], Fault | None]) -> Rule:
    """Return the rule over a file that asks `rule` of every operator."""

    @functools.wraps(rule)
    def ask(operators: Sequence[Operator]) -> Iterator[Finding]:
        for place, operator in enumerate(operators):
            fault = rule(operator)
            if fault is not None:
                yield finding(operators, place, *fault)

    return ask


def finding(
    operators: Sequence[Operator], place: int, reason: str, way_out: str, *, falls_back: bool = True
) -> Finding:
    """Return the finding about one operator of a file."""
    operator = operators[place]
    tensor = operator.outputs[0].name if operator.outputs else ""
    return Finding(place, operator.name, tensor, reason, way_out, falls_back)


def runs_only(names: Collection[str], device: str) -> Rule:
    """Refuse operators that a device does not have."""
    ways_out = {
        "LEAKY_RELU": "use ReLU or ReLU6, or PReLU with a constant slope",
        "HARD_SWISH": "use ReLU6",
        "GELU": "use ReLU or ReLU6",
        "ELU": "use ReLU or ReLU6",
        "DEPTH_TO_SPACE": "upsample with UpSampling2D or Conv2DTranspose instead",
        "ARG_MAX": "export with --head logits, and take the class on the CPU",
        "SOFTMAX": "export with --head logits, and take the class on the CPU",
        "DEQUANTIZE": "export with --scheme int8, which takes and gives integers",
        "DENSIFY": "export without --sparse: this device does not load sparsely encoded weights",
        "CAST": "export with --head logits, and take the class on the CPU",
        "BROADCAST_TO": "export with --head class_map or logits",
    }

    @each
    def rule(operator: Operator) -> Fault | None:
        if operator.name in names:
            return None
        way_out = ways_out.get(operator.name, "replace the layer it comes from by one this device has")
        return f"{device} has no {operator.name}", way_out

    return rule


def takes_no(refused: Mapping[str, Collection[str]], device: str) -> Rule:
    """Refuse operators on numbers that a device's kernels for them do not take: {operator: dtypes}."""

    @each
    def rule(operator: Operator) -> Fault | None:
        for tensor in (*operator.inputs[:1], *operator.outputs[:1]):
            if tensor is not None and tensor.dtype in refused.get(operator.name, ()):
                return (
                    f"{device} has no {operator.name} of {tensor.dtype.lower()}",
                    "replace the layer it comes from, or export with another --scheme",
                )
        return None

    return rule


@each
def computes_in_integers(operator: Operator) -> Fault | None:
    """Refuse operators on floating-point numbers."""
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor is not None and tensor.dtype in _FLOATS:
            return f"works on {tensor.dtype.lower()} numbers", "export with --scheme int8"
    return None


def has_no_islands(operators: Sequence[Operator], *, falls_back: bool = True) -> Iterator[Finding]:
    """Refuse floating-point operators in the middle of an integer net, where it converts back and forth.

    With `falls_back` False they are noted only: they run where all others do.
    """
    integer = [place for place, operator in enumerate(operators) if _is_integer(operator)]
    for place in range(integer[0], integer[-1]) if integer else ():
        operator = operators[place]
        if operator.name not in ("QUANTIZE", "DEQUANTIZE") and _is_float(operator):
            yield finding(
                operators,
                place,
                "works on float32 numbers between integer operators",
                "replace the layer it comes from, or fold it into a convolution",
                falls_back=falls_back,
            )


def _is_integer(operator: Operator) -> bool:
    return any(tensor.dtype in ("INT8", "UINT8", "INT16") and tensor.quantized for tensor in operator.outputs)


def _is_float(operator: Operator) -> bool:
    return any(tensor.dtype == "FLOAT32" for tensor in operator.outputs)


@each
def has_no_mixed_weights(operator: Operator) -> Fault | None:
    """Refuse integer weights under float activations: kernels that quantize their input on the fly."""
    if operator.name not in _WEIGHTED:
        return None
    weights, given = operator.inputs[1], operator.inputs[2 if operator.name == "TRANSPOSE_CONV" else 0]
    if weights is not None and given is not None and weights.dtype == "INT8" and given.dtype == "FLOAT32":
        return "has int8 weights and float activations", "export with --scheme int8 or float32"
    return None


@each
def unpacks_integers_alone(operator: Operator) -> Fault | None:
    """Refuse weights that are stored in float16 and unpacked when the net runs."""
    if operator.name == "DEQUANTIZE" and operator.inputs[0].dtype == "FLOAT16":
        return "unpacks float16, and integers alone are unpacked here", "export with --scheme float32 or int8"
    return None


@each
def has_no_flex(operator: Operator) -> Fault | None:
    """Refuse operators of TensorFlow's own, which the Flex delegate computes on the CPU."""
    if operator.name.startswith("Flex"):
        return "is an operator of TensorFlow: the app has to ship the Flex delegate", "replace the layer it comes from"
    return None


@each
def has_fixed_shapes(operator: Operator) -> Fault | None:
    """Refuse tensors of open shape."""
    if any(-1 in tensor.shape for tensor in operator.outputs):
        return "has an open shape", "convert with a batch of 1 and a fixed size, as tfprune export does"
    return None


def rank_at_most(rank: int) -> Rule:
    """Refuse tensors of more dimensions than a device handles."""

    @each
    def rule(operator: Operator) -> Fault | None:
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None and len(tensor.shape) > rank:
                return f"has {len(tensor.shape)} dimensions, and {rank} are the most", "reshape in fewer dimensions"
        return None

    return rule


def resizes_by(*, bilinear: Collection[int], nearest: Collection[int]) -> Rule:
    """Refuse resizes by other factors than a device knows, and by different ones in height and width."""

    @each
    def rule(operator: Operator) -> Fault | None:
        if operator.name not in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
            return None
        kind = "bilinear" if operator.name == "RESIZE_BILINEAR" else "nearest"
        known = bilinear if kind == "bilinear" and operator.options.halfPixelCenters else nearest
        factors = _factors(operator)
        if factors is None or (factors[0] == factors[1] and factors[0] in known):
            return None
        shown = " and ".join(f"{factor:g}x" for factor in dict.fromkeys(factors))
        listed = ", ".join(f"{factor}x" for factor in sorted(known))
        other = "nearest upsampling" if kind == "bilinear" else "Conv2DTranspose"
        return f"resizes {shown}, {kind}; {listed} map", f"upsample in steps of 2x, or use {other}"

    return rule


def resizes_at_version(newest: int) -> Rule:
    """Refuse resizes of a newer version than a compiler reads."""

    @each
    def rule(operator: Operator) -> Fault | None:
        if not operator.name.startswith("RESIZE_") or operator.version <= newest:
            return None
        return (
            f"is version {operator.version}; compilers 14 and 15 read up to {newest}",
            "export with --resize-v2, or upsample with Conv2DTranspose",
        )

    return rule


def resizes_up_to(pixels: int) -> Rule:
    """Warn of resizes to more pixels a side than were seen to map."""

    @each
    def rule(operator: Operator) -> Fault | None:
        if not operator.name.startswith("RESIZE_") or max(operator.outputs[0].shape[1:3], default=0) <= pixels:
            return None
        return f"resizes to more than {pixels} pixels a side", "use a smaller input, or Conv2DTranspose"

    return rule


def transposes_by(*strides: int) -> Rule:
    """Refuse transposed convolutions of other strides."""

    @each
    def rule(operator: Operator) -> Fault | None:
        if operator.name != "TRANSPOSE_CONV":
            return None
        given = (operator.options.strideH, operator.options.strideW)
        if given[0] == given[1] and given[0] in strides:
            return None
        listed = ", ".join(map(str, strides))
        return f"has stride {given[0]}x{given[1]}; strides {listed} map", "upsample in steps of 2x"

    return rule


def softmax_over_at_most(*, elements: int | None = None, pixels: int | None = None) -> Rule:
    """Refuse a softmax over too many numbers, or over too large a picture."""

    @each
    def rule(operator: Operator) -> Fault | None:
        if operator.name != "SOFTMAX":
            return None
        shape = operator.outputs[0].shape
        if elements is not None and (math.prod(shape) > elements or math.prod(shape[:-1]) > 1):
            return f"is no softmax over one row of at most {elements:,} numbers", "export with --head logits"
        if pixels is not None and math.prod(shape[1:-1]) >= pixels:
            reason = f"works on {math.prod(shape[1:-1]):,} pixels; fewer than {pixels:,} map"
            return reason, "export with --head class_map or logits"
        return None

    return rule


def takes_argmax_of_at_most(classes: int) -> Rule:
    """Refuse the choice between too many classes."""

    @each
    def rule(operator: Operator) -> Fault | None:
        given = operator.inputs[0].shape[-1] if operator.name == "ARG_MAX" else 0
        if given <= classes:
            return None
        return f"chooses between {given} classes; {classes} are the most", "export with --head logits"

    return rule


@each
def fuses_nothing_into_concat_and_pools(operator: Operator) -> Fault | None:
    """Refuse activations fused into a concatenation or a pool."""
    if operator.name not in ("CONCATENATION", "AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return None
    if getattr(operator.options, "fusedActivationFunction", 0):
        return "has an activation fused into it", "put the activation behind the next convolution"
    return None


def channels_in_multiples_of(multiple: int) -> Rule:
    """Note layers inside the net whose width leaves lanes of the device idle."""

    def rule(operators: Sequence[Operator]) -> Iterator[Finding]:
        read = _read_by_weighted(operators)
        for place, operator in enumerate(operators):
            if operator.name not in ("CONV_2D", "TRANSPOSE_CONV") or not operator.outputs:
                continue
            tensor = operator.outputs[0]
            channels = tensor.shape[-1] if tensor.shape else 0
            if channels > multiple and channels % multiple and tensor.index in read:
                padded = math.ceil(channels / multiple) * multiple
                yield finding(
                    operators,
                    place,
                    f"makes {channels} channels, which cost as much as {padded}",
                    f"make it {channels - channels % multiple} or {padded}; tfprune shrink --multiple-of {multiple}",
                    falls_back=False,
                )

    return rule


def keeps_weights_of(size_bytes: int) -> Rule:
    """Note that a file's weights are more than a device keeps beside its arithmetic."""

    def rule(operators: Sequence[Operator]) -> Iterator[Finding]:
        weights = {
            tensor.index: tensor.values.nbytes
            for operator in operators
            for tensor in operator.inputs
            if tensor is not None and tensor.values is not None
        }
        total = sum(weights.values())
        if total > size_bytes:
            reason = f"has {total / 2**20:.1f} MiB of weights, and about {size_bytes / 2**20:.0f} stay on the device"
            yield Finding(None, "", "", reason, "remove channels: tfprune shrink", falls_back=False)

    return rule


def _read_by_weighted(operators: Sequence[Operator]) -> set[int]:
    """Return the tensors from which a convolution or a matrix product reads, directly or through others."""
    read: set[int] = set()
    for operator in reversed(operators):
        if operator.name in _WEIGHTED or any(tensor.index in read for tensor in operator.outputs):
            read |= {tensor.index for tensor in operator.inputs if tensor is not None and not tensor.constant}
    return read


def _factors(operator: Operator) -> tuple[float, float] | None:
    """Return by how much a resize enlarges height and width; None when a side is open or was 1."""
    before, after = operator.inputs[0].shape[1:3], operator.outputs[0].shape[1:3]
    if -1 in (*before, *after) or before == after or before == (1, 1):
        return None
    return after[0] / before[0], after[1] / before[1]
