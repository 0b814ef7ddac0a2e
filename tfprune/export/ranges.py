"""Ranges of tensors that calibration saw nothing but zeros in.

The converter gives such a tensor, the output of a ReLU that never fires, a scale of 8e-9: the biases of
whatever reads it overflow, and XNNPACK refuses the file. Any sensible range serves a tensor of zeros.
"""

from __future__ import annotations

from typing import Any

import flatbuffers

from tfprune.export import Scheme
from tfprune.keras import tf

from tensorflow.lite.python import convert as tflite_convert
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.optimize.calibrator import Calibrator

_SMALLEST_SCALE = 1e-7
_SMALLEST_RANGE = 256 * _SMALLEST_SCALE


def has_empty_ranges(flatbuffer: bytes) -> bool:
    """Return whether an integer .tflite holds an activation whose scale says that it was always zero."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    kinds = (schema.TensorType.INT8, schema.TensorType.INT16)
    return any(
        0 < tensor.quantization.scale[0] < _SMALLEST_SCALE
        for tensor in _activations(model, *kinds)
        if tensor.quantization.scale is not None and len(tensor.quantization.scale)
    )


def quantize_calibrated(flatbuffer: bytes, scheme: Scheme, *, sparse: bool) -> bytes:
    """Quantize a float .tflite with calibrated ranges, after empty ranges were widened to 0..1.

    Args:
        flatbuffer: what a converter that only calibrates gives.
        scheme: one with int8 activations.
        sparse: encode mostly-zero weights sparsely.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    for tensor in _activations(model, schema.TensorType.FLOAT32):
        ranges = tensor.quantization
        if ranges.min is not None and len(ranges.min) and ranges.max[0] - ranges.min[0] < _SMALLEST_RANGE:
            ranges.min, ranges.max = [0.0], [1.0]
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    widened, ends = bytes(builder.Output()), (tf.as_dtype(scheme.pixels), tf.as_dtype(scheme.scores))
    if scheme.activations == "int16":
        # this quantizer calibrates again: given no pictures, it leaves the ranges as they are
        return Calibrator(widened).calibrate_and_quantize(
            lambda: iter(()), *ends, allow_float=True, activations_type=tf.int16, bias_type=tf.int64
        )
    quantized = tflite_convert.mlir_quantize(widened, input_data_type=ends[0], output_data_type=ends[1])
    return tflite_convert.mlir_sparsify(quantized) if sparse else quantized


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
