"""A tiny encoder in place of the library's, and nets on it as .tflite files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures import build_model, encoder_features
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras
from tfprune.verification.runtimes import open_runtime

layers = keras.layers

WIDTHS = (24, 20, 16, 12, 8)
"""Widths of the features, from coarse to fine."""

FILTERS = (16, 14, 12, 10, 6)
"""Widths of the decoder's stages."""

SIZE = (64, 96)
"""Height and width differ, so that mixing them up shows."""


def _library_net(_: str, *, channels: int, decoder_filters: Any, **__: Any) -> Any:
    """Return a U-Net whose layers are named as in segmentation-models."""
    x = image = keras.Input((None, None, channels))
    features = []
    for index, width in enumerate(reversed(WIDTHS)):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"tiny{index}")(x)
        features.insert(0, x)
    for stage, skip in enumerate([*features[1:], None]):
        x = layers.UpSampling2D(name=f"decoder_stage{stage}_upsampling")(x)
        x = layers.Concatenate(name=f"decoder_stage{stage}_concat")([x, skip]) if skip is not None else x
        x = layers.Conv2D(decoder_filters[stage], 3, padding="same", name=f"decoder_stage{stage}_conv")(x)
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", name="final_conv")(x))


def build_tiny(architecture: str, monkeypatch: Any, *, outputs: int = 3) -> Any:
    """Build a net on the tiny encoder, with batch norms that know the statistics of `pictures`."""
    monkeypatch.setattr(encoder_features, "build_on_encoder", _library_net)
    model = build_model(
        architecture, input_size=SIZE, outputs=outputs, seed=3, decoder_filters=FILTERS, norm_momentum=0.0
    )
    model(pictures().astype(np.float32), training=True)
    for layer in model.layers:
        if layer.name.endswith("_squeeze"):
            # never below zero: a tensor of zeros has no range, and XNNPACK does not open such an int8 file
            kernel, bias = layer.get_weights()
            layer.set_weights([np.abs(kernel), bias])
    return model


def pictures(count: int = 12) -> np.ndarray:
    """Return uint8 pictures (N, H, W, 3) of blocks."""
    coarse = np.random.default_rng(0).uniform(20, 235, (count, SIZE[0] // 8, SIZE[1] // 8, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def export(model: Any, folder: Path, scheme: str) -> Path:
    """Write the net with the head `logits`."""
    return export_tflite(
        model,
        folder / f"{scheme}.tflite",
        scheme=scheme,
        head="logits",
        class_names=["a", "b", "c"],
        calibration=pictures() if scheme == "int8" else None,
    )


def logits_of_file(path: Path) -> np.ndarray:
    """Return the logits (N, H, W, K) of `pictures`, as real numbers."""
    runtime = open_runtime(path)
    logits = np.stack([runtime.predict(picture) for picture in pictures()]).astype(np.float32)
    scale, zero_point = runtime.quantization
    return (logits - zero_point) * scale if scale else logits
