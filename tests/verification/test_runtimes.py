from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.export.nets import exported, pictures, without_card
from tfprune.errors import InputError
from tfprune.verification.classes import classes_from_output
from tfprune.verification.engines import RUNTIMES
from tfprune.verification.runtimes import open_runtime

IMAGE = pictures(1, seed=5)[0]


def test_opened_file_knows_itself():
    model = open_runtime(exported("plain", 3, "int8", "probabilities"), threads=2)
    assert (model.input_size, model.channels, model.outputs, model.head) == ((32, 32), 3, 3, "probabilities")
    assert model.card["classes"] == ["steel", "rust", "scratch"]
    assert model.description.startswith("ai-edge-litert ")
    assert model.description.endswith(", XNNPACK, 2 threads")
    assert model.predict(IMAGE).shape == (32, 32, 3)
    assert model.classes_of(IMAGE).dtype == np.uint8


def test_answers_are_copies():
    model = open_runtime(exported("plain", 3, "float32", "logits"))
    first = model.predict(IMAGE)
    kept = first.copy()
    model.predict(255 - IMAGE)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_tensorflows_interpreter_says_the_same(scheme):
    path = exported("light", 3, scheme, "logits")
    other = open_runtime(path, runtime="tensorflow")
    assert other.description.startswith("tensorflow 2.")
    found, wanted = other.predict(IMAGE), open_runtime(path).predict(IMAGE)
    assert np.abs(found.astype(float) - wanted).max() <= (1 if scheme == "int8" else 1e-4)


@pytest.mark.parametrize(
    "image", [IMAGE[:16], IMAGE[..., :1], IMAGE[None], IMAGE / 255], ids=["size", "channels", "batch", "dtype"]
)
def test_wrong_picture(image):
    model = open_runtime(exported("plain", 3, "int8", "probabilities"))
    with pytest.raises(InputError, match=r"takes uint8 pictures of \(32, 32, 3\)"):
        model.predict(image)


def damaged_files():
    whole = exported("plain", 3, "int8", "probabilities").read_bytes()
    return {
        "empty": b"",
        "short": whole[:6],
        "text": b"classes: 3\n" * 99,
        "zip only": b"PK\x03\x04" + whole[4:],
        "half": whole[: len(whole) // 2],
        "within its last weights": whole[: whole.index(b"PK\x03\x04") - 9],
        "within its card": whole[:-9],
        "mark alone": b"\0\0\0\0TFL3" + b"\xff" * 1000,
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_damaged_or_foreign_files_give_one_message(kind, tmp_path, capfd):
    path = tmp_path / "model.tflite"
    path.write_bytes(damaged_files()[kind])
    with pytest.raises(InputError, match=r"model\.tflite") as caught:
        open_runtime(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_file_and_wrong_names(tmp_path):
    path = exported("plain", 3, "int8", "probabilities")
    with pytest.raises(InputError, match="cannot be read"):
        open_runtime(tmp_path / "absent.tflite")
    with pytest.raises(InputError, match="cannot be read"):
        open_runtime(tmp_path)
    with pytest.raises(InputError, match="did you mean 'litert'"):
        open_runtime(path, runtime="liter")
    with pytest.raises(InputError, match="threads is 0"):
        open_runtime(path, threads=0)
    with pytest.raises(InputError, match="leave out"):
        open_runtime(path, preprocessing=(1, 0))


def test_runtime_that_is_not_installed(monkeypatch):
    path = exported("plain", 3, "int8", "probabilities")
    for runtime in RUNTIMES.values():
        monkeypatch.setitem(sys.modules, runtime.module, None)
    with pytest.raises(InputError, match="pip install tflite-runtime"):
        open_runtime(path, runtime="tflite-runtime")
    with pytest.raises(InputError, match="pip install ai-edge-litert"):
        open_runtime(path)


def test_next_runtime_stands_in(monkeypatch):
    for name in ("litert", "tflite-runtime"):
        monkeypatch.setitem(sys.modules, RUNTIMES[name].module, None)
    model = open_runtime(exported("plain", 3, "int8", "probabilities"))
    assert model.description.startswith("tensorflow 2.")


def test_nothing_imports_tensorflow_or_speaks():
    code = f"""
import sys, numpy as np
from tfprune.verification import agreement, arena, classes, engines, footprint, graph, latency, quality
from tfprune.verification import remote, runtimes
path = {str(exported("plain", 3, "float32", "logits"))!r}
model = runtimes.open_runtime(path)
model.classes_of(np.zeros((32, 32, 3), np.uint8))
footprint.measure_footprint(path)
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tf_keras", "keras")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_foreign_float_file_needs_preprocessing(tmp_path):
    path = exported("plain", 3, "float32", "logits")
    bare = without_card(path, tmp_path / "bare.tflite")
    with pytest.raises(InputError, match="preprocessing"):
        open_runtime(bare)
    model = open_runtime(bare, preprocessing=(1, 0))
    assert (model.card, model.head, model.outputs) == (None, "logits", 3)
    np.testing.assert_array_equal(model.classes_of(IMAGE), open_runtime(path).classes_of(IMAGE))
    shifted = open_runtime(bare, preprocessing=(2, [-255, -255, -255])).predict(IMAGE)
    np.testing.assert_array_equal(shifted, model._engine.run(2 * IMAGE[None].astype(np.float32) - 255)[0])


@pytest.mark.parametrize(
    ("outputs", "head"), [(3, "probabilities"), (3, "logits"), (3, "class_map"), (1, "probabilities"), (1, "class_map")]
)
def test_foreign_integer_file_speaks_for_itself(outputs, head, tmp_path):
    path = exported("plain", outputs, "int8", head)
    bare = open_runtime(without_card(path, tmp_path / "bare.tflite"))
    np.testing.assert_array_equal(bare.classes_of(IMAGE), open_runtime(path).classes_of(IMAGE))
    assert bare.outputs == (None if head == "class_map" else outputs)
    same = open_runtime(bare.path, preprocessing=(1, 0))
    np.testing.assert_array_equal(same.predict(IMAGE), bare.predict(IMAGE))


def test_foreign_single_logit_needs_a_head(tmp_path):
    path = exported("plain", 1, "int8", "logits")
    bare = without_card(path, tmp_path / "bare.tflite")
    with pytest.raises(InputError, match="one output channel"):
        open_runtime(bare)
    with pytest.raises(InputError, match="did you mean 'logits'"):
        open_runtime(bare, head="logit")
    model = open_runtime(bare, head="logits")
    np.testing.assert_array_equal(model.classes_of(IMAGE), open_runtime(path).classes_of(IMAGE))


def test_quantized_ties_and_thresholds():
    """Logit 0 and probability .5 are class 0, in floats and at the zero point; equal classes: the lowest id."""
    logits = np.array([[[-0.5], [0.0], [0.5]]])
    np.testing.assert_array_equal(classes_from_output(logits, head="logits"), [[0, 0, 1]])
    np.testing.assert_array_equal(classes_from_output(logits + 0.5, head="probabilities"), [[0, 0, 1]])
    stored = np.array([[[-1], [0], [1]]], np.int8)
    np.testing.assert_array_equal(classes_from_output(stored, head="logits", quantization=(0.1, 0)), [[0, 0, 1]])
    stored = np.array([[[127], [128], [129]]], np.uint8)
    np.testing.assert_array_equal(
        classes_from_output(stored, head="probabilities", quantization=(1 / 256, 0)), [[0, 0, 1]]
    )
    tied = np.array([[[1, 7, 7], [7, 7, 7]]], np.uint8)
    np.testing.assert_array_equal(classes_from_output(tied, head="logits", quantization=(0.1, 3)), [[1, 0]])
    ids = np.array([[2, 0]], np.int64)
    np.testing.assert_array_equal(classes_from_output(ids[..., None], head="class_map"), ids)
