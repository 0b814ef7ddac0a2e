"""Where an int8 file loses its signal, operator by operator, and which operators to compute in float32 instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.export.interpreting import open_flatbuffer, real_numbers, run_picture

from tensorflow.lite.python import convert as tflite_convert
from tensorflow.lite.python import schema_py_generated as schema

_CANDIDATES, _DROWNED_DB = 8, 10.0
"""For each operator that is kept in float32, so many are tried, the noisiest first, and all noisier than this."""

_SILENCE_DB = 200.0
_VERIFIES = b"NumericVerify"
_MOVES = {
    schema.BuiltinOperator.MAX_POOL_2D,
    schema.BuiltinOperator.AVERAGE_POOL_2D,
    schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR,
    schema.BuiltinOperator.RESIZE_BILINEAR,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.TRANSPOSE,
    schema.BuiltinOperator.CONCATENATION,
    schema.BuiltinOperator.PAD,
    schema.BuiltinOperator.STRIDED_SLICE,
    schema.BuiltinOperator.SLICE,
    schema.BuiltinOperator.SPLIT,
    schema.BuiltinOperator.DEPTH_TO_SPACE,
    schema.BuiltinOperator.SPACE_TO_DEPTH,
}
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(frozen=True)
class OperatorNoise:
    """How much signal one operator of an int8 file leaves of what it makes.

    Attributes:
        tensor: the name of what it makes, which says from which layer it comes.
        operator: its kind, such as CONV_2D.
        own_db: signal-to-noise ratio of what it makes in int8 against float32 from the same inputs, dB. Noise and
            signal are compared per channel, and the ratios averaged: a channel with huge values hides nothing.
            0 when no signal arrives at it in int8.
    """

    tensor: str
    operator: str
    own_db: float


@dataclass(frozen=True)
class FloatPart:
    """A part of an int8 file that computes in float32, by the names of tensors.

    Attributes:
        exact: what is never rounded: a tensor, and what operators make of it that only move numbers.
        made: what the operators in float32 make: `exact`, and what is made by reading it. An operator of int8 that
            read it would round it at its door.
    """

    exact: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()


NOTHING_FLOAT = FloatPart()


@dataclass(frozen=True)
class KeptFloat:
    """An operator that computes in float32, together with those that read what it makes.

    Attributes:
        tensor, operator, own_db: see `OperatorNoise`.
        before_db: signal-to-noise ratio of the file's answers with the operators chosen before it in float32, dB.
        answer_db: with this one too.
    """

    tensor: str
    operator: str
    own_db: float
    before_db: float
    answer_db: float


def measure_noise(calibrated: bytes, pictures: np.ndarray) -> list[OperatorNoise]:
    """Return the operators of an int8 file that compute, the noisiest first.

    Args:
        calibrated: the float32 flatbuffer with the ranges of its tensors.
        pictures: what it is measured on, (N, H, W, C).
    """
    debugged = tflite_convert.mlir_quantize(calibrated, enable_numeric_verify=True)
    model = schema.ModelT.InitFromPackedBuf(bytearray(debugged), 0)
    known = dict(_Graph(calibrated).makers())
    tensors = model.subgraphs[0].tensors
    pairs = [
        operator.inputs
        for operator in model.subgraphs[0].operators
        if model.operatorCodes[operator.opcodeIndex].customCode == _VERIFIES
    ]
    pairs = [(rounded, exact) for rounded, exact in pairs if tensors[exact].name.decode() in known]
    interpreter = open_flatbuffer(debugged, keep_all=True)
    signal, noise = [0.0] * len(pairs), [0.0] * len(pairs)
    for picture in pictures:
        run_picture(interpreter, picture)
        for index, (rounded, exact) in enumerate(pairs):
            truth = interpreter.get_tensor(exact).astype(np.float64)
            scale, zero_point = (values[0] for values in _quantization(tensors[rounded]))
            error = real_numbers(interpreter.get_tensor(rounded), scale, zero_point) - truth
            axes = tuple(range(truth.ndim - 1))
            signal[index] = signal[index] + np.square(truth).mean(axes)
            noise[index] = noise[index] + np.square(error).mean(axes)
    found = []
    for (_, exact), heard, lost in zip(pairs, signal, noise, strict=True):
        name = tensors[exact].name.decode()
        sounds = np.atleast_1d(heard) > 0
        ratios = np.minimum(np.atleast_1d(lost)[sounds] / np.atleast_1d(heard)[sounds], 1)
        found.append(OperatorNoise(name, known[name], _decibels(ratios.mean() if len(ratios) else 1.0)))
    return sorted(found, key=lambda row: row.own_db)


def choose_float(
    calibrated: bytes, pictures: np.ndarray, count: int, quantize: Callable[[FloatPart], bytes], rounded: bytes
) -> list[KeptFloat]:
    """Choose the operators whose noise costs the answers most, one after the other, each by trying it in float32.

    Args:
        calibrated: the float32 flatbuffer with the ranges of its tensors.
        pictures: what it is measured on, (N, H, W, C).
        count: how many to keep in float32, at least 1; fewer are returned where a file has fewer.
        quantize: makes the int8 file with a part of it in float32.
        rounded: as `calibrated`, the kernels rounded as the int8 file has them.
    """
    left, chosen = measure_noise(rounded, pictures), []
    truth = answers(calibrated, pictures)
    before_db = compare_answers(truth, answers(quantize(NOTHING_FLOAT), pictures))
    while left and len(chosen) < count:
        kept = [row.tensor for row in chosen]
        tried = [
            (compare_answers(truth, answers(quantize(float_part(calibrated, [*kept, row.tensor])), pictures)), row)
            for index, row in enumerate(left)
            if index < _CANDIDATES or row.own_db < _DROWNED_DB
        ]
        answer_db, best = max(tried, key=lambda pair: pair[0])
        chosen.append(KeptFloat(best.tensor, best.operator, best.own_db, before_db, answer_db))
        before_db = answer_db
        left.remove(best)
    return chosen


def float_part(calibrated: bytes, tensors: Sequence[str]) -> FloatPart:
    """Return the part of a file that must be float32 so that these tensors are never rounded."""
    graph = _Graph(calibrated)
    parts = [graph.part(name) for name in tensors]
    return FloatPart(
        frozenset().union(*(part.exact for part in parts)), frozenset().union(*(part.made for part in parts))
    )


def answers(flatbuffer: bytes, pictures: np.ndarray) -> np.ndarray:
    """Return what a .tflite makes of pictures, as real numbers; ids of classes stay int8."""
    interpreter = open_flatbuffer(flatbuffer)
    return np.concatenate([run_picture(interpreter, picture) for picture in pictures])


def compare_answers(truth: np.ndarray, given: np.ndarray) -> float:
    """Return the signal-to-noise ratio of answers, dB; of class maps the noise is the share of other classes."""
    if truth.dtype.kind in "iu":
        return _decibels(float((truth != given).mean()))
    return _decibels(float(np.square(given - truth).mean() / max(np.square(truth).mean(), 1e-30)))


class _Graph:
    """Who makes and reads the tensors of a flatbuffer, by their names."""

    def __init__(self, flatbuffer: bytes) -> None:
        model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
        self._graph = model.subgraphs[0]
        self._kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        self._index = {tensor.name.decode(): index for index, tensor in enumerate(self._graph.tensors)}

    def makers(self) -> list[tuple[str, str]]:
        """Return the (tensor, kind of operator) of all operators that compute."""
        return [
            (self._name(operator.outputs[0]), _NAMES[self._kinds[operator.opcodeIndex]])
            for operator in self._graph.operators
            if self._kinds[operator.opcodeIndex] not in _MOVES
        ]

    def part(self, name: str) -> FloatPart:
        """Return what must be float32 so that a tensor is never rounded."""
        exact, made, waiting = {name}, {name}, [self._index[name]]
        while waiting:
            tensor = waiting.pop()
            for operator in self._graph.operators:
                if tensor in operator.inputs:
                    names = {self._name(output) for output in operator.outputs}
                    made |= names
                    if self._kinds[operator.opcodeIndex] in _MOVES:
                        waiting += [output for output in operator.outputs if self._name(output) not in exact]
                        exact |= names
        return FloatPart(frozenset(exact), frozenset(made))

    def _name(self, index: int) -> str:
        return self._graph.tensors[index].name.decode()


def _quantization(tensor: Any) -> tuple[Any, Any]:
    """Return (scales, zero points) of a tensor; those of one that stayed float change nothing."""
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return ([1.0], [0]) if scales is None or not len(scales) else (scales, tensor.quantization.zeroPoint)


def _decibels(noise_ratio: float) -> float:
    return round(float(min(_SILENCE_DB, -10 * np.log10(max(noise_ratio, 1e-30)))), 2)
