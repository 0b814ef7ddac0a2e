"""Where int8 loses its signal is found, and keeping that in float32 repairs the file."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.export.card import read_card
from tfprune.export.conversion import export_tflite
from tfprune.export.noise import KeptFloat
from tfprune.keras import keras
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime

NAMES = ["a", "b"]


def planted_net():
    """A net whose layer `middle` makes one channel 3000 times larger than the others, which `last` scales back."""
    net = tiny_net(norm=False)
    kernel, bias = net.get_layer("middle_conv").get_weights()
    kernel[..., 0] *= 3000
    net.get_layer("middle_conv").set_weights([kernel, bias])
    kernel, bias = net.get_layer("last_conv").get_weights()
    kernel[:, :, 0] /= 3000
    net.get_layer("last_conv").set_weights([kernel, bias])
    return net


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)


def signal_db(model, path, pixels):
    """Return the signal-to-noise ratio of a file's logits against Keras, over four pictures."""
    file = open_runtime(path, runtime="litert")
    scale, zero_point = file.quantization
    given = np.stack([(file.predict(picture).astype(np.float64) - zero_point) * scale for picture in pixels[:4]])
    truth = model(pixels[:4].astype(np.float32), training=False).numpy()
    return 10 * np.log10(np.square(truth).mean() / np.square(given - truth).mean())


def test_one_operator_in_float_repairs_a_planted_failure(tmp_path, pixels):
    net = planted_net()
    options = {"scheme": "int8", "head": "logits", "class_names": NAMES, "calibration": pixels}
    broken = export_tflite(net, tmp_path / "broken.tflite", **options)
    repaired = export_tflite(net, tmp_path / "repaired.tflite", keep_float=1, **options)
    before, after = (signal_db(net, path, pixels) for path in (broken, repaired))
    assert before < 1 and after > 35
    (kept,) = read_card(repaired)["kept_float"]
    assert kept["operator"] == "CONV_2D" and "middle" in kept["tensor"]
    assert kept["own_db"] < 5 and kept["before_db"] == pytest.approx(before, abs=1)
    assert kept["answer_db"] == pytest.approx(after, abs=3)
    assert "kept_float" not in read_card(broken)
    kinds = [operator.name for operator in read_operators(repaired) if operator.outputs[0].dtype == "FLOAT32"]
    # what reads it is float too: the upsampling, the concatenation; the rest stays int8
    assert set(kinds) == {"DEQUANTIZE", "CONV_2D", "RESIZE_NEAREST_NEIGHBOR", "CONCATENATION"}
    assert repaired.stat().st_size < 2 * broken.stat().st_size


def test_what_was_chosen_once_can_be_asked_for_by_name(tmp_path, pixels):
    options = {"scheme": "int8_float_io", "class_names": NAMES, "calibration": pixels}
    counted = export_tflite(planted_net(), tmp_path / "counted.tflite", keep_float=2, **options)
    chosen = [KeptFloat(**row) for row in read_card(counted)["kept_float"]]
    named = export_tflite(planted_net(), tmp_path / "named.tflite", keep_float=chosen, **options)
    assert named.read_bytes() == counted.read_bytes() and len(chosen) == 2
    assert chosen[0].answer_db == chosen[1].before_db <= chosen[1].answer_db + 1


@pytest.mark.parametrize("head", ["class_map", "probabilities"])
def test_every_head_has_an_answer_to_judge_by(tmp_path, pixels, head):
    path = export_tflite(
        planted_net(),
        tmp_path / "m.tflite",
        scheme="int8",
        head=head,
        keep_float=1,
        class_names=NAMES,
        calibration=pixels,
    )
    assert "middle" in read_card(path)["kept_float"][0]["tensor"]


def test_clipped_ranges_leave_rare_values_out(tmp_path, pixels):
    """One huge activation in a picture sets the range of all; clipping gives the others their steps back."""
    layers = keras.layers
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(layers.Rescaling(1 / 255)(image))
    net = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    dark = (pixels[:, :1, :1] // 16).repeat(32, 1).repeat(32, 2)
    dark[0, 4:7, 4:7] = 255
    options = {"scheme": "int8", "head": "logits", "class_names": NAMES, "calibration": dark}
    whole = export_tflite(net, tmp_path / "whole.tflite", **options)
    clipped = export_tflite(net, tmp_path / "clipped.tflite", clip=0.01, **options)
    assert open_runtime(clipped).quantization[0] < 0.2 * open_runtime(whole).quantization[0]
    plain = dark[4:]
    assert signal_db(net, clipped, plain) > signal_db(net, whole, plain) + 10
    assert read_card(clipped)["calibration"] == {"pictures": 12, "clip": 0.01}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scheme": "float32", "keep_float": 1}, "scheme 'float32' has none"),
        ({"scheme": "int16x8", "keep_float": 1}, "scheme 'int16x8' has none"),
        ({"scheme": "int8", "keep_float": -1}, "keep_float is -1; give a number of operators"),
        ({"scheme": "int8", "clip": 0.5}, "clip is 0.5; give the share of values"),
        ({"scheme": "float32", "clip": 0.001}, "this file is not calibrated"),
    ],
)
def test_choices_without_a_meaning_are_refused(tmp_path, pixels, options, text):
    with pytest.raises(InputError, match=text):
        export_tflite(tiny_net(), tmp_path / "m.tflite", class_names=NAMES, calibration=pixels, **options)
