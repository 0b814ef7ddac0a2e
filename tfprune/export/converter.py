"""TensorFlow Lite's converter, asked for one row of `SCHEMES`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.export import Scheme
from tfprune.export.noise import FloatPart, KeptFloat, choose_float, float_part
from tfprune.export.ranges import check_ranges, clip_ranges, fill_empty_ranges, quantize_calibrated
from tfprune.export.replacing import replace_wrong_operators
from tfprune.export.rounding import RoundedFlatbuffer
from tfprune.keras import keras, tf

_LISTENED = 8
"""Pictures that the noise of operators is measured on."""


def convert_function(
    function: Any,
    model: keras.Model,
    scheme: Scheme,
    calibration: np.ndarray | None,
    *,
    sparse: bool,
    clip: float,
    keep_float: int | Sequence[KeptFloat],
) -> tuple[bytes, Sequence[KeptFloat]]:
    """Return the flatbuffer of a traced function, and the operators that compute in float32 in it.

    Args:
        function: pixels -> head, traced.
        model: owns its variables.
        calibration: pictures (N, H, W, C) that set the ranges; None for a scheme without, or ranges in the graph.
        sparse, clip, keep_float: see `tfprune.export.conversion.export_tflite`.

    Raises:
        InputError: what the converter refuses, by name.
    """
    converter = _new_converter(function, model, scheme, calibration, sparse=sparse and calibration is None)
    # ranges are looked at, and changed, before they are used
    converter._experimental_calibrate_only = calibration is not None
    try:
        calibrated = converter.convert()
        if calibration is None:
            return calibrated, ()
        check_ranges(calibrated, model.name)
        if clip:
            calibrated = clip_ranges(calibrated, calibration, clip)
        calibrated = fill_empty_ranges(calibrated)
        calibrated = replace_wrong_operators(calibrated, scheme.activations)
        if not keep_float:
            return quantize_calibrated(calibrated, scheme, sparse=sparse), ()
        rounded = RoundedFlatbuffer(calibrated)

        def quantize(part: FloatPart) -> bytes:
            return quantize_calibrated(rounded.packed(exact=part.made), scheme, sparse=sparse, in_float=part)

        if isinstance(keep_float, int):
            keep_float = choose_float(
                calibrated, calibration[:_LISTENED], keep_float, quantize, rounded.packed(exact=())
            )
        return quantize(float_part(calibrated, [row.tensor for row in keep_float])), keep_float
    except InputError:
        raise
    except Exception as error:  # the converter's own exception type is private
        raise _conversion_error(error, function, model.name) from error


def _new_converter(
    function: Any, model: keras.Model, scheme: Scheme, calibration: np.ndarray | None, *, sparse: bool
) -> Any:
    # The converter saves what it is given as a SavedModel first: the variables are enough, and much quicker.
    holder = tf.Module()
    holder.variables_held = model.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
    learnt = scheme.calibrated and calibration is None
    # The converter asks for pictures, and does not look into the graph first, when it may use int8 operators only.
    operations = ("TFLITE_BUILTINS",) if learnt else scheme.operations
    converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, name) for name in operations]
    optimize = tf.lite.Optimize
    asked = {optimize.DEFAULT: scheme.weights != "float32", optimize.EXPERIMENTAL_SPARSITY: sparse}
    converter.optimizations = [name for name, wanted in asked.items() if wanted]
    if scheme.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is not None:

        def pictures() -> Iterator[list[np.ndarray]]:
            for picture in calibration:
                yield [picture[None].astype(np.float32)]

        converter.representative_dataset = pictures
    if scheme.calibrated:
        converter.inference_input_type = tf.as_dtype(scheme.pixels)
        converter.inference_output_type = tf.as_dtype(scheme.scores)
    return converter


def _conversion_error(error: Exception, function: Any, name: str) -> InputError:
    """Return the error with the ops the converter refused and the layers they stand in."""
    text = str(error)
    listed = re.findall(r"(?:TF Select|Flex|Custom) ops: *([\w, ]+)", text)
    refused = sorted({op.strip() for line in listed for op in line.split(",") if op.strip()})
    if not refused:
        return InputError(f"TensorFlow Lite cannot convert {name}: {text.strip()[:500]}")
    places = [operation.name for operation in function.graph.get_operations() if operation.type in refused]
    where = f" (at {', '.join(places[:5])})" if places else ""
    return InputError(
        f"TensorFlow Lite has no op for {', '.join(refused)} of {name}{where}; "
        "replace that layer, or write it with ops that TensorFlow Lite has"
    )
