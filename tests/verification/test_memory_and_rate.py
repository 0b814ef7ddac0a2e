"""Working memory counted on the file, against TFLite Micro's, and the share of this machine's convolution rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.export.nets import NETS, L, class_names, exported, pictures
from tests.verification.test_engines import micro  # noqa: F401
from tfprune.architectures import build_model
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras
from tfprune.verification.arena import measure_arena
from tfprune.verification.engines import load_runtime
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.latency import Latency
from tfprune.verification.liveness import peak_activation_bytes
from tfprune.verification.rate import MACS, SIZE, convolution_file, convolution_shares
from tfprune.verification.runtimes import open_engine


@dataclass(frozen=True, eq=False)
class Part:
    """As much of a tensor as liveness looks at."""

    index: int
    shape: tuple[int, ...]
    dtype: str = "INT8"
    constant: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    name: str
    inputs: tuple[Part | None, ...]
    outputs: tuple[Part, ...]


def test_the_peak_by_hand():
    image, skip, small, large, answer = (Part(i, (1, size)) for i, size in enumerate((10, 40, 20, 60, 5)))
    weights = Part(9, (1000,), constant=True)
    steps = [
        Step("CONV_2D", (image, weights, None), (skip,)),  # 10 + 40
        Step("MAX_POOL_2D", (skip,), (small,)),  # 40 + 20, the image is gone
        Step("CONV_2D", (small, weights), (large,)),  # 20 + 60 + the skip of 40
        Step("ADD", (large, skip), (answer,)),  # 60 + 40 + 5
    ]
    assert peak_activation_bytes(steps) == 120
    halves = Part(8, (7,), "FLOAT16", constant=True)
    assert peak_activation_bytes([Step("DEQUANTIZE", (halves,), (Part(5, (7,), "FLOAT32"),)), *steps]) == 120
    assert peak_activation_bytes([Step("CONV_2D", (Part(0, (-1, 4)),), (Part(1, (1, 4)),))]) is None
    summed = [Step("TRANSPOSE_CONV", (None, weights, image), (skip,))]
    assert peak_activation_bytes(summed) == 10 + 40 + 4 * 40
    assert peak_activation_bytes([]) == 0


@pytest.mark.parametrize(
    ("scheme", "peak_bytes"),
    [
        ("float32", 4 * (20 * 20 * 2 + 16 * 16 * 2)),  # what was enlarged, and the cut of it
        ("int8", 2 * 16 * 16 * 3),  # the camera's bytes, and the same as int8
        ("int16x8", (4 + 2) * 16 * 16 * 3),  # float pixels, and the same as int16
    ],
)
def test_the_peak_of_a_file_by_hand(scheme, peak_bytes, tmp_path):
    image = L.Input((16, 16, 3))
    x = L.AveragePooling2D(2)(L.Conv2D(2, 3)(L.Conv2D(2, 3, strides=2, padding="same")(image)))
    x = L.Cropping2D(2)(L.UpSampling2D(4)(L.ZeroPadding2D(1)(x)))
    path = export_tflite(
        keras.Model(image, L.Conv2D(2, 1)(x)),
        tmp_path / "a.tflite",
        scheme=scheme,
        head="logits",
        class_names=["a", "b"],
        calibration=pictures(8, size=16),
    )
    assert measure_footprint(path).peak_activation_bytes == peak_bytes


@pytest.mark.parametrize("scheme", ["float32", "int8", "int16x8"])
@pytest.mark.parametrize("net", ["light", "plain_unet"])
def test_the_peak_predicts_the_arena(micro, net, scheme, tmp_path):  # noqa: F811
    if net == "light":
        model, size = NETS["light"](3), 32
    else:
        model, size = build_model("plain_unet", input_size=(64, 64), outputs=3, width=4, depth=3, seed=0), 64
    path = export_tflite(
        model,
        tmp_path / "a.tflite",
        scheme=scheme,
        head="logits",
        class_names=class_names(3),
        calibration=pictures(8, size=size),
    )
    predicted = measure_footprint(path).peak_activation_bytes
    assert predicted / 1.25 <= measure_arena(path) <= predicted * 1.25


@pytest.mark.parametrize("activations", ["float32", "int8", "int16"])
def test_the_convolution_file_convolves(activations):
    picture = np.ones((1, SIZE, SIZE, 64), activations)
    answers = [
        open_engine(convolution_file(activations), runtime=name, threads=1).run(picture)
        for name in ("litert", "litert-reference")
    ]
    assert answers[0].shape == picture.shape and answers[0].dtype == picture.dtype and answers[0].std() > 0
    np.testing.assert_allclose(answers[0].astype(float), answers[1], atol=0.01 if activations == "float32" else 1)


def test_the_share_is_of_the_convolution_in_the_files_own_numbers():
    paths = {"a": exported("plain", 3, "int8", "logits"), "b": exported("plain", 3, "float16", "logits")}
    latency = Latency(median_ms=2.0, p95_ms=3.0, runs=9, ratio_to_first=1, ratio_low=1, ratio_high=1)
    timed = {name: (path, latency) for name, path in paths.items()}
    rates, shares = convolution_shares(timed, runs=3, runtime="litert", threads=1)
    assert set(rates) == {"int8", "float32"} and min(rates.values()) > MACS
    macs = measure_footprint(paths["a"]).macs
    assert shares["a"] == pytest.approx(macs / 0.002 / rates["int8"])
    assert shares["b"] == pytest.approx(macs / 0.002 / rates["float32"])


def test_without_a_schema_there_is_no_share(monkeypatch):
    monkeypatch.setattr("tfprune.verification.rate.read_operators", lambda path: None)
    latency = Latency(median_ms=2.0, p95_ms=3.0, runs=9, ratio_to_first=1, ratio_low=1, ratio_high=1)
    assert convolution_shares({"a": (None, latency)}, runs=3) == ({}, {"a": None})
    assert load_runtime("litert")[0].package == "ai-edge-litert"
