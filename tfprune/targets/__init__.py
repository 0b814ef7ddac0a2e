"""What each class of devices can do, as data: `tfprune lint` judges files by it.

Nothing here knows an operator by more than its name in TensorFlow Lite's schema. A target of one's own is a
`Target` with a few rules of `tfprune.targets.rules`; `lint_operators` takes it.

Sources: Ethos-U, Vela 5.2's report of supported operators; Coral, coral.ai "TensorFlow models on the Edge TPU";
TensorFlow Lite Micro, the operators its Python runtime registers; Android GPU, TensorFlow's own analyzer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tfprune.errors import InputError, look_up
from tfprune.targets import rules
from tfprune.targets.edgetpu import ask_edgetpu
from tfprune.targets.gpu import ask_gpu_delegate
from tfprune.targets.rules import Finding, Rule
from tfprune.targets.sparse import fits_sparse_kernels
from tfprune.targets.vela import System, ask_vela, choose_system


@dataclass(frozen=True)
class Pays:
    """What pruning is worth on a device, in a few words for each kind: zeros anywhere, 2:4 zeros, fewer channels."""

    zeros: str
    pattern: str
    channels: str

    def __str__(self) -> str:
        return f"zeros: {self.zeros}; 2:4 zeros: {self.pattern}; fewer channels: {self.channels}"


@dataclass(frozen=True)
class Target:
    """A class of devices.

    Attributes:
        summary: what it is, one line.
        processor: where an operator runs that maps, and that does not, in a few words each.
        scheme: the number format a Keras model is exported in for it.
        rules: what it asks of a file.
        pays: what pruning is worth on it; `tfprune advise` measures that for one net.
        asks: a tool of the target's own, called with the file; None from it: it is not installed.
        decides: whether what the tool maps does map, whatever the rules say; they are a guess at it then.
        system: what Vela compiles for, where the target is an Ethos-U.
        breaks_off: whether everything behind the first operator that does not map stays off the device too.
    """

    summary: str
    processor: tuple[str, str]
    scheme: str
    rules: tuple[Rule, ...]
    pays: Pays
    asks: Callable[[Path], Iterable[Finding] | None] | None = None
    decides: bool = False
    breaks_off: bool = False
    system: System | None = None


_CORAL = (
    *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED"),
    *("L2_NORMALIZATION", "LOGISTIC", "LSTM", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PACK", "PAD"),
    *("PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR"),
    *("RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQUARED_DIFFERENCE"),
    *("SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV"),
)
_ETHOS_U = (
    *("ABS", "ADD", "ARG_MAX", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D"),
    *("ELU", "EXP", "EXPAND_DIMS", "FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC"),
    *("MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "PACK", "PAD", "PADV2", "PRELU"),
    *("QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "RESHAPE"),
    *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "RSQRT", "SLICE", "SOFTMAX", "SPLIT", "SPLIT_V"),
    *("SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE", "TRANSPOSE_CONV"),
    *("UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK"),
)
_ETHOS_U85 = (
    *_ETHOS_U,
    *("CAST", "DIV", "EQUAL", "GATHER", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND"),
    *("LOGICAL_NOT", "LOGICAL_OR", "NOT_EQUAL", "REDUCE_ALL", "REDUCE_ANY", "SCATTER_ND", "SELECT", "SELECT_V2"),
)
_TFLM = (
    *("ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_ARGS"),
    *("BROADCAST_TO", "CALL_ONCE", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DEPTH_TO_SPACE"),
    *("DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV"),
    *("FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "IF"),
    *("L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT"),
    *("LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL"),
    *("NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6"),
    *("RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE"),
    *("SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
    *("SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV"),
    *("UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK", "WHILE", "ZEROS_LIKE"),
)
_TFLM_REFUSES = {
    **dict.fromkeys(("EXP", "LOG", "SQRT"), ("INT8", "INT16")),
    **dict.fromkeys(("GATHER", "MIRROR_PAD", "REDUCE_MAX", "RESIZE_BILINEAR"), ("INT16",)),
}
_POWERS_OF_TWO = tuple(2**power for power in range(1, 11))
_ETHOS_U55_RULES = (
    rules.runs_only(_ETHOS_U, "Ethos-U55"),
    rules.resizes_by(bilinear=(2,), nearest=(2, 4, 8)),
    rules.transposes_by(1, 2),
    rules.softmax_over_at_most(pixels=65_536),
    rules.takes_argmax_of_at_most(127),
)
_ETHOS_U85_RULES = (
    rules.runs_only(_ETHOS_U85, "Ethos-U85"),
    rules.resizes_by(bilinear=_POWERS_OF_TWO, nearest=range(2, 1025)),
    rules.softmax_over_at_most(pixels=65_536),
)
_CHANNELS_ALONE = Pays("nothing", "nothing", "file and time")
_XNNPACK = (rules.has_fixed_shapes, rules.has_no_flex, rules.has_no_islands)


def _ethos_u(name: str, summary: str, own: tuple[Rule, ...], *, pattern: str) -> Target:
    return Target(
        f"{summary}; with ethos-u-vela installed, its compiler has the last word",
        ("NPU", "CPU"),
        "int8",
        (rules.has_fixed_shapes, rules.computes_in_integers, *own, rules.channels_in_multiples_of(8)),
        Pays("flash, and time where it waits for flash", pattern, "flash, SRAM and time"),
        asks=partial(ask_vela, system=choose_system(name)),
        system=choose_system(name),
    )


TARGETS: dict[str, Target] = {
    "android-cpu": Target(
        "Android and other Arm processors, XNNPACK",
        ("XNNPACK", "LiteRT's slower kernels"),
        "int8",
        (*_XNNPACK, rules.channels_in_multiples_of(8)),
        _CHANNELS_ALONE,
    ),
    "android-sparse": Target(
        "Arm processors, XNNPACK's sparse kernels: the only ones that zeros make faster",
        ("sparse kernels", "dense kernels"),
        "float32",
        (rules.has_fixed_shapes, fits_sparse_kernels),
        Pays("time, from 67 % on", "nothing", "file and time"),
    ),
    "android-gpu": Target(
        "Android's GPU delegate, as TensorFlow's analyzer knows it",
        ("GPU", "CPU"),
        "float16",
        (rules.has_fixed_shapes, rules.has_no_flex, rules.rank_at_most(4)),
        Pays("nothing known", "nothing known", "file and arithmetic; time was not measured"),
        asks=ask_gpu_delegate,
    ),
    "x86-cpu": Target(
        "x86 processors, XNNPACK",
        ("XNNPACK", "LiteRT's slower kernels"),
        "int8",
        (*_XNNPACK, rules.channels_in_multiples_of(16)),  # measured: docs/results/channels_budget.md
        _CHANNELS_ALONE,
    ),
    "coral": Target(
        "Coral Edge TPU; with edgetpu_compiler on PATH, it has the last word",
        ("Edge TPU", "CPU"),
        "int8",
        (
            rules.has_fixed_shapes,
            rules.computes_in_integers,
            rules.rank_at_most(4),
            rules.runs_only(_CORAL, "the Edge TPU"),
            rules.softmax_over_at_most(elements=16_000),
            rules.fuses_nothing_into_concat_and_pools,
            rules.resizes_up_to(128),
            rules.resizes_at_version(2),
            rules.keeps_weights_of(8 * 2**20),
        ),
        Pays("nothing", "nothing", "file and time, and whether the net maps at all"),
        asks=ask_edgetpu,
        decides=True,
        breaks_off=True,
    ),
    "ethos-u55": _ethos_u("ethos-u55", "Arm Ethos-U55", _ETHOS_U55_RULES, pattern="as zeros"),
    "ethos-u65": _ethos_u("ethos-u65", "Arm Ethos-U65", _ETHOS_U55_RULES, pattern="as zeros"),
    "ethos-u85": _ethos_u("ethos-u85", "Arm Ethos-U85", _ETHOS_U85_RULES, pattern="as zeros, and time, in hardware"),
    "tflm": Target(
        "Cortex-M and other microcontrollers, TensorFlow Lite Micro",
        ("TFLite Micro", "nothing: the file does not run"),
        "int8",
        (
            rules.has_fixed_shapes,
            rules.has_no_mixed_weights,
            rules.unpacks_integers_alone,
            partial(rules.has_no_islands, falls_back=False),
            rules.runs_only(_TFLM, "TensorFlow Lite Micro"),
            rules.takes_no(_TFLM_REFUSES, "TensorFlow Lite Micro"),
        ),
        Pays("nothing; a sparsely stored file does not load", "nothing", "flash, arena and time"),
    ),
}
"""Name -> target."""


def find_target(name: str) -> Target:
    """Return the target of a name; behind that of an Ethos-U, parts of its system may stand, after colons.

    Raises:
        InputError: there is no such target, or it has no such part.

    >>> find_target("ethos-u55:ethos-u55-256:Sram_Only").system.accelerator
    'ethos-u55-256'
    """
    known, *parts = name.split(":")
    target = look_up("target", known, TARGETS)
    if not parts:
        return target
    if target.system is None:
        raise InputError(f"target {name!r}: only an Ethos-U has a system behind a colon; give {known}")
    system = choose_system(known, *parts)
    return replace(target, system=system, asks=partial(ask_vela, system=system))


__all__ = ["TARGETS", "Finding", "Pays", "Rule", "Target", "find_target"]
