"""Keras 3 files: rebuilt layer by layer as tf_keras models, and compared with the original on random input.

screened (nothing unknown, no code) -> described by a process with Keras 3 -> rebuilt -> compared
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures.keras3_layers import WAY_OUT
from tfprune.architectures.keras3_process import sampled_run
from tfprune.architectures.keras3_rebuilding import Arrays, Rebuilder, counterparts
from tfprune.architectures.screening import objects_in
from tfprune.errors import InputError, located
from tfprune.keras import keras, tf
from tfprune.silence import quiet_stderr

TOLERANCE = 1e-5
"""Accepted difference of the outputs of both Keras versions, relative to their largest magnitude."""


@dataclass(frozen=True)
class Conversion:
    """A tf_keras model, and the largest difference of a tensor in it from its original, computed in `precision`."""

    model: Any
    difference: float
    precision: str


class Float32OnlyError(Exception):
    """An operation or a constant in the model knows float32 only."""


def convert_file(path: Path, config: Any, *, where: str, trust: bool = False) -> Conversion:
    """Make a tf_keras model that computes what the Keras 3 model in a file computes.

    Names of layers are kept; a layer of Keras 3 that takes several of tf_keras gives their names to the
    additional ones. Layers that compute in another float than float32 do so in float32 afterwards.

    Args:
        path: a `.keras` or `.h5` file of Keras 3.
        config: the model's config in it.
        where: what the user calls it, for messages.
        trust: run the code of Lambda layers.

    Raises:
        InputError: when Keras 3 is not installed or cannot read the file, when a layer has no counterpart,
            and when the two models compute something else.
    """
    with located(where):
        screen(config)
        try:
            return convert(describe_file(path, precision="float64", trust=trust), trust=trust)
        except Float32OnlyError:
            return convert(describe_file(path, precision="float32", trust=trust), trust=trust)


def screen(config: Any) -> None:
    """Refuse a config that names anything but what has a counterpart, before Keras 3 sees it; Lambda layers pass.

    Raises:
        InputError: with the names of the layers.
    """
    if config.get("class_name") not in _MODELS:
        raise InputError(
            f"the model is of the class {config.get('class_name')}; only functional and sequential models can be "
            f"rebuilt. {WAY_OUT}"
        )
    strange = []
    for layer in _layers(config):
        name, kind = _name(layer), layer.get("class_name")
        if kind in _MODELS or kind == "InputLayer":
            continue
        if kind not in counterparts(layer.get("module")):
            strange.append(f"'{name}' ({kind})")
        else:
            functions = [found for found in objects_in(layer) if found["class_name"] == "function"]
            strange += [f"'{name}' ({kind} with the function {found['config']})" for found in functions]
    if strange:
        plural = "s" if len(strange) > 1 else ""
        raise InputError(f"tf_keras has no counterpart of the layer{plural} {', '.join(strange)}. {WAY_OUT}")
    for found in objects_in(config):
        module, kind = found.get("module") or "keras", found["class_name"]
        if not kind.startswith("__") and module != "keras" and not module.startswith(_MODULES):
            raise InputError(f"the file names {module}.{kind}, which is not part of a Keras model. {WAY_OUT}")


_MODELS = ("Functional", "Sequential", "Model")
_MODULES = ("builtins", "keras.layers", "keras.models", "keras.initializers", "keras.regularizers", "keras.constraints")
_MODULES += ("keras.src.ops", "keras.src.models", "keras.src.applications.convnext")


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of all layers of a model and of the models in it."""
    for layer in (config.get("config") or {}).get("layers", ()):
        yield layer
        if layer.get("class_name") in _MODELS:
            yield from _layers(layer)


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("name") or (layer.get("config") or {}).get("name"))


def describe_file(path: Path, *, precision: str = "float64", trust: bool = False) -> dict[str, np.ndarray]:
    """Have a process with Keras 3 describe the model of a file, run in a precision; see `keras3_process`.

    Raises:
        InputError: when Keras 3 is not installed, or does not load the file.
    """
    root = Path(__file__).parents[2]
    settings = {"TF_USE_LEGACY_KERAS": "0", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    settings["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "described.npz"
        command = [sys.executable, "-m", "tfprune.architectures.keras3_process", str(path), str(out), precision]
        done = subprocess.run(
            command + ["--trust"] * trust, env=os.environ | settings, capture_output=True, text=True, check=False
        )
        if not out.exists():
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise InputError(f"the process that loads Keras 3 files ended with code {done.returncode} and said: {said}")
        with np.load(out) as file:
            arrays = dict(file)
    if "missing" in arrays:
        raise InputError(
            f"this is a Keras 3 file, and converting it needs Keras 3, which is not installed here "
            f"({arrays['missing']}). Install it beside tf_keras: pip install 'keras>=3'"
        )
    if "error" in arrays:
        raise InputError(f"Keras 3 cannot load this file: {arrays['error']}")
    return arrays


def convert(arrays: Arrays, *, trust: bool = False) -> Conversion:
    """Make the tf_keras model, in float32, of what `describe_file` returned.

    Raises:
        InputError: when a layer has no counterpart, or a tensor differs by more than `TOLERANCE`.
        Float32OnlyError: when the model cannot be run in the precision of the description.
    """
    description = json.loads(str(arrays["description"]))
    precision = description["precision"]
    rebuilder = Rebuilder(description, arrays, precision=precision, trust=trust)
    worst = _compare(rebuilder.model(), description, rebuilder.tensors, arrays)
    if precision != "float32":
        rebuilder = Rebuilder(description, arrays, precision="float32", trust=trust)
    return Conversion(rebuilder.model(), worst, precision)


def _compare(model: Any, description: Mapping[str, Any], tensors: Mapping[int, Any], arrays: Arrays) -> float:
    """Run the model on the input that the original was run on, and return the largest difference.

    In float64 every tensor of the graph has to be the same: behind a saturated softmax everything looks equal. In
    float32 that holds for the outputs, since rounding may well show in between.

    Raises:
        InputError: when it computes something else, with the first layer that differs.
    """
    graph, outputs = description["graph"], tf.nest.flatten(model.outputs)
    inputs = [tensors[item["tensor"]] for item in graph["input_layers"]]
    probe = keras.Model(inputs, [*outputs, *(tensors[number] for number in graph["probed"])])
    names = [f"output/{index}" for index in range(len(outputs))] + [f"sample/{number}" for number in graph["probed"]]
    try:
        with quiet_stderr(), tf.device("/CPU:0"):
            given = [tf.constant(arrays[f"input/{index}"]) for index in range(len(inputs))]
            answers = sampled_run(probe, len(outputs))(given)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        if description["precision"] == "float64":
            raise Float32OnlyError from error
        raise InputError(f"the model cannot be run in tf_keras: {str(error).strip().splitlines()[0]}") from error
    found = {name: difference(arrays[name], answer) for name, answer in zip(names, answers, strict=True)}
    judged = found if description["precision"] == "float64" else {name: found[name] for name in names[: len(outputs)]}
    worst = max(judged.values())
    if worst <= TOLERANCE:
        return worst
    differing = (
        description["layers"][call["layer"]]
        for call in graph["calls"]
        if any(found[f"sample/{number}"] > TOLERANCE for number in call["outputs"])
    )
    layer = next(differing, {"name": "?", "kind": "?"})
    raise InputError(
        f"the model computes something else in tf_keras: tensors differ by {worst:.1e} of their scale, "
        f"and {TOLERANCE:.0e} is accepted. The first layer that differs is '{layer['name']}' ({layer['kind']}). "
        f"{WAY_OUT}"
    )


def difference(expected: np.ndarray, found: Any) -> float:
    """Return the largest difference of two arrays, of each picture relative to its scale; infinite for other shapes.

    >>> difference(np.array([[1.0, -4.0], [100.0, 100.0]]), np.array([[1.0, -3.0], [100.0, 101.0]]))
    0.25
    """
    expected, found = (np.atleast_1d(np.asarray(item, np.float64)) for item in (expected, found))
    if expected.shape != found.shape or not (np.isfinite(expected) == np.isfinite(found)).all():
        return float("inf")
    expected, found = (np.nan_to_num(item).reshape(len(item), -1) for item in (expected, found))
    scale = np.maximum(np.abs(expected).max(axis=1, initial=0.0), np.finfo(np.float32).tiny)
    return float((np.abs(expected - found).max(axis=1, initial=0.0) / scale).max(initial=0.0))
