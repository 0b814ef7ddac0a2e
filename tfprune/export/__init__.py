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
    logits, `weights` and `activations` what is stored and what is computed with, `operations` the names of the
    converter's op sets. `sparse` says whether runtimes load the format with sparsely encoded weights.
    """

    summary: str
    pixels: str
    scores: str
    weights: str
    activations: str
    operations: tuple[str, ...] = ("TFLITE_BUILTINS",)
    sparse: bool = True

    @property
    def calibrated(self) -> bool:
        """Whether pictures are needed to find the range of every tensor."""
        return self.activations != "float32"


_INTEGER = {"weights": "int8", "activations": "int8", "operations": ("TFLITE_BUILTINS_INT8",)}
_FLOAT = {"pixels": "float32", "scores": "float32"}

SCHEMES = {
    "float32": Scheme(
        "float weights, activations, pixels and scores", **_FLOAT, weights="float32", activations="float32"
    ),
    "float16": Scheme(
        "float16 weights, which halve the file; computed in float32", **_FLOAT, weights="float16", activations="float32"
    ),
    # litert refuses a sparse weight in a kernel that quantizes its input on the fly
    "dynamic_int8": Scheme(
        "int8 weights, activations quantized on the fly; float pixels and scores",
        **_FLOAT,
        weights="int8",
        activations="float32",
        sparse=False,
    ),
    "int8": Scheme("int8 weights and activations, uint8 pixels and scores", "uint8", "uint8", **_INTEGER),
    "int8_float_io": Scheme("int8 weights and activations, float pixels and scores", **_FLOAT, **_INTEGER),
    # the converter knows no uint8 beside int16, and gives sparse files of this format int32 biases
    "int16x8": Scheme(
        "int8 weights, int16 activations, float pixels and scores",
        **_FLOAT,
        weights="int8",
        activations="int16",
        operations=("EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8", "TFLITE_BUILTINS"),
        sparse=False,
    ),
}

HEADS = {
    "probabilities": "one number in 0..1 per pixel and class: sigmoid for one output, softmax for several",
    "logits": "the numbers before sigmoid or softmax",
    "class_map": "one int32 class id per pixel, shape (1, H, W)",
    "coarse_class_map": "a class map computed at a lower resolution, each id repeated over its pixels",
}
CLASS_MAPS = ("class_map", "coarse_class_map")
"""The heads that answer with ids."""

__all__ = ["CLASS_MAPS", "HEADS", "SCHEMES", "Scheme"]
