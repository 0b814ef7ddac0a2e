"""Tiny nets that tests share."""

from __future__ import annotations

from typing import Any

from tfprune.keras import keras


def tiny_net(*, outputs: int = 2, seed: int = 0, dropout: float = 0.0, norm: bool = True) -> Any:
    """Return a small encoder-decoder for 32x32 RGB pixels 0..255, with one skip."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 255, name="preprocessing")(image)

    def block(x: Any, width: int, name: str) -> Any:
        x = layers.Conv2D(width, 3, padding="same", use_bias=not norm, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(momentum=0.8, name=f"{name}_norm")(x) if norm else x
        return layers.ReLU(name=f"{name}_relu")(x)

    skip = block(x, 8, "down")
    x = layers.MaxPooling2D(name="pool")(skip)
    x = block(x, 16, "middle")
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    x = layers.UpSampling2D(name="up")(x)
    x = layers.Concatenate(name="join")([x, skip])
    x = block(x, 8, "last")
    return keras.Model(image, layers.Conv2D(outputs, 1, name="logits")(x), name="tiny")
