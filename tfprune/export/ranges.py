"""Ranges of tensors that calibration saw nothing but zeros in.

The converter gives such a tensor, the output of a ReLU that never fires, a scale of 8e-9: the biases of
whatever reads it overflow, and XNNPACK refuses the file. Any sensible range serves a tensor of zeros.
"""

from __future__ import annotations

from typing import Any

import flatbuffers

from tfprune.keras import tf

from tensorflow.lite.python import convert as tflite_convert
from tensorflow.lite.python import schema_py_generated as schema

_SMALLEST_SCALE = 1e-7
_SMALLEST_RANGE = 256 * _SMALLEST_SCALE


def has_empty_ranges(flatbuffer: bytes) -> bool:
    """Return whether an integer .tflite holds an int8 activation whose scale says that it was always zero."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    return any(
        0 < tensor.quantization.scale[0] < _SMALLEST_SCALE
        for tensor in _activations(model, schema.TensorType.INT8)
        if tensor.quantization.scale is not None and len(tensor.quantization.scale)
    )


def quantize_calibrated(flatbuffer: bytes, *, pixels: Any, scores: Any) -> bytes:
    """Quantize a float .tflite with calibrated ranges, after empty ranges were widened to 0..1.

    Args:
        flatbuffer: what a converter that only calibrates gives.
        pixels, scores: TensorFlow dtypes of input and output.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    for tensor in _activations(model, schema.TensorType.FLOAT32):
        ranges = tensor.quantization
        if ranges.min is not None and len(ranges.min) and ranges.max[0] - ranges.min[0] < _SMALLEST_RANGE:
            ranges.min, ranges.max = [0.0], [1.0]
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return tflite_convert.mlir_quantize(
        bytes(builder.Output()), input_data_type=tf.as_dtype(pixels), output_data_type=tf.as_dtype(scores)
    )


def _activations(model: Any, kind: int) -> list[Any]:
    """Return the tensors of a type that no buffer holds the values of, and that have a quantization entry."""
    return [
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == kind
        and tensor.quantization is not None
        and (model.buffers[tensor.buffer].data is None or not len(model.buffers[tensor.buffer].data))
    ]
