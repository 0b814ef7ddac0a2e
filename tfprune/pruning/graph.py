"""A flat view of a functional model's graph, nested models included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras, tf

from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

_FILTERS_BEFORE_LAST = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv2D,
)


@dataclass(frozen=True)
class Call:
    """One use of a layer: labels of the tensors it takes and gives, and whether it enlarges the picture."""

    path: str
    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    grows: bool


def is_nested(layer: Any) -> bool:
    """Return whether a layer is itself a functional model."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "_is_graph_network", False))


def walk_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for all layers once, in model order; a nested model's are `MODEL/LAYER`.

    The layer inside a tfmot wrapper goes by its own name, and one of several nested models by its first path.
    """
    seen: set[int] = set()
    for path, layer in _walk_all(model, ""):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield path, layer


def _walk_all(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        name = layer.layer.name if isinstance(layer, PruneLowMagnitude) else layer.name
        if is_nested(layer):
            yield from _walk_all(layer, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", layer


def trace_calls(model: Any) -> tuple[list[Call], list[int]]:
    """Return all calls of a functional model in order of computation, and the labels of its outputs.

    Raises:
        InputError: when the model is not functional (a subclassed one has no graph to look at).
    """
    if not getattr(model, "_is_graph_network", False):
        raise InputError(
            f"model '{model.name}' is not functional ({type(model).__name__}), so its layers cannot be wrapped. "
            "Build it with keras.Model(inputs, outputs), or keras.Sequential that begins with a keras.Input."
        )
    calls: list[Call] = []
    labels = itertools.count()
    paths = {id(layer): path for path, layer in walk_layers(model)}
    outputs = _trace(model, paths, [next(labels) for _ in model.inputs], calls, labels)
    return calls, outputs


def _trace(
    model: Any, paths: dict[int, str], given: Sequence[int], calls: list[Call], labels: Iterator[int]
) -> list[int]:
    known = dict(zip(map(id, model.inputs), given, strict=True))
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            layer = node.layer
            taken = [known[id(tensor)] for tensor in node.keras_inputs]
            results = tf.nest.flatten(node.outputs)
            if is_nested(layer):
                made = _trace(layer, paths, taken, calls, labels)
            else:
                made = [next(labels) for _ in results]
                grows = _enlarges(layer, node.keras_inputs, results)
                calls.append(Call(paths[id(layer)], layer, tuple(taken), tuple(made), grows))
            known.update(zip(map(id, results), made, strict=True))
    return [known[id(tensor)] for tensor in model.outputs]


def _enlarges(layer: Any, given: Sequence[Any], results: Sequence[Any]) -> bool:
    """Return whether pictures come out with more pixels, other than by a border around them."""
    if isinstance(layer, keras.layers.ZeroPadding2D) or str(getattr(layer, "symbol", "")).endswith("pad"):
        return False
    return 0 < _area(given) < _area(results)  # what was no picture, as in a gate that is reshaped, is not enlarged


def _area(tensors: Sequence[Any]) -> int:
    """Return the largest number of pixels of a tensor, 0 when unknown."""
    areas = [tensor.shape[1:-1] for tensor in tensors if tensor.shape.rank == 4]
    return max((math.prod(area) for area in areas if None not in area), default=0)


def prunable_kernel(layer: Any) -> str | None:
    """Return the name of the weight that is masked in a layer, or None.

    It is what tfmot's registry prunes, and the kernel of a depthwise convolution, in which tfmot
    prunes nothing.
    """
    if type(layer) is keras.layers.DepthwiseConv2D:
        return "depthwise_kernel"
    names = PruneRegistry._LAYERS_WEIGHTS_MAP.get(type(layer), [])
    return names[0] if len(names) == 1 and "." not in names[0] else None


def filter_axis(layer: Any) -> int:
    """Return the axis of the filters in a layer's kernel: -2 for transposed and depthwise, else -1."""
    return -2 if isinstance(layer, _FILTERS_BEFORE_LAST) else -1


def norms_after(calls: Sequence[Call]) -> dict[str, tuple[str, Any]]:
    """Return for each layer used once the batch norm (path, layer) that directly follows it, if one does."""
    uses: dict[str, int] = {}
    for call in calls:
        uses[call.path] = uses.get(call.path, 0) + 1
    makers = {label: call for call in calls for label in call.outputs}
    found = {}
    for call in calls:
        maker = makers.get(call.inputs[0]) if call.inputs else None
        is_norm = isinstance(call.layer, keras.layers.BatchNormalization) and uses[call.path] == 1
        if is_norm and maker is not None and uses[maker.path] == 1:
            found[maker.path] = (call.path, call.layer)
    return found
