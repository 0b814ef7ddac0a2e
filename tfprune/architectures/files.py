"""Models that people bring: from memory or from files, without ever running code from a file."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py

from tfprune.architectures.keras3 import convert_file
from tfprune.architectures.screening import objects_in, refuse_lambdas, refuse_strange_code
from tfprune.errors import InputError
from tfprune.keras import finish_weights, keras
from tfprune.silence import quiet_stderr

from tf_keras.src.saving.serialization_lib import ObjectSharingScope

SUFFIXES = (".keras", ".h5", ".hdf5")
_CLOSING = ("sigmoid", "softmax")
_METADATA = "keras_metadata.pb"
_ACCEPTED = "a .keras or .h5 file, or a SavedModel folder that Keras 2 wrote"
_OTHER_WAY = (
    "A model with layers of your own is handed over in memory, from a script that defines them, or built from layers "
    "of Keras."
)


def load_model(model: str | Path | Any, *, trust: bool = False) -> Any:
    """Return the tf_keras model of a file, a SavedModel folder or a variable, without its optimizer.

    A model of Keras 3 is rebuilt layer by layer and compared with the original on random input
    (`tfprune.architectures.keras3`). A functional or sequential tf_keras model in memory is returned as it is.

    Args:
        trust: run the code of Lambda layers, and import the modules that the file names.

    Raises:
        InputError: when the file is missing, broken or of another kind, when its layers are not those of Keras,
            when it holds Lambda layers (loading those would run code from the file), and when the model is
            no graph of layers.
    """
    if not isinstance(model, str | Path):
        return _in_memory(model)
    path = Path(model)
    if not path.exists():
        raise InputError(f"model file {path} does not exist; give {_ACCEPTED}")
    if path.is_dir():
        return _checked(_load_saved_model(path, trust=trust), str(path))
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a Keras model, and the name ends in '{path.suffix}'; give {_ACCEPTED}")
    config, keras_version = read_config(path)
    if not trust:
        refuse_lambdas(config, path)
    if keras_version.startswith("3"):
        return convert_file(path, config, where=str(path), trust=trust).model
    if not trust:
        refuse_strange_code(config, path)
    _import_own_layers(config)
    try:
        if path.suffix == ".keras":
            loaded = _load_archive(path, config, trust=trust)
        else:
            loaded = keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, ImportError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be loaded by tf_keras: {_first_line(error)} {_OTHER_WAY}") from error
    return _checked(loaded, str(path))


def _load_archive(path: Path, config: Any, *, trust: bool) -> Any:
    """Load a .keras file with its weights unpacked: tf_keras reads on and off in the archive, 23 s for 75 MB."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        with ObjectSharingScope():
            loaded = keras.saving.deserialize_keras_object({**config, "compile_config": None}, safe_mode=not trust)
        loaded.load_weights(archive.extract("model.weights.h5", folder))
    return loaded


def _import_own_layers(config: Any) -> None:
    """Import the modules of tfprune that the objects of a config come from: Keras knows registered classes only."""
    for module in {str(found.get("module")) for found in objects_in(config)}:
        if module.startswith("tfprune.") and not module.endswith("__main__"):
            with suppress(ModuleNotFoundError):
                import_module(module)


def model_files(path: str | Path) -> list[Path]:
    """Return the files of a saved model in order: itself, or those in its folder.

    >>> [file.name for file in model_files("model.keras")]
    ['model.keras']
    """
    path = Path(path)
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def picture_shape(model: Any) -> tuple[int | None, int | None, int]:
    """Return the (H, W, C) that a segmentation model takes, H and W None where it takes any.

    Raises:
        InputError: when it does not take one picture (N, H, W, C) and give one map (N, H, W, K).
    """
    given, made = ([tuple(tensor.shape) for tensor in tensors] for tensors in (model.inputs, model.outputs))
    if [len(shape) for shape in given + made] != [4, 4]:
        raise InputError(
            f"model '{model.name}' has inputs of shape {given} and outputs of shape {made}; "
            "a segmentation model has one picture (N, H, W, C) in and one map (N, H, W, K) out"
        )
    return given[0][1:]


def ending_in_logits(model: Any) -> Any:
    """Return a segmentation model that ends in logits, with the weights of the one given.

    A sigmoid or softmax at its end is left out of a copy; a model without one is returned as it is.

    Args:
        model: a functional or sequential tf_keras model with one input and one output (N, H, W, K).

    Raises:
        InputError: when the model is of another form.
    """
    picture_shape(model)
    if isinstance(model.input, dict) or isinstance(model.output, dict):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    return _without_closing(model) or model


def _without_closing(model: Any) -> Any | None:
    """Return a copy of a model without the sigmoid or softmax at its end, None when there is none.

    It may be the activation of the last layer, a layer or an op of its own, and the end of a nested model.
    """
    history = model.outputs[0]._keras_history
    layer, node = history.layer, history.layer._inbound_nodes[history.node_index]
    if getattr(layer, "_is_graph_network", False):
        inner = _without_closing(layer)
        return None if inner is None else _copied(model, {id(layer): inner})
    closing = _activation_of(layer)
    if closing in (*_CLOSING, "linear") and not layer.weights:
        before = keras.Model(model.inputs, node.keras_inputs[0], name=model.name)
        return _copied(before, {}) if closing in _CLOSING else _without_closing(before)
    if closing in _CLOSING:
        return _copied(model, {id(layer): type(layer).from_config({**layer.get_config(), "activation": "linear"})})
    return None


def _activation_of(layer: Any) -> str:
    """Return the name of the function that a layer's answer comes from last, "" when it has none.

    >>> _activation_of(keras.layers.Activation(keras.activations.sigmoid))
    'sigmoid'
    """
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    function = getattr(layer, "function" if type(layer).__name__ == "TFOpLambda" else "activation", None)
    if isinstance(function, keras.layers.Softmax):
        return "softmax"
    return getattr(function, "__name__", "").removesuffix("_v2")  # tf.nn.softmax calls itself softmax_v2


def _copied(model: Any, instead: Mapping[int, Any]) -> Any:
    """Return a copy of a model with its weights; `instead` holds by the id of a layer what stands in its place."""
    copy = keras.models.clone_model(
        model, clone_function=lambda layer: instead.get(id(layer)) or type(layer).from_config(layer.get_config())
    )
    copy.set_weights(model.get_weights())
    finish_weights(copy)
    return copy


def _in_memory(model: Any) -> Any:
    """Return a model that was handed over, one of Keras 3 by way of a file."""
    if isinstance(model, keras.Model):
        return _checked(model, "the model")
    if any(base.__module__.startswith("keras.") and base.__name__ == "Model" for base in type(model).__mro__):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{model.name}.keras"
            model.save(path)
            # Its code, if there is any, is in this process already.
            return convert_file(path, read_config(path)[0], where=f"model '{model.name}'", trust=True).model
    raise InputError(
        f"expected a Keras model, not {type(model).__module__}.{type(model).__name__}; give it, or {_ACCEPTED}"
    )


def _checked(model: Any, where: str) -> Any:
    """Return the model when it is a graph of layers."""
    if not isinstance(model, keras.Model):
        raise InputError(f"{where} holds a {type(model).__name__} and no Keras model; give {_ACCEPTED}")
    if isinstance(model, keras.Sequential) and not model.built:
        raise InputError(
            f"{where} is a sequential model that was never built: its layers have no shapes and no weights. "
            "Begin it with an Input layer, or call it on a picture, before it is saved."
        )
    if not getattr(model, "_is_graph_network", False):
        raise InputError(
            f"{where} is a subclassed model ({type(model).__name__}): what it does stands in its code, and there is no "
            "graph of layers to prune. Build it with the functional API, such as "
            "keras.Model(image, MyModel().call(image)) on an image = keras.Input(...)."
        )
    return model


def _load_saved_model(path: Path, *, trust: bool) -> Any:
    """Load a SavedModel with Keras' own record of its layers, as a model made of them anew."""
    if not (path / "saved_model.pb").exists():
        raise InputError(f"{path} is a folder without a saved_model.pb; give {_ACCEPTED}")
    if not (path / _METADATA).exists():
        raise InputError(
            f"{path} is a SavedModel of operations: without a {_METADATA} it does not tell its layers, and layers are "
            "what is pruned. tf.saved_model.save and Keras 3's model.export write that form. Save the model with "
            "model.save('model.keras') where it is built."
        )
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore")
        try:
            record = SavedMetadata.FromString((path / _METADATA).read_bytes())
            config = [json.loads(node.metadata) for node in record.nodes if node.metadata]
            if not trust:
                refuse_lambdas(config, path)
                refuse_strange_code(config, path)
            loaded = _checked(keras.models.load_model(path, compile=False), str(path))
            _refuse_revived(loaded, path)
            fresh = type(loaded).from_config(loaded.get_config())
            fresh.set_weights(loaded.get_weights())
            finish_weights(fresh)
        except InputError:
            raise
        except Exception as error:
            # A damaged protocol buffer or checkpoint fails in many ways, all of them about this folder.
            raise InputError(f"{path} cannot be loaded by tf_keras: {_first_line(error)} {_OTHER_WAY}") from error
    return fresh


def _refuse_revived(model: Any, path: Path) -> None:
    """Refuse layers of which the SavedModel has the operations only."""
    revived = [f"'{layer.name}'" for layer in model._flatten_layers() if "saved_model.load" in type(layer).__module__]
    if revived:
        raise InputError(f"{path} holds layers that are not those of Keras: {', '.join(revived)}. {_OTHER_WAY}")


def read_config(path: Path) -> tuple[Any, str]:
    """Return the config in a .keras or .h5 file, and the version of the Keras that wrote it.

    Raises:
        InputError: when the file is no whole model.
    """
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                return config, json.loads(archive.read("metadata.json"))["keras_version"]
        with h5py.File(path) as file:
            version = file.attrs.get("keras_version", "2")
            version = version.decode() if isinstance(version, bytes) else str(version)
            return json.loads(file.attrs["model_config"]), version
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a whole Keras model ({error}). It must hold the model, not its weights alone: "
            "save it with model.save(path)."
        ) from error


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else f"{line}."
