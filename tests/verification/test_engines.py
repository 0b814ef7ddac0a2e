"""Every runtime behind the same door, here and in another Python, and the arena of TFLite Micro."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.export.nets import L, class_names, exported, logits_of, pictures, with_weights, without_card
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.verification.arena import measure_arena
from tfprune.verification.runtimes import open_runtime

IMAGES = pictures(3, seed=5)


@pytest.fixture
def micro():
    return pytest.importorskip("tflite_micro", reason="tflite-micro is not installed: pip install --pre tflite-micro")


def classes(path, **how):
    model = open_runtime(path, **how)
    return np.stack([model.classes_of(image) for image in IMAGES])


@pytest.mark.parametrize("scheme", ["float32", "int8", "int8_float_io", "int16x8"])
@pytest.mark.parametrize("head", ["logits", "class_map", "coarse_class_map"])
def test_micro_is_bit_exact_with_the_reference_kernels(micro, scheme, head):
    path = exported("plain", 3, scheme, head)
    wanted, model = open_runtime(path, runtime="litert-reference"), open_runtime(path, runtime="micro")
    for image in IMAGES:
        answer = model.predict(image)
        assert answer.dtype == wanted.predict(image).dtype
        np.testing.assert_allclose(answer, wanted.predict(image), atol=1e-5 if scheme == "float32" else 0)
    assert model.description.startswith("tflite-micro 0.dev") and model.description.endswith(
        "reference kernels, 1 thread"
    )
    assert "XNNPACK" not in wanted.description
    assert 0 < model.time(IMAGES[0]) < 5


@pytest.mark.parametrize(
    ("scheme", "reason"), [("float16", "DEQUANTIZE|DENSIFY|type|Type"), ("dynamic_int8", "[Hh]ybrid|not supported")]
)
def test_what_micro_cannot_open_is_one_message(micro, scheme, reason, capfd):
    with pytest.raises(InputError, match=rf"tflite-micro cannot open this \.tflite file \(.*({reason})") as caught:
        open_runtime(exported("plain", 3, scheme, "logits"), runtime="micro")
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match="TFLite Micro cannot open"):
        measure_arena(exported("plain", 3, scheme, "logits"))
    with pytest.raises(InputError, match="threads is 2"):
        open_runtime(exported("plain", 3, "int8", "logits"), runtime="micro", threads=2)


def test_the_reference_kernels_are_not_asked_for_sums_that_they_get_wrong(micro, tmp_path):
    image = keras.Input((32, 32, 3))
    x = L.GroupNormalization(4)(L.Conv2D(8, 3, padding="same")(L.Rescaling(1 / 255)(image)))
    model = with_weights(keras.Model(image, L.Conv2D(3, 1, name="logits")(x)))
    options = {"class_names": class_names(3), "scheme": "int8_float_io", "head": "logits"}
    path = export_tflite(model, tmp_path / "group.tflite", calibration=pictures(16, seed=1), **options)
    wanted = logits_of(model, IMAGES)
    for runtime in ("litert", "tensorflow", "micro"):
        answers = np.stack([open_runtime(path, runtime=runtime).predict(image) for image in IMAGES])
        assert 10 * np.log10((wanted**2).mean() / ((answers - wanted) ** 2).mean()) > 20
    with pytest.raises(InputError, match=r"group\.tflite: .*sums of int8 wrongly .*run this file with litert or"):
        open_runtime(path, runtime="litert-reference")


def test_the_arena_is_the_smallest_that_opens(micro):
    path = exported("plain", 3, "int8", "logits")
    found = measure_arena(path)
    from tflite_micro.python.tflite_micro.runtime import Interpreter

    Interpreter.from_bytes(path.read_bytes(), arena_size=found)
    with pytest.raises(RuntimeError):
        Interpreter.from_bytes(path.read_bytes(), arena_size=found - 32)
    assert found > 32 * 32 * (20 + 8)  # the joined tensor and what the convolution behind it makes


@pytest.mark.parametrize("kept", [3000, -9])
def test_micro_does_not_die_of_a_damaged_file(micro, kept, tmp_path):
    path = without_card(exported("plain", 3, "int8", "logits"), tmp_path / "cut.tflite")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cut\.tflite: .*damaged"):
        open_runtime(path, runtime="micro")


@pytest.mark.parametrize("runtime", ["litert", "micro"])
def test_a_custom_operator_is_named(runtime, request, tmp_path):
    if runtime == "micro":
        request.getfixturevalue("micro")
    image = L.Input((8, 8, 3))
    model = keras.Model(image, L.Conv2D(2, 1)(L.Activation(tf.math.erf)(image)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.allow_custom_ops = True
    path = tmp_path / "custom.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(InputError, match=r"custom\.tflite: .*Erf") as caught:
        open_runtime(path, runtime=runtime, preprocessing=(1, 0))
    assert "\n" not in str(caught.value)


def test_another_python_gives_the_same_and_its_own_time():
    path = exported("plain", 3, "int8", "probabilities")
    model, here = open_runtime(path, python=sys.executable), open_runtime(path)
    assert model.description == f"{here.description}, Python {'.'.join(map(str, sys.version_info[:3]))}"
    for image in IMAGES:
        np.testing.assert_array_equal(model.predict(image), here.predict(image))
    assert (model.quantization, model.outputs, model.input_size) == (here.quantization, here.outputs, here.input_size)
    assert 0 < model.time(IMAGES[0]) < 1
    process = model._engine._process
    del model
    assert process.poll() == 0


def test_another_python_that_is_none_or_lacks_the_runtime(tmp_path, monkeypatch):
    path = exported("plain", 3, "int8", "probabilities")
    with pytest.raises(InputError, match="cannot be started"):
        open_runtime(path, python=tmp_path / "absent")
    with pytest.raises(InputError, match=r"stopped \(.*\); it needs Python 3\.10 or later, numpy"):
        open_runtime(path, python="/bin/false")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexport PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('blocked')")
    with pytest.raises(InputError, match=rf"{bare}: no runtime .*pip install ai-edge-litert"):
        open_runtime(path, python=bare)
    assert "Python" not in open_runtime(path, runtime="litert", python=bare).description  # named, and here
    cut = without_card(path, tmp_path / "cut.tflite")
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut\.tflite: .*: ai-edge-litert cannot open"):
        open_runtime(cut, python=sys.executable)
