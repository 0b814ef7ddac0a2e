"""What a model costs as the file that would be deployed: the measures that a budget in bytes or ms asks for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.export import SCHEMES
from tfprune.export.conversion import MINIMUM_CALIBRATION, export_tflite
from tfprune.verification.arena import measure_arena
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.latency import measure_latency
from tfprune.verification.runtimes import open_runtime

_LATENCY_RUNS = 30


def activation_value_bytes(scheme: str) -> int:
    """Return the bytes of one activation value in a scheme.

    >>> [activation_value_bytes(scheme) for scheme in ("float32", "int8", "int16x8")]
    [4, 1, 2]
    """
    return 1 if scheme.startswith("int8") else 2 if scheme.startswith("int16") else 4


def build_measures(
    scheme: str,
    *,
    calibration: np.ndarray | None = None,
    head: str = "probabilities",
    input_size: tuple[int, int] | None = None,
    threads: int = 1,
) -> dict[str, Callable[[Any], float]]:
    """Return quantity -> what a Keras model has of it as a .tflite file of a scheme.

    `file_bytes` is the file with its card, `gzip_bytes` the same compressed; `arena_bytes` what TFLite Micro
    needs for it; `latency_ms` the median over 30 runs on this machine.

    Args:
        scheme: a key of `tfprune.export.SCHEMES`.
        calibration: uint8 (N, H, W, C) pictures for integer schemes; drawn at random when there are
            none, which changes no size and no time.
        head: a key of `tfprune.export.HEADS`.
        input_size: (H, W) for a model that leaves them open.
        threads: of the runtime.
    """
    settings = {"scheme": scheme, "head": head, "calibration": calibration, "input_size": input_size}
    return {
        "file_bytes": partial(_on_file, _file_bytes, settings),
        "gzip_bytes": partial(_on_file, _gzip_bytes, settings),
        "arena_bytes": partial(_on_file, measure_arena, settings),
        "latency_ms": partial(_on_file, partial(_latency_ms, threads), settings),
    }


def _on_file(measure: Callable[[Path], float], settings: dict[str, Any], model: Any) -> float:
    if SCHEMES[settings["scheme"]].calibrated and settings["calibration"] is None:
        height, width, channels = model.input_shape[1:]
        shape = (MINIMUM_CALIBRATION, *(settings["input_size"] or (height, width)), channels)
        settings = {**settings, "calibration": np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)}
    names = [f"class {index}" for index in range(max(2, model.output_shape[-1]))]
    with tempfile.TemporaryDirectory() as folder:
        return measure(export_tflite(model, Path(folder, "model.tflite"), class_names=names, **settings))


def _file_bytes(path: Path) -> float:
    return path.stat().st_size


def _gzip_bytes(path: Path) -> float:
    return measure_footprint(path).gzip_bytes


def _latency_ms(threads: int, path: Path) -> float:
    model = open_runtime(path, threads=threads)
    picture = np.zeros((*model.input_size, model.channels), np.uint8)
    return measure_latency({"model": partial(model.time, picture)}, runs=_LATENCY_RUNS)["model"].median_ms
