"""A model's calls made again as one flat graph, its nested models opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tfprune.channels.copying import added_tensors, copy_layer, insert_added, restore_initializers
from tfprune.channels.graph import is_graph, nodes_of
from tfprune.channels.sampling import map_arguments
from tfprune.keras import finish_weights, keras, tf

MakeCall = Callable[[Any, Any, Any], Any]
"""`make(node, args, kwargs) -> tensors`: makes the call of a node on new tensors."""


def wire_flat(
    model: Any, make: MakeCall, *, enter: Callable[[Any], Any] = lambda tensor: tensor, keep_added: bool = True
) -> Any:
    """Return a functional model without nested ones, each call of a layer made by `make`, on inputs that `enter`.

    Inputs and outputs have the structure of the model's, dictionaries included.

    Args:
        keep_added: what `model.add_loss` and `model.add_metric` added is kept, that of nested models too.
    """
    values: dict[int, Any] = {}
    added: list[Any] = []

    def through(graph: Any, given: Sequence[Any]) -> list[Any]:
        values.update(zip(map(id, graph.inputs), given, strict=True))
        for node in nodes_of(graph) if keep_added else answering_nodes(graph):
            if is_graph(node.layer):
                made = through(node.layer, [values[id(tensor)] for tensor in node.keras_inputs])
            else:
                made = tf.nest.flatten(make(node, *map_arguments(node, values)))
            values.update(zip(map(id, tf.nest.flatten(node.outputs)), made, strict=True))
        added.extend(values[id(tensor)] for tensor in added_tensors(graph) if keep_added)
        return [values[id(tensor)] for tensor in graph.outputs]

    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names, strict=True)
    ]
    outputs = through(model, [enter(tensor) for tensor in inputs])
    ends = ((model._nested_inputs, inputs), (model._nested_outputs, outputs))
    flat = keras.Model(*(tf.nest.pack_sequence_as(structure, tensors) for structure, tensors in ends), name=model.name)
    insert_added(flat, added)
    return flat


class Copies:
    """Layers like those of a model, with their weights: one for each, however often it is called."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, Any]] = {}
        self._names: set[str] = set()

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        """Make the call of a node with the copy of its layer."""
        return self.call(node.layer, args, kwargs)

    def call(
        self,
        layer: Any,
        args: Any,
        kwargs: Any,
        *,
        weights: Sequence[np.ndarray] | None = None,
        wrap: Callable[[Any], Any] = lambda copy: copy,
        **changes: Any,
    ) -> Any:
        """Call the copy of a layer, made with changes in its config, other weights, or in a wrapper."""
        if id(layer) in self._made:
            return self._made[id(layer)][1](*args, **kwargs)
        # TensorFlow rounds in float32 only; what was trained in mixed precision goes on without it
        copy = copy_layer(layer, {"name": self.unique(layer.name), **changes}, dtype="float32")
        copy._trainable = layer._trainable
        made = (called := wrap(copy))(*args, **kwargs)
        restore_initializers(layer, copy)
        copy.set_weights(layer.get_weights() if weights is None else weights)
        finish_weights(copy)
        self._made[id(layer)] = (layer, called)
        return made

    def unique(self, name: str) -> str:
        """Return a name that no layer has yet: those of nested models may be alike."""
        free, number = name, 1
        while free in self._names:
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free


def answering_nodes(model: Any) -> list[Any]:
    """Return the calls that a model's outputs hang on, in an order of execution: none of an added loss alone."""
    needed: dict[int, Any] = {}
    waiting = [tensor.node for tensor in model.outputs]
    while waiting:
        node = waiting.pop()
        if id(node) not in needed:
            needed[id(node)] = node
            waiting.extend(node.parent_nodes)
    return [node for node in nodes_of(model) if id(node) in needed]


def readers_of(model: Any, nodes: Iterable[Any]) -> dict[int, list[Any]]:
    """Return id of a tensor -> those of a flat model's calls that read it; None stands for the model's output."""
    readers: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.keras_inputs:
            readers.setdefault(id(tensor), []).append(node)
    for tensor in model.outputs:
        readers.setdefault(id(tensor), []).append(None)
    return readers
