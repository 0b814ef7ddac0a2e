"""Which tensors are in memory while each call of a model runs, batch of one.

Calls run in Keras' order. While one runs, its inputs, its outputs and all that later calls still need
are alive. A norm, activation or reshape writes over its input when nobody else reads that, as the
converter folds it into the layer before. Removing channels changes sizes, and not who is alive when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfprune.channels.graph import is_graph, nodes_of
from tfprune.keras import tf

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Moment:
    """A call that runs (empty before the first) and the ids of the symbolic tensors alive then."""

    layer: str
    alive: tuple[int, ...]

    def size(self, sizes: Mapping[int, int]) -> int:
        """Return the values alive, given those of each tensor."""
        return sum(sizes[key] for key in self.alive)


_IN_PLACE = (
    *("BatchNormalization", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Rescaling"),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Reshape", "Flatten"),
)


def trace_moments(model: Any, shapes: Mapping[int, Shape]) -> tuple[Moment, ...]:
    """Return what is alive before the first call and during each, in order of execution.

    Args:
        model: a functional model.
        shapes: id of symbolic tensor -> its shape for a batch of one.
    """
    alias: dict[int, int] = {}
    calls = list(_steps(model, alias, set()))
    steps = [(node.keras_inputs, tf.nest.flatten(node.outputs), node.layer) for node in calls]

    def buffer(tensor: Any) -> int:
        key = id(tensor)
        while key in alias:
            key = alias[key]
        return key

    readers: dict[int, int] = {}
    for inputs, _, _ in steps:
        for key in {buffer(tensor) for tensor in inputs}:
            readers[key] = readers.get(key, 0) + 1
    for tensor in model.outputs:
        readers[buffer(tensor)] = readers.get(buffer(tensor), 0) + 1
    for inputs, outputs, layer in steps:
        if type(layer).__name__ in _IN_PLACE and len(outputs) == 1 and readers[buffer(inputs[0])] == 1:
            same = math.prod(shapes[id(inputs[0])]) == math.prod(shapes[id(outputs[0])])
            if same:
                alias[id(outputs[0])] = buffer(inputs[0])
                readers[buffer(inputs[0])] = readers.pop(id(outputs[0]), 0)
    return tuple(_sweep(steps, buffer, model))


def _sweep(steps: list[tuple[Any, Any, Any]], buffer: Callable[[Any], int], model: Any) -> Iterator[Moment]:
    last = {}
    for step, (given, made, _) in enumerate(steps):
        for tensor in [*given, *made]:
            last[buffer(tensor)] = step
    for tensor in model.outputs:
        last[buffer(tensor)] = len(steps)
    alive = dict.fromkeys(buffer(tensor) for tensor in model.inputs)
    yield Moment("", tuple(alive))
    for step, (_, made, layer) in enumerate(steps):
        alive.update(dict.fromkeys(buffer(tensor) for tensor in made))
        yield Moment(layer.name, tuple(alive))
        alive = {key: None for key in alive if last[key] > step}


def _steps(model: Any, alias: dict[int, int], seen: set[int]) -> Iterator[Any]:
    """Yield the calls in order; a nested model is walked at its first call and one step after that.

    `alias` is told which tensors inside a nested model are the same as one outside.
    """
    for node in nodes_of(model):
        if not is_graph(node.layer) or id(node.layer) in seen:
            yield node
            continue
        seen.add(id(node.layer))
        for inner, outer in zip(node.layer.inputs, node.keras_inputs, strict=True):
            if inner is not outer:  # a model may be called on its own input
                alias[id(inner)] = id(outer)
        yield from _steps(node.layer, alias, seen)
        for inner, outer in zip(node.layer.outputs, tf.nest.flatten(node.outputs), strict=True):
            alias[id(outer)] = id(inner)
