"""Model files: they load, and nothing in them is ever run."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.architectures.files import ending_in_logits, load_model
from tfprune.errors import InputError
from tfprune.keras import keras


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_saved_model_comes_back(tmp_path, suffix):
    model = tiny_net()
    model.save(tmp_path / f"model{suffix}")
    loaded = load_model(tmp_path / f"model{suffix}")
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_lambda_layers_are_refused_by_name(tmp_path, suffix):
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2, name="twice")(image)).save(tmp_path / f"m{suffix}")
    with pytest.raises(InputError, match=r"Lambda layers \(twice\)"):
        load_model(tmp_path / f"m{suffix}")


def test_a_keras_3_file_is_refused_with_the_way_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
    with pytest.raises(InputError, match=r"Keras 3\.15\.1.*TF_USE_LEGACY_KERAS=1"):
        load_model(tmp_path / "new.keras")


@pytest.mark.parametrize("name", ["half.keras", "half.h5"])
def test_broken_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(InputError, match="not a whole Keras model"):
        load_model(tmp_path / name)


@pytest.mark.parametrize(("name", "text"), [("no.keras", "does not exist"), ("m.onnx", "expected a Keras model")])
def test_wrong_paths_are_named(tmp_path, name, text):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=text):
        load_model(tmp_path / name)


@pytest.mark.parametrize("ending", ["activation", "layer", "softmax", "none"])
def test_a_model_of_probabilities_becomes_one_of_logits(ending):
    logits = tiny_net()
    x = {
        "activation": lambda: keras.layers.Activation("softmax")(logits.output),
        "softmax": lambda: keras.layers.Softmax()(logits.output),
        "layer": lambda: keras.layers.Conv2D(2, 1, activation="sigmoid", name="head")(logits.layers[-2].output),
        "none": lambda: logits.output,
    }[ending]()
    model = keras.Model(logits.input, x)
    if ending == "layer":
        model.get_layer("head").set_weights(logits.get_layer("logits").get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    plain = ending_in_logits(model)
    np.testing.assert_allclose(plain(pixels), logits(pixels), rtol=1e-5, atol=1e-5)


def test_a_model_that_is_no_segmentation_model_is_refused():
    image = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="one map"):
        ending_in_logits(keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)))
