"""From the array a .tflite file gives to one class id per pixel, whatever its head and number format."""

from __future__ import annotations

import numpy as np

from tfprune.export import CLASS_MAPS


def classes_from_output(output: np.ndarray, *, head: str, quantization: tuple[float, int] = (0.0, 0)) -> np.ndarray:
    """Return uint8 (H, W) class ids.

    Several channels: the class with the largest number, and of equal ones the lowest id (numpy's and TensorFlow
    Lite's ArgMax alike); quantized numbers are compared as they are. One channel: class 1 where the logit is
    above 0 or the probability above .5, so that a tie is class 0. In an integer file probabilities come in
    steps of 1/256: two classes can tie there that differ in the logits.

    Args:
        output: (H, W, K), or (H, W) ids of a class map, float or integer.
        head: a key of `tfprune.export.HEADS`.
        quantization: (scale, zero point) of an integer output, real = scale * (value - zero point).

    >>> classes_from_output(np.array([[[.2, .8]]]), head="probabilities")
    array([[1]], dtype=uint8)
    >>> classes_from_output(np.array([[[100], [101]]], np.uint8), head="logits", quantization=(.1, 100))
    array([[0, 1]], dtype=uint8)
    """
    if head in CLASS_MAPS:
        return output.reshape(output.shape[:2]).astype(np.uint8)
    if output.shape[-1] > 1:
        return output.argmax(axis=-1).astype(np.uint8)
    threshold = 0.5 if head == "probabilities" else 0.0
    scale, zero_point = quantization
    if scale:
        threshold = zero_point + threshold / scale
    return (output[..., 0] > threshold).astype(np.uint8)
