"""What a saved model would run: the config in a file is read before Keras makes objects of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras

_MODULES = ("builtins.", "keras.", "tf_keras.", "tfprune.")
_ARITHMETIC = ("math.", "nn.", "image.", "linalg.", "signal.", "bitwise.", "random.", "quantization.", "__operators__.")
_ARITHMETIC += ("keras.activations.", "keras.backend.")
_NOT_ARITHMETIC = ("print", "py_function", "numpy_function", "load_library", "load_op_library", "function", "Graph")
_TRUST = "If you trust whoever made the file, add --trust (in Python: load_model(path, trust=True))."


def objects_in(config: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in a model's config that Keras would make an object of; losses and metrics are left out.

    >>> [found["class_name"] for found in objects_in({"layers": [{"class_name": "ReLU", "config": {}}]})]
    ['ReLU']
    """
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for key, value in config.items():
            if key != "compile_config":  # nothing is compiled at loading
                yield from objects_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from objects_in(value)


def refuse_lambdas(config: Any, path: Path) -> None:
    """Refuse a config with Python code in it.

    Raises:
        InputError: with the names of the Lambda layers.
    """
    lambdas = [found for found in objects_in(config) if found["class_name"] in ("Lambda", "__lambda__")]
    names = sorted({_name(found) for found in lambdas} - {"__lambda__"})
    if lambdas:
        raise InputError(
            f"{path} holds Lambda layers ({', '.join(names) or 'unnamed'}); loading them would run code from the file. "
            f"{_TRUST} Else replace them by named layers, or build the model in a script and hand it over in memory."
        )


def refuse_strange_code(config: Any, path: Path) -> None:
    """Refuse a tf_keras config whose objects would be imported from elsewhere, or could touch files.

    Raises:
        InputError: with the name of the first such layer.
    """
    for found in objects_in(config):
        kind, module = found["class_name"], found.get("module")
        known = keras.saving.get_registered_object(found.get("registered_name") or kind) is not None
        if module and not known and not f"{module}.".startswith(_MODULES):
            raise InputError(
                f"{path}: '{_name(found)}' is a {module}.{kind} and not Keras'; loading it would import that module. "
                "Import it first, registered with keras.saving.register_keras_serializable, and call load_model. "
                f"{_TRUST}"
            )
        called = _config(found).get("function") if kind in ("TFOpLambda", "SlicingOpLambda") else None
        if isinstance(called, str) and not _is_arithmetic(called):
            raise InputError(f"{path}: layer '{_name(found)}' calls tf.{called}, which is not arithmetic. {_TRUST}")


def _is_arithmetic(function: str) -> bool:
    function = function.removeprefix("compat.v1.")
    return function.startswith(_ARITHMETIC) or ("." not in function and function not in _NOT_ARITHMETIC)


def _config(found: dict[str, Any]) -> dict[str, Any]:
    return found["config"] if isinstance(found.get("config"), dict) else {}


def _name(found: dict[str, Any]) -> str:
    return str(_config(found).get("name", found["class_name"]))
