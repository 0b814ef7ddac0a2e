"""Ranges of tensors between calibration and quantization: none is empty, and rare extremes can be left out.

The converter gives a tensor that calibration saw nothing but zeros in, the output of a ReLU that never fires, a scale
of 8e-9: the biases of whatever reads it overflow, and XNNPACK refuses the file. Any sensible range serves a tensor of
zeros. Of other tensors the converter takes the lowest and the highest value; both stand in the float flatbuffer that
it calibrates, where others can be put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import flatbuffers
import numpy as np

from tfprune.errors import InputError
from tfprune.export import Scheme
from tfprune.export.interpreting import open_flatbuffer, run_picture
from tfprune.export.noise import NOTHING_FLOAT, FloatPart
from tfprune.export.replacing import count_values
from tfprune.keras import tf

from tensorflow.lite.python import convert as tflite_convert
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.optimize.calibrator import Calibrator

_SMALLEST_SCALE = 1e-7
_SMALLEST_RANGE = 256 * _SMALLEST_SCALE


def check_ranges(calibrated: bytes, name: str) -> None:
    """Refuse calibrated ranges of a model that no integers can stand for: they end the process that quantizes.

    Raises:
        InputError: when a range is infinite, or made of something that is no number.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(calibrated), 0)
    broken = [
        tensor.name.decode(errors="replace")
        for tensor in _activations(model, schema.TensorType.FLOAT32)
        if not np.isfinite(_range_of(tensor) or np.nan).all()  # it records no range where it saw no numbers at all
    ]
    if broken:
        raise InputError(
            f"on the calibration pictures, values in {name} become infinite or no numbers: first in tensor "
            f"'{broken[0]}'. Integers cannot hold them. Look whether float32 answers make sense, whether its "
            "weights are finite, and whether the model wants other pixels than raw ones, 0 to 255 (`preprocessing`)"
        )


def fill_empty_ranges(calibrated: bytes) -> bytes:
    """Return a float .tflite with calibrated ranges, those of tensors that were always zero widened to 0..1."""
    return _with_ranges(
        calibrated, lambda name, low, high: (low, high) if high - low >= _SMALLEST_RANGE else (0.0, 1.0)
    )


def mend_zero_constants(flatbuffer: bytes) -> bytes:
    """Return an int16 .tflite whose constants of nothing but zeros have a scale, and as many bytes as they need.

    The converter gives them a scale of 0, by which SUB and ADD divide: the process that opens the file ends. And it
    stores equal constants once: where a bias is all zeros too, they have the bytes of its int64.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    zeros = [
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.INT16
        and tensor.quantization is not None
        and model.buffers[tensor.buffer].data is not None
        and not np.any(model.buffers[tensor.buffer].data)
    ]
    for tensor in zeros:
        tensor.quantization.scale = np.maximum(tensor.quantization.scale, _SMALLEST_SCALE)
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.zeros(2 * count_values(tensor), np.uint8)
        tensor.buffer = len(model.buffers) - 1
    return _packed(model) if zeros else flatbuffer


def clip_ranges(calibrated: bytes, pictures: np.ndarray, share: float) -> bytes:
    """Return a float .tflite whose ranges leave out a share of the values at either end, picture by picture.

    A range still holds what is usual in any one picture: a class that few of them show keeps its values. That of
    the pixels stays.

    Args:
        calibrated: with the ranges that calibration found.
        pictures: (N, H, W, C); all of them are used.
        share: of a tensor's values in one picture, such as .0001.
    """
    interpreter = open_flatbuffer(calibrated, keep_all=True)
    pixels = interpreter.get_input_details()[0]["index"]
    model = schema.ModelT.InitFromPackedBuf(bytearray(calibrated), 0)
    activations = {id(tensor) for tensor in _activations(model, schema.TensorType.FLOAT32)}
    found: dict[str, list[Any]] = {}
    kept = [
        (index, tensor.name.decode())
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if index != pixels and id(tensor) in activations
    ]
    for picture in pictures:
        run_picture(interpreter, picture)
        for index, name in kept:
            found.setdefault(name, []).append(np.quantile(interpreter.get_tensor(index), [share, 1 - share]))
    limits = {name: (np.min(ends, 0)[0], np.max(ends, 0)[1]) for name, ends in found.items()}

    def clipped(name: str, low: float, high: float) -> tuple[float, float]:
        lowest, highest = limits.get(name, (low, high))
        return max(low, float(lowest)), min(high, float(highest))

    return _with_ranges(calibrated, clipped)


def quantize_calibrated(
    calibrated: bytes, scheme: Scheme, *, sparse: bool, in_float: FloatPart = NOTHING_FLOAT
) -> bytes:
    """Quantize a float .tflite with calibrated ranges.

    Args:
        calibrated: what a converter that only calibrates gives, no range empty.
        scheme: one with integer activations.
        sparse: encode mostly-zero weights sparsely.
        in_float: what computes in float32; with int8 activations only.
    """
    ends = (tf.as_dtype(scheme.pixels), tf.as_dtype(scheme.scores))
    if scheme.activations == "int16":
        # this quantizer calibrates again: given no pictures, it leaves the ranges as they are
        return Calibrator(calibrated).calibrate_and_quantize(
            lambda: iter(()), *ends, allow_float=True, activations_type=tf.int16, bias_type=tf.int64
        )
    if in_float.exact:
        calibrated = _without_ranges(calibrated, in_float.exact)
    quantized = tflite_convert.mlir_quantize(
        calibrated, input_data_type=ends[0], output_data_type=ends[1], denylisted_nodes=set(in_float.made) or None
    )
    return tflite_convert.mlir_sparsify(quantized) if sparse else quantized


def _with_ranges(calibrated: bytes, change: Callable[[str, float, float], tuple[float, float]]) -> bytes:
    """Return a flatbuffer with the range of each activation replaced by `change(name, low, high)`."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(calibrated), 0)
    for tensor in _activations(model, schema.TensorType.FLOAT32):
        if (found := _range_of(tensor)) is not None:
            low, high = change(tensor.name.decode(), *found)
            tensor.quantization.min, tensor.quantization.max = [low], [high]
    return _packed(model)


def _range_of(tensor: Any) -> tuple[float, float] | None:
    """Return the lowest and the highest value that calibration saw in a tensor, or None."""
    ranges = tensor.quantization
    return None if ranges.min is None or not len(ranges.min) else (float(ranges.min[0]), float(ranges.max[0]))


def _without_ranges(calibrated: bytes, names: Collection[str]) -> bytes:
    """Return a flatbuffer in which some tensors have no range: the converter would pass it on to their neighbours."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(calibrated), 0)
    for tensor in model.subgraphs[0].tensors:
        if tensor.name.decode() in names:
            tensor.quantization = None
    return _packed(model)


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _activations(model: Any, *kinds: int) -> list[Any]:
    """Return the tensors of some types that no buffer holds the values of, and that have a quantization entry."""
    return [
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type in kinds
        and tensor.quantization is not None
        and (model.buffers[tensor.buffer].data is None or not len(model.buffers[tensor.buffer].data))
    ]
