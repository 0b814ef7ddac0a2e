"""Small segmentation nets with every usual layer, and their .tflite files, made once per session."""

from __future__ import annotations

import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from tfprune.export import SCHEMES
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras

L = keras.layers
SIZE = 32
_FOLDER = tempfile.TemporaryDirectory(prefix="tfprune_exports_")


def pictures(count: int, *, size: int = SIZE, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return smooth uint8 pictures whose values stay away from 0 and 255."""
    coarse = np.random.default_rng(seed).uniform(20, 235, (count, size // 4, size // 4, channels))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


@lru_cache
def plain_net(outputs: int) -> keras.Model:
    """Conv + batch norm + ReLU6, strided conv, nearest upsampling, concat; offset in the preprocessing."""
    image = L.Input((SIZE, SIZE, 3), name="image")
    x = L.Rescaling(1 / 127.5, -1.0, name="preprocessing")(image)
    skip = L.ReLU(6.0, name="a_relu")(L.BatchNormalization(name="a_norm")(L.Conv2D(8, 3, padding="same", name="a")(x)))
    x = L.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="b")(skip)
    x = L.UpSampling2D(name="up")(x)
    x = L.Concatenate(name="join")([x, skip])
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="c")(x)
    return with_weights(keras.Model(image, L.Conv2D(outputs, 1, name="logits")(x), name=f"plain{outputs}"))


@lru_cache
def light_net(outputs: int) -> keras.Model:
    """Depthwise conv, bilinear upsampling, transposed conv + batch norm, add, global gate."""
    image = L.Input((SIZE, SIZE, 3), name="image")
    x = L.Rescaling(1 / 255, name="preprocessing")(image)
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="a")(x)
    skip = L.ReLU(name="b_relu")(L.BatchNormalization(name="b_norm")(L.DepthwiseConv2D(3, padding="same", name="b")(x)))
    x = L.MaxPooling2D(name="pool")(skip)
    gate = L.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    x = L.Multiply(name="gated")([x, L.Dense(8, activation="sigmoid", name="gate")(gate)])
    x = L.UpSampling2D(interpolation="bilinear", name="up")(x)
    x = L.Add(name="sum")([x, skip])
    x = L.Conv2DTranspose(8, 3, strides=2, padding="same", name="d")(x)
    x = L.ReLU(name="d_relu")(L.BatchNormalization(name="d_norm")(x))
    return with_weights(keras.Model(image, L.Conv2D(outputs, 1, name="logits")(x), name=f"light{outputs}"))


NETS = {"plain": plain_net, "light": light_net}


def class_names(outputs: int) -> list[str]:
    return ["steel", "rust", "scratch", "lettering"][: max(outputs, 2)]


@lru_cache
def exported(net: str, outputs: int, scheme: str, head: str) -> Path:
    """Return the path of a net's file; tests must not change it."""
    return export_tflite(
        NETS[net](outputs),
        Path(_FOLDER.name) / f"{net}{outputs}_{scheme}_{head}.tflite",
        scheme=scheme,
        head=head,
        class_names=class_names(outputs),
        calibration=pictures(16, seed=1) if SCHEMES[scheme].calibrated else None,
    )


def without_card(path: Path, to: Path) -> Path:
    """Write the bare flatbuffer of a file, as another converter would have left it."""
    with zipfile.ZipFile(path) as archive:
        end = archive.infolist()[0].header_offset
    to.write_bytes(path.read_bytes()[:end])
    return to


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model(images.astype(np.float32), training=False).numpy()


def classes_of_logits(logits: np.ndarray) -> np.ndarray:
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(np.uint8)
    return logits.argmax(-1).astype(np.uint8)


def with_weights(model: keras.Model) -> keras.Model:
    """Draw every weight, batch norm statistics included, and centre the logits so that all classes occur."""
    rng = np.random.default_rng(7)
    for layer in model.layers:
        drawn = []
        for weight in layer.weights:
            shape, name = tuple(weight.shape), weight.name
            if "variance" in name or "gamma" in name:
                drawn.append(rng.uniform(0.5, 1.5, shape))
            elif len(shape) == 1:
                drawn.append(rng.normal(0, 0.1, shape))
            else:
                fan_in = np.prod(shape[:-1]) if "depthwise" not in name else shape[0] * shape[1]
                drawn.append(rng.normal(0, (2 / fan_in) ** 0.5, shape))
        layer.set_weights(drawn)
    logits = logits_of(model, pictures(8, seed=1))
    head = model.get_layer("logits")
    kernel, bias = head.get_weights()
    spread = logits.std(axis=(0, 1, 2))
    head.set_weights([kernel / spread, (bias - logits.mean(axis=(0, 1, 2))) / spread])
    return model
