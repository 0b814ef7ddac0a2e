"""Models of Keras 3 become tf_keras models that compute the same, or are refused by the name of a layer."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.architectures import keras3_zoo
from tfprune.architectures import keras3, keras3_layers
from tfprune.architectures.files import load_model
from tfprune.channels import Selection as ChannelSelection
from tfprune.channels import remove_channels
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import select_layers
from tfprune.verification.runtimes import open_runtime

ROOT = Path(__file__).parents[2]


def write_zoo(folder, *names):
    settings = {"TF_USE_LEGACY_KERAS": "0", "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.architectures.keras3_zoo", str(folder), *names]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """A folder with the small models, written by Keras 3."""
    folder = tmp_path_factory.mktemp("keras3")
    write_zoo(folder, *keras3_zoo.SMALL, *keras3_zoo.REFUSED)
    return folder


def described(zoo, name):
    with np.load(zoo / f"{name}.npz") as file:
        return dict(file)


def check_on_other_pictures(model, folder, name):
    """Compare, in float32, with what Keras 3 makes in float64 of an input that the conversion has not seen."""
    with np.load(folder / f"{name}_check.npz") as check:
        inputs = [check[key] for key in check if key.startswith("input/")]
        expected = [check[key] for key in check if key.startswith("output/")]
    found = tf.nest.flatten(model(tf.nest.pack_sequence_as(model.input, inputs), training=False))
    assert len(found) == len(expected)
    for theirs, ours in zip(expected, found, strict=True):
        assert keras3.difference(theirs, ours) < 1e-4


@pytest.mark.parametrize("name", keras3_zoo.SMALL)
def test_a_model_converts_with_equal_outputs(zoo, name, tmp_path):
    made = keras3.convert(described(zoo, name))
    assert made.precision == "float64" and made.difference < 1e-6
    check_on_other_pictures(made.model, zoo, name)
    made.model.save(tmp_path / "converted.keras")
    check_on_other_pictures(load_model(tmp_path / "converted.keras"), zoo, name)
    assert all(layer.compute_dtype == "float32" for layer in made.model._flatten_layers(include_self=False))


def test_the_file_is_the_way_in_and_names_are_kept(zoo):
    model = load_model(zoo / "nested.keras")
    check_on_other_pictures(model, zoo, "nested")
    assert model.name == "nested" and {"shared", "logits"} <= {layer.name for layer in model.layers}
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # outer(image, training=False) holds its norms still, in training too
    assert norms and all(node.call_kwargs["training"] is False for norm in norms for node in norm._inbound_nodes)


def test_names_are_the_same_at_every_load(zoo):
    first, again = (keras3.convert(described(zoo, "activations")).model for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in again.layers]


def test_options_that_matter_in_training_are_kept(zoo):
    model = keras3.convert(described(zoo, "sequential")).model
    conv = model.get_layer("conv2d")
    assert isinstance(conv.kernel_regularizer, keras.regularizers.L2)
    assert keras3.convert(described(zoo, "unet")).model.get_layer("dropout").rate == 0.2


def described_as(arrays, **changes):
    """Change the description of a model."""
    text = str(arrays["description"])
    for old, new in changes.items():
        assert f'"{old}"' in text
        text = text.replace(f'"{old}"', f'"{new}"')
    return {**arrays, "description": np.array(text)}


def test_names_that_tensorflow_does_not_take_are_changed(zoo):
    arrays = described_as(described(zoo, "unet"), logits="the logits", unet="my net/v2", rescaling="_scaling")
    model = keras3.convert(arrays).model
    assert model.name == "my_net_v2" and {"the_logits", "scaling"} <= {layer.name for layer in model.layers}


def test_a_converted_model_goes_the_whole_way(zoo, tmp_path):
    model = keras3.convert(described(zoo, "nested")).model
    controller = MaskController(
        model,
        build_schedule("polynomial", 0.5, begin_step=0, end_step=2, prunes=2),
        selection=select_layers(model, min_weights=400),
    )
    controller.model.compile("adam", "mse")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    controller.model.fit(pixels.astype(np.float32), np.zeros((8, 64, 64, 3)), batch_size=4, verbose=0)
    assert controller.total_sparsity() == pytest.approx(0.5, abs=0.01)
    smaller = remove_channels(controller.strip(), ChannelSelection(ratio=0.5, multiple_of=1)).model
    assert smaller.count_params() < 0.5 * model.count_params()
    path = export_tflite(smaller, tmp_path / "m.tflite", head="logits", class_names=["a", "b", "c"])
    expected = smaller.predict(pixels[:1].astype(np.float32), verbose=0)
    assert keras3.difference(expected, open_runtime(path).predict(pixels[0])[None]) < 1e-4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_layer", r"own_layer\.keras: .*'my_doubled' \(Doubled\).*TF_USE_LEGACY_KERAS=1"),
        ("own_activation", r"'strange_conv' \(Conv2D with the function tests>cubed\)"),
        ("no_counterpart", r"'rms' \(RMSNormalization\)"),
        ("lambda_layer", r"Lambda layers \(shrink_values\).*--trust"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(zoo, name, text, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("refused before Keras 3 sees the file"))
    with pytest.raises(InputError, match=text):
        load_model(zoo / f"{name}.keras")


def test_an_option_without_a_counterpart_is_named(zoo):
    with pytest.raises(InputError, match=r"layer 'smooth' \(Resizing of Keras 3\) has the option antialias=True"):
        keras3.convert(described(zoo, "antialiased"))


@pytest.mark.slow
def test_what_keras_3_cannot_load_is_said_to_be_so(zoo):
    with pytest.raises(InputError, match=r"shared_across_models\.keras: Keras 3 cannot load this file: .+"):
        load_model(zoo / "shared_across_models.keras")


def test_a_trusted_lambda_layer_runs(zoo):
    model = load_model(zoo / "lambda_layer.keras", trust=True)
    image = tf.fill((1, 64, 64, 3), 51.0)
    np.testing.assert_allclose(model.get_layer("shrink_values")(image), np.full((1, 64, 64, 3), 0.2), rtol=1e-6)


def test_another_meaning_of_an_activation_is_caught(zoo, monkeypatch):
    monkeypatch.setitem(keras3_layers._SAME_ACTIVATIONS, "hard_sigmoid", "hard_sigmoid")
    with pytest.raises(InputError, match=r"computes something else.*first layer that differs is 'conv2d_1' \(Conv2D\)"):
        keras3.convert(described(zoo, "squeeze_excitation"))


def test_weights_that_were_mixed_up_are_caught(zoo):
    arrays = described(zoo, "unet")
    kernels = [key for key in arrays if key.startswith("weight/") and arrays[key].ndim == 4]
    arrays[kernels[2]] = arrays[kernels[2]][..., ::-1]
    with pytest.raises(InputError, match="computes something else"):
        keras3.convert(arrays)


def test_without_keras_3_it_is_said_what_to_install(zoo, tmp_path, monkeypatch):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("raise ImportError('no keras here')")
    monkeypatch.setattr(keras3, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    with pytest.raises(InputError, match=r"not installed here \(no keras here\).*pip install 'keras>=3'"):
        load_model(zoo / "unet.keras")


def test_a_quantized_layer_is_refused_by_name(zoo):
    arrays = described(zoo, "unet")
    description = json.loads(str(arrays["description"]))
    next(layer for layer in description["layers"] if layer["kind"] == "Conv2D")["quantized"] = "int8"
    with pytest.raises(InputError, match=r"'conv2d' \(Conv2D of Keras 3\) is quantized \(int8\)"):
        keras3.convert({**arrays, "description": np.array(json.dumps(description))})


def test_a_file_that_names_foreign_code_never_reaches_keras():
    layer = {"class_name": "Conv2D", "module": "keras.layers", "name": "conv", "config": {}}
    strange = {"class_name": "system", "module": "os", "config": {"command": "true"}}
    config = {"class_name": "Functional", "config": {"layers": [{**layer, "config": {"kernel_regularizer": strange}}]}}
    with pytest.raises(InputError, match=r"names os\.system"):
        keras3.screen(config)


@pytest.mark.slow
def test_h5_files_of_keras_3_convert(zoo):
    check_on_other_pictures(load_model(zoo / "unet.h5"), zoo, "unet")


@pytest.mark.slow
def test_a_model_of_keras_3_in_memory_converts():
    layers = importlib.import_module("keras.layers")
    image = layers.Input((16, 16, 3))
    model = importlib.import_module("keras").Model(image, layers.Conv2D(2, 1, activation="hard_silu")(image))
    pixels = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(load_model(model)(pixels), np.asarray(model(pixels)), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"^model 'functional.*': tf_keras has no counterpart .*RMSNormalization"):
        load_model(importlib.import_module("keras").Model(image, layers.RMSNormalization()(image)))


@pytest.mark.slow
@pytest.mark.parametrize("name", keras3_zoo.ENCODER_NAMES)
def test_an_encoder_of_keras_applications_converts(tmp_path, name):
    write_zoo(tmp_path, name)
    check_on_other_pictures(load_model(tmp_path / f"{name}.keras"), tmp_path, name)
