"""What Keras 3 knows about a model file, told by a process of its own, since a process has one Keras only.

    python -m tfprune.architectures.keras3_process FILE OUT.npz float64 [--trust]

OUT.npz holds `description` (JSON: the graph, and class, config and weights of every layer), the weights, random
inputs, and what the model makes of them. `tfprune.architectures.keras3` starts this process and reads that file.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_VALUES = 1024
"""Of the output of each inner layer about as many values are kept per picture, evenly spread."""

_RANGES = 3
_OPEN_SIZES = (64, 128, 256)
_FLOATS = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


def describe_model(model: Any, *, precision: str) -> dict[str, Any]:
    """Return description, weights, inputs and outputs of a model of Keras 3, as arrays by name.

    The model is run in `precision`, whatever it computes in. In float64, rounding cannot be taken for a difference.
    """
    model = in_precision(model, precision)
    writer = _Description()
    description = {"name": model.name, "precision": precision, "graph": writer.graph(model), "layers": writer.layers}
    arrays = {f"weight/{index}": weight for index, weight in enumerate(writer.weights)}
    arrays |= _run(_functional(model), description["graph"]["probed"])
    return {"description": np.array(json.dumps(description)), **arrays}


class _Description:
    """Collects the layers of a model and of the models in it, each once however often it is called."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.weights: list[np.ndarray] = []
        self._keys: dict[int, int] = {}
        self._tensors: dict[int, int] = {}

    def graph(self, model: Any) -> dict[str, Any]:
        """Return inputs, calls in an order in which they can be made, and outputs, of a functional model."""
        functional = _functional(model)
        inputs = []
        for tensor in functional.inputs:
            config = tensor._keras_history.operation.get_config()
            inputs.append({**config, "tensor": self._tensor(tensor)})
        calls, probed = [], []
        for node in _nodes(functional):
            outputs = [self._tensor(tensor) for tensor in node.output_tensors]
            arguments = {name: self._value(getattr(node.arguments, name)) for name in ("args", "kwargs")}
            calls.append({"layer": self._layer(node.operation), **arguments, "outputs": outputs})
            probed += outputs
        structures = {"inputs": self._value(functional.input), "outputs": self._value(functional.output)}
        return {"input_layers": inputs, "calls": calls, "probed": probed, **structures}

    def _layer(self, layer: Any) -> int:
        """Return the number of a layer, and describe it at the first time."""
        import keras

        if id(layer) not in self._keys:
            self._keys[id(layer)] = key = len(self.layers)
            self.layers.append(record := {"name": layer.name, "kind": type(layer).__name__, "weights": []})
            record["quantized"] = getattr(layer, "quantization_mode", None)
            if isinstance(layer, keras.Model):
                record["graph"] = self.graph(layer)
                return key
            serialized = keras.saving.serialize_keras_object(layer)
            record |= {"module": serialized["module"], "config": serialized["config"], "defaults": _defaults(layer)}
            for weight in getattr(layer, "weights", ()):
                record["weights"].append(len(self.weights))
                value = np.asarray(weight)
                self.weights.append(value.astype(np.float32) if value.dtype == np.float64 else value)
        return self._keys[id(layer)]

    def _tensor(self, tensor: Any) -> int:
        return self._tensors.setdefault(id(tensor), len(self._tensors))

    def _value(self, value: Any) -> Any:
        """Return an argument of a call in JSON's types; tensors of the graph become their numbers."""
        import keras

        if isinstance(value, keras.KerasTensor):
            return {"__tensor__": self._tensor(value)}
        if isinstance(value, dict):
            return {key: self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        if isinstance(value, slice):
            return {"__slice__": [self._value(part) for part in (value.start, value.stop, value.step)]}
        if value is Ellipsis:
            return {"__ellipsis__": True}
        if isinstance(value, str | int | float | bool | None):
            return value
        try:
            return np.asarray(value).tolist()
        except (TypeError, ValueError):
            return {"__unknown__": type(value).__name__}


def _functional(model: Any) -> Any:
    """Return the graph behind a functional or sequential model.

    Raises:
        ValueError: when there is none.
    """
    found = getattr(model, "_functional", model)
    if not hasattr(found, "_nodes_by_depth"):
        raise ValueError(
            f"model '{model.name}' is a {type(model).__name__} without a graph of layers, or was never built"
        )
    return found


def _nodes(functional: Any) -> list[Any]:
    by_depth = functional._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _defaults(layer: Any) -> dict[str, Any]:
    """Return the options of a layer's class that have a plain default: only others need a counterpart."""
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    found = {item.name: item.default for item in parameters if item.default is not inspect.Parameter.empty}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float | bool | None)}


def in_precision(model: Any, precision: str) -> Any:
    """Return a copy of the model in which every layer has the precision."""
    import keras
    from keras.src.saving.serialization_lib import ObjectSharingScope

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            inner = "dtype" if value.get("class_name") == "DTypePolicy" or key == "dtype" else ""
            return {name: changed(item, inner or name) for name, item in value.items() if name != "compile_config"}
        if isinstance(value, list | tuple):
            return [changed(item, key) for item in value]
        return precision if key == "dtype" and value in _FLOATS else value

    with ObjectSharingScope():
        config = keras.saving.serialize_keras_object(model)
    with ObjectSharingScope():
        # What the file holds was loaded before: what is not trusted did not come here.
        same = keras.saving.deserialize_keras_object(changed(config), safe_mode=False)
    same.set_weights(model.get_weights())
    for layer in same._flatten_layers():
        if hasattr(layer, "finalize_state"):  # constants that are computed from weights
            layer.finalize_state()
    return same


def _run(functional: Any, probed: list[int]) -> dict[str, Any]:
    """Run the model on random pictures; return inputs, outputs, and samples of every layer's output."""
    import keras

    import tensorflow as tf

    inner = [tensor for node in _nodes(functional) for tensor in node.output_tensors]
    probe = keras.Model(functional.inputs, [*functional.outputs, *inner])
    count, dtypes = len(functional.outputs), [str(tensor.dtype) for tensor in functional.inputs]
    reasons = []
    for size in _OPEN_SIZES:
        shapes = [
            (tensor.shape[0] or _RANGES, *(edge or size for edge in tensor.shape[1:])) for tensor in functional.inputs
        ]
        inputs = [
            random_input(shape, dtype, seed) for seed, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        ]
        try:
            answers = [np.asarray(answer) for answer in sampled_run(probe, count)(inputs)]
        except (ValueError, TypeError, tf.errors.OpError) as error:
            reasons.append(f"{size} pixels: {_first_line(error)}")
            continue
        arrays = {f"input/{index}": value for index, value in enumerate(inputs)}
        arrays |= {f"output/{index}": answer for index, answer in enumerate(answers[:count])}
        return arrays | {f"sample/{number}": answer for number, answer in zip(probed, answers[count:], strict=True)}
    raise ValueError(f"it cannot be run on random input ({'; '.join(reasons)})")


def random_input(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Return an input whose pictures have values as pixels have them, in 0..1, and around zero, in turn."""
    rng = np.random.default_rng(seed)
    if "float" not in dtype:
        return rng.integers(0, 256, shape).astype(dtype)
    draws = (
        lambda: rng.uniform(0, 255, shape[1:]),
        lambda: rng.uniform(0, 1, shape[1:]),
        lambda: rng.standard_normal(shape[1:]),
    )
    return np.stack([draws[index % _RANGES]() for index in range(shape[0])]).astype(np.float32).astype(dtype)


def sampled_run(probe: Any, outputs: int) -> Any:
    """Return a function that runs a model and keeps its first outputs whole, of the others a sample each."""
    import tensorflow as tf

    def sample(value: Any) -> Any:
        rows = tf.reshape(value, [tf.shape(value)[0] if len(value.shape) else 1, -1])
        return rows[:, :: tf.maximum(1, tf.shape(rows)[1] // SAMPLE_VALUES)]

    @tf.function(jit_compile=False)
    def run(inputs: list[Any]) -> list[Any]:
        values = probe(inputs, training=False)
        values = values if isinstance(values, list | tuple) else [values]
        return [value if index < outputs else sample(value) for index, value in enumerate(values)]

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(file: str, out: str, precision: str, *options: str) -> None:
    """Describe the model in `file`, in float32 when the precision asked for fails; OUT may hold `error` instead."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import keras

        if not keras.__version__.startswith("3"):
            raise ImportError(f"keras {keras.__version__} is installed")
        model = keras.saving.load_model(file, compile=False, safe_mode="--trust" not in options)
        arrays = _described(model, precision)
    except ImportError as error:
        arrays = {"missing": np.array(str(error))}
    except Exception as error:
        # Whatever Keras has against the file is told to the user by the process that asked.
        arrays = {"error": np.array(f"{type(error).__name__}: {_first_line(error)}")}
    with Path(out).open("wb") as file_out:
        np.savez(file_out, **arrays)


def _described(model: Any, precision: str) -> dict[str, Any]:
    import tensorflow as tf

    try:
        return describe_model(model, precision=precision)
    except (ValueError, TypeError, tf.errors.OpError):
        if precision == "float32":
            raise
        return describe_model(model, precision="float32")


if __name__ == "__main__":
    main(*sys.argv[1:])
