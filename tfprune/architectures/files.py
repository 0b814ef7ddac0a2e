"""Keras model files: load them without ever running code from the file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from tfprune.errors import InputError
from tfprune.keras import keras


def load_model(path: str | Path) -> Any:
    """Load a tf_keras model from a `.keras` or `.h5` file, without its optimizer.

    Raises:
        InputError: when the file is missing, broken, of another kind, of Keras 3, or holds Lambda
            layers (loading those would run code from the file) or unknown layers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"model file {path} does not exist")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: expected a Keras model, .keras or .h5, and the name ends in '{path.suffix}'")
    config, keras_version = _read_config(path)
    if keras_version.startswith("3"):
        raise InputError(
            f"{path} was saved by Keras {keras_version}, and tfprune works with tf_keras (Keras 2). Build the model "
            "with TF_USE_LEGACY_KERAS=1 in the environment, load the weights there, and save it again."
        )
    if lambdas := sorted(_lambda_layers(config)):
        raise InputError(
            f"{path} holds Lambda layers ({', '.join(lambdas)}); loading them would run code from the file. "
            "Replace them by named layers, or build the model in a script and hand it over in memory."
        )
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, ImportError) as error:
        raise InputError(
            f"{path} cannot be loaded by tf_keras: {str(error).splitlines()[0]} "
            "A model with layers of your own is handed over in memory, from a script that defines them."
        ) from error


def ending_in_logits(model: Any) -> Any:
    """Return a segmentation model that ends in logits, with the weights of the one given.

    A sigmoid or softmax at its end is left out of a copy; a model without one is returned as it is.

    Args:
        model: a functional or sequential tf_keras model with one input and one output (N, H, W, K).

    Raises:
        InputError: when the model is of another form.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 4:
        raise InputError(
            f"model '{model.name}' has {len(model.inputs)} inputs and outputs of shape {model.output_shape}; "
            "a segmentation model has one picture (N, H, W, C) in and one map (N, H, W, K) out"
        )
    last = model.layers[-1]
    closing = getattr(getattr(last, "activation", None), "__name__", "")
    if closing not in ("sigmoid", "softmax") and not isinstance(last, keras.layers.Softmax):
        return model

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer is last:
            if not layer.weights:
                return keras.layers.Activation("linear", name=layer.name)
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    plain = keras.models.clone_model(model, clone_function=clone)
    plain.set_weights(model.get_weights())
    return plain


def _read_config(path: Path) -> tuple[Any, str]:
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                return config, json.loads(archive.read("metadata.json"))["keras_version"]
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"]), str(file.attrs.get("keras_version", "2"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a whole Keras model ({error}). It must hold the model, not its weights alone: "
            "save it with model.save(path)."
        ) from error


def _lambda_layers(config: Any) -> set[str]:
    """Return the names of all Lambda layers anywhere in a model's config."""
    found = set()
    if isinstance(config, dict):
        if config.get("class_name") == "Lambda":
            found.add(str(config.get("config", {}).get("name", "unnamed")))
        for value in config.values():
            found |= _lambda_layers(value)
    elif isinstance(config, list):
        for value in config:
            found |= _lambda_layers(value)
    return found
