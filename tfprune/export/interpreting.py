"""Flatbuffers run where they are made, by TensorFlow's own interpreter, every tensor readable."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.keras import tf


def open_flatbuffer(flatbuffer: bytes, *, keep_all: bool = False) -> Any:
    """Return an interpreter of a .tflite in memory; `keep_all` leaves every tensor readable, and is slower."""
    # XNNPACK keeps no tensors, and does not know the operators that compare an int8 operator with its original
    kinds = tf.lite.experimental.OpResolverType
    interpreter = tf.lite.Interpreter(
        model_content=flatbuffer,
        experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else kinds.AUTO,
        experimental_preserve_all_tensors=keep_all,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    return interpreter


def run_picture(interpreter: Any, picture: np.ndarray) -> np.ndarray:
    """Run one picture (H, W, C) of raw pixels, and return the answer as real numbers; ids of classes stay int8."""
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(entry["index"], picture[None].astype(entry["dtype"]))
    interpreter.invoke()
    values, (scale, zero_point) = interpreter.get_tensor(output["index"]), output["quantization"]
    return real_numbers(values, scale, zero_point) if scale else values


def real_numbers(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Return what quantized values stand for, float64."""
    return (values.astype(np.float64) - zero_point) * scale
