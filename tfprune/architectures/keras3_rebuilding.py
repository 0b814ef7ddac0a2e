"""A tf_keras model from the description of a Keras 3 model, layer by layer and call by call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfprune.architectures.keras3_layers import LAYERS, Counterpart, Source
from tfprune.architectures.keras3_operations import OPERATIONS
from tfprune.errors import InputError
from tfprune.keras import keras, tf

Arrays = Mapping[str, np.ndarray]


def counterparts(module: str | None) -> dict[str, Callable[[Source], Any]]:
    """Return the table for the classes of a module of Keras 3; old `.h5` files name none."""
    if module is None:
        return {**OPERATIONS, **LAYERS}
    return OPERATIONS if module.startswith("keras.src.ops") else LAYERS


class Rebuilder:
    """Makes the layers of a description and calls them as it says, models in models as parts of one flat graph.

    `tensors` has every tensor of the graph by its number.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Arrays, *, precision: str, trust: bool) -> None:
        self.tensors: dict[int, Any] = {}
        self._description, self._arrays, self._precision, self._trust = description, arrays, precision, trust
        self._layers = description["layers"]
        self._names = _names(description)
        self._taken = set(self._names.values())
        self._made: dict[int, Counterpart] = {}

    def model(self) -> Any:
        """Return the model, with the weights of its original."""
        policy = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy(self._precision)
        try:
            return self._model(self._description["graph"])
        finally:
            keras.mixed_precision.set_global_policy(policy)

    def _model(self, graph: Mapping[str, Any]) -> Any:
        for item in graph["input_layers"]:
            if item.get("sparse") or item.get("ragged") or item.get("optional"):
                raise InputError(f"input '{item['name']}' is sparse, ragged or optional; only dense inputs are taken")
            dtype = self._precision if "float" in item["dtype"] else item["dtype"]
            name = _scope_name(item["name"])
            self.tensors[item["tensor"]] = keras.Input(batch_shape=item["batch_shape"], dtype=dtype, name=name)
        self._call_all(graph, {})
        model = keras.Model(
            self._value(graph["inputs"]), self._value(graph["outputs"]), name=_scope_name(self._description["name"])
        )
        for key, made in self._made.items():
            if made.layer is not None:
                expected, given = [tuple(w.shape) for w in made.layer.weights], [w.shape for w in made.weights]
                if expected != given:
                    raise self._source(key).refuse(f"has weights of {given}, and its counterpart of {expected}")
                made.layer.set_weights(made.weights)
        return model

    def _call_all(self, graph: Mapping[str, Any], context: dict[str, Any]) -> None:
        for call in graph["calls"]:
            args = self._value(call["args"])
            kwargs = {name: value for name, value in self._value(call["kwargs"]).items() if value is not None}
            inner = self._layers[call["layer"]].get("graph")
            if inner is not None:
                outputs = self._call_model(call["layer"], inner, args, context | kwargs)
            else:
                outputs = self._call_layer(call["layer"], args, kwargs, context)
            if len(outputs) != len(call["outputs"]):
                source = self._source(call["layer"])
                raise source.refuse(f"has {len(call['outputs'])} outputs, and its counterpart {len(outputs)}")
            self.tensors.update(zip(call["outputs"], outputs, strict=True))

    def _call_model(self, key: int, graph: Mapping[str, Any], args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Call the layers of a model in the model; whether it trains (`training=False`) holds for all of them."""
        given, inputs = tf.nest.flatten(args), _numbers(graph["inputs"])
        if len(given) != len(inputs) or set(kwargs) - {"training"}:
            raise self._source(key).refuse(f"is called with {len(given)} tensors and the arguments {list(kwargs)}")
        self.tensors.update(zip(inputs, given, strict=True))
        self._call_all(graph, kwargs)
        return [self.tensors[number] for number in _numbers(graph["outputs"])]

    def _call_layer(self, key: int, args: list[Any], kwargs: dict[str, Any], context: dict[str, Any]) -> list[Any]:
        source = self._source(key)
        try:
            if key not in self._made:
                convert = counterparts(self._layers[key]["module"]).get(source.kind)
                if convert is None:
                    raise source.refuse("has no counterpart in tf_keras")
                made = convert(source)
                self._made[key] = made if isinstance(made, Counterpart) else Counterpart(made)
            call = self._made[key].call
            if isinstance(call, keras.layers.Layer) and "training" in inspect.signature(call.call).parameters:
                kwargs = context | kwargs
            return tf.nest.flatten(call(*args, **kwargs))
        except (ValueError, TypeError, AttributeError, KeyError, NameError, tf.errors.OpError) as error:
            lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception encountered")]
            raise source.refuse(f"cannot be rebuilt ({type(error).__name__}: {' '.join(lines[:1])})") from error

    def _source(self, key: int) -> Source:
        layer = self._layers[key]
        weights = [self._arrays[f"weight/{index}"] for index in layer["weights"]]
        config = {**layer.get("config", {}), "name": self._names.get(key, layer["name"])}
        taken, defaults = self._taken, layer.get("defaults", {})
        source = Source(config["name"], layer["kind"], config, defaults, weights, taken, self._precision, self._trust)
        if layer["quantized"]:
            raise source.refuse(f"is quantized ({layer['quantized']}); save the model before that")
        return source

    def _value(self, value: Any) -> Any:
        """Return an argument as it was: tensors for their numbers, slices and the ellipsis."""
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "__tensor__" in value:
            return self.tensors[value["__tensor__"]]
        if "__slice__" in value:
            return slice(*value["__slice__"])
        if "__ellipsis__" in value:
            return Ellipsis
        return {key: self._value(item) for key, item in value.items()}


def _names(description: Mapping[str, Any]) -> dict[int, str]:
    """Return a name for every layer: its own, or when another has that too, behind the name of its model."""
    layers, names, taken = description["layers"], {}, {""}
    graphs = [(description["graph"], "")]
    for graph, model in graphs:
        taken.update(_scope_name(item["name"]) for item in graph["input_layers"] if not model)
        for key in (call["layer"] for call in graph["calls"]):
            if key in names:
                continue
            own = name = _scope_name(layers[key]["name"])
            number = 0
            while name in taken:
                name = f"{model or 'model'}_{own}" + (f"_{number}" if number else "")
                number += 1
            names[key] = name
            if "graph" in layers[key]:
                graphs.append((layers[key]["graph"], own))
            else:
                taken.add(name)
    return names


def _scope_name(name: str) -> str:
    """Return a name that TensorFlow takes for a scope.

    >>> _scope_name("first conv/b")
    'first_conv_b'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-") or "layer"


def _numbers(structure: Any) -> list[int]:
    """Return the numbers of the tensors in a structure, in the order of `tf.nest.flatten`."""
    if isinstance(structure, dict) and "__tensor__" in structure:
        return [structure["__tensor__"]]
    items = [structure[key] for key in sorted(structure)] if isinstance(structure, dict) else structure
    return [number for item in items for number in _numbers(item)]
