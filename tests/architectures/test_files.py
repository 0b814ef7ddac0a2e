"""Model files: they load, and nothing in them is ever run."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.architectures.files import ending_in_logits, load_model, model_files
from tfprune.errors import InputError
from tfprune.keras import keras, tf


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


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.filterwarnings("ignore:.*is not loaded, but a Lambda layer uses it")
def test_lambda_layers_of_a_trusted_file_load(tmp_path, suffix):
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2, name="twice")(image)).save(tmp_path / f"m{suffix}")
    loaded = load_model(tmp_path / f"m{suffix}", trust=True)
    np.testing.assert_array_equal(loaded(np.ones((1, 4, 4, 1))), np.full((1, 4, 4, 1), 2.0))


def test_a_keras_3_file_that_is_no_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Adam", "config": {}}))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
    with pytest.raises(InputError, match=r"new\.keras: the model is of the class Adam.*TF_USE_LEGACY_KERAS=1"):
        load_model(tmp_path / "new.keras")


def rewrite_config(path, change):
    """Change the config in a .keras file."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["config.json"] = change(content["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_file_cannot_make_keras_import_a_module(tmp_path):
    (tmp_path / "surprise.py").write_text("raise SystemExit('imported')")
    tiny_net().save(tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", lambda text: text.replace('"keras.layers"', '"surprise"', 1))
    with pytest.raises(InputError, match=r"'image' is a surprise\.InputLayer and not Keras'.*--trust"):
        load_model(tmp_path / "m.keras")


def test_a_file_cannot_call_what_touches_files(tmp_path):
    image = keras.Input((4, 4, 1), name="image")
    keras.Model(image, tf.math.sin(image)).save(tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", lambda text: text.replace('"math.sin"', '"io.write_file"'))
    with pytest.raises(InputError, match=r"layer 'tf\.math\.sin.*' calls tf\.io\.write_file"):
        load_model(tmp_path / "m.keras")


def test_operations_on_tensors_load(tmp_path):
    image = keras.Input((4, 4, 2), name="image")
    x = tf.concat([tf.nn.relu(image) * 2.0, image[:, :, :, :1]], axis=-1)
    keras.Model(image, tf.clip_by_value(tf.reshape(x, (-1, 16, 3)), 0, 1)).save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").output_shape == (None, 16, 3)


@keras.saving.register_keras_serializable("tests")
class Halved(keras.layers.Layer):
    """A layer of a user's own."""

    def call(self, x):
        return x / 2


def test_a_registered_layer_of_ones_own_loads(tmp_path):
    image = keras.Input((4, 4, 1))
    keras.Model(image, Halved()(image)).save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").output_shape == (None, 4, 4, 1)


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_folder_comes_back_as_layers(tmp_path):
    model = tiny_net()
    model.save(tmp_path / "folder", save_format="tf")
    loaded = load_model(tmp_path / "folder")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded(pixels), model(pixels), rtol=1e-5, atol=1e-5)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    assert len(model_files(tmp_path / "folder")) >= 4
    loaded.save(tmp_path / "again.keras")


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_with_code_or_foreign_layers_is_refused(tmp_path):
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2, name="twice")(image)).save(tmp_path / "a", save_format="tf")
    with pytest.raises(InputError, match=r"Lambda layers \(twice\)"):
        load_model(tmp_path / "a")

    class Tripled(keras.layers.Layer):
        def call(self, x):
            return x * 3

    keras.Model(image, Tripled(name="strange")(image)).save(tmp_path / "b", save_format="tf")
    with pytest.raises(InputError, match="strange"):
        load_model(tmp_path / "b")


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_without_layers_is_refused_with_the_way_out(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "plain"))
    with pytest.raises(InputError, match=r"does not tell its layers.*model\.save\('model\.keras'\)"):
        load_model(tmp_path / "plain")
    (tmp_path / "plain" / "keras_metadata.pb").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be loaded by tf_keras"):
        load_model(tmp_path / "plain")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"folder without a saved_model\.pb"):
        load_model(tmp_path / "empty")


class Subclassed(keras.Model):
    """A model without a graph of layers."""

    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(2, 1)

    def call(self, x):
        return self.conv(x)


def test_models_in_memory_are_taken_or_refused():
    model = tiny_net()
    assert load_model(model) is model
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(InputError, match=r"subclassed model \(Subclassed\).*functional API"):
        load_model(subclassed)
    image = keras.Input((4, 4, 3))
    assert load_model(keras.Model(image, subclassed.call(image))).count_params() == 8
    with pytest.raises(InputError, match="never built"):
        load_model(keras.Sequential([keras.layers.Conv2D(2, 1)]))
    with pytest.raises(InputError, match=r"expected a Keras model, not builtins\.dict"):
        load_model({})


@pytest.mark.filterwarnings("ignore")
def test_weights_alone_are_no_model(tmp_path):
    tiny_net().save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(InputError, match="not its weights alone"):
        load_model(tmp_path / "only.weights.h5")


@pytest.mark.parametrize("name", ["half.keras", "half.h5"])
def test_broken_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(InputError, match="not a whole Keras model"):
        load_model(tmp_path / name)


def test_damaged_weights_are_named(tmp_path):
    tiny_net().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        inside = archive.getinfo("model.weights.h5").header_offset + 2000
    content = bytearray((tmp_path / "m.keras").read_bytes())
    content[inside] ^= 255
    (tmp_path / "m.keras").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.keras cannot be loaded by tf_keras: Bad CRC-32"):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize(("name", "text"), [("no.keras", "does not exist"), ("m.onnx", "expected a Keras model")])
def test_wrong_paths_are_named(tmp_path, name, text):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=text):
        load_model(tmp_path / name)


@pytest.mark.parametrize(
    "ending", ["activation", "layer", "softmax", "function", "op", "nested", "linear_behind", "dictionary", "none"]
)
def test_a_model_of_probabilities_becomes_one_of_logits(ending):
    logits = tiny_net()
    x = {
        "activation": lambda: keras.layers.Activation("softmax")(logits.output),
        "softmax": lambda: keras.layers.Softmax()(logits.output),
        "layer": lambda: keras.layers.Conv2D(2, 1, activation="sigmoid", name="head")(logits.layers[-2].output),
        "function": lambda: keras.layers.Activation(tf.nn.softmax)(logits.output),
        "op": lambda: tf.nn.softmax(logits.output, axis=-1),
        "nested": lambda: keras.Sequential([keras.Input((32, 32, 2)), keras.layers.Softmax()])(logits.output),
        "linear_behind": lambda: keras.layers.Activation("linear")(keras.layers.Softmax()(logits.output)),
        "dictionary": lambda: {"map": keras.layers.Softmax()(logits.output)},
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
