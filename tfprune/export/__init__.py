"""Keras models as .tflite files that take camera pixels and describe themselves.

    from tfprune.export.conversion import export_tflite

A number format is one row of `SCHEMES`; what the file answers with is one row of `HEADS`.
This module and `card` import no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """What a number format asks of TensorFlow Lite's converter, in plain values.

    `pixels` is the dtype the file takes (0..255 in either case), `scores` the dtype of probabilities and
    logits, `operations` the name of the converter's op set, `calibrated` whether pictures are needed to
    find the range of every tensor.
    """

    summary: str
    pixels: str
    scores: str
    operations: str
    calibrated: bool


SCHEMES = {
    "float32": Scheme(
        summary="float weights, activations, pixels and scores",
        pixels="float32",
        scores="float32",
        operations="TFLITE_BUILTINS",
        calibrated=False,
    ),
    "int8": Scheme(
        summary="int8 weights and activations, uint8 pixels and scores",
        pixels="uint8",
        scores="uint8",
        operations="TFLITE_BUILTINS_INT8",
        calibrated=True,
    ),
}

HEADS = {
    "probabilities": "one number in 0..1 per pixel and class: sigmoid for one output, softmax for several",
    "logits": "the numbers before sigmoid or softmax",
    "class_map": "one uint8 class id per pixel, shape (1, H, W)",
}

__all__ = ["HEADS", "SCHEMES", "Scheme"]
