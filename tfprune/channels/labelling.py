"""The walk through a model that asks the rule of every call; it only reads the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfprune.channels.graph import Call, ChannelGraph, is_graph, nodes_of
from tfprune.channels.labels import Labels
from tfprune.channels.rules import find_rule
from tfprune.errors import InputError
from tfprune.keras import tf


def label_channels(model: Any, *, opaque: Collection[str] = ()) -> ChannelGraph:
    """Label all channels of a functional model.

    Args:
        model: a functional or sequential tf_keras model, nested ones included.
        opaque: paths of calls that are to freeze what they touch, whatever their rule says.

    Raises:
        InputError: when the model is not a graph of layers (a subclassed model).
    """
    if not is_graph(model):
        raise InputError(
            f"'{getattr(model, 'name', model)}' is a {type(model).__name__}, and channels can only be followed through "
            "a functional or built sequential tf_keras model. Build it with keras.Model(inputs, outputs)."
        )
    graph = ChannelGraph(model)
    inputs = []
    for tensor in model.inputs:
        width = tensor.shape[-1] or 1
        labels = graph.space.frozen(width, "model input")
        inputs.append(labels.reshape((1,) * (len(tensor.shape) - 1) + (-1,)))
    outputs = _walk_labels(graph, model, inputs, "", frozenset(opaque))
    for name, labels in zip(model.output_names, outputs, strict=True):
        graph.space.freeze(labels, f"'{name}': model output")
    return graph


def _walk_labels(
    graph: ChannelGraph, model: Any, inputs: list[Labels], prefix: str, opaque: frozenset[str]
) -> list[Labels]:
    """Label the inside of a model, given the labels of its inputs; return those of its outputs.

    Tensors that are labelled already are met again where a nested model is called twice, or on its own
    input, or shares tensors with another one. The weights are the same, hence so are the channels: the
    inputs are united, and calls that are known need no walking.
    """
    for tensor, labels in zip(model.inputs, inputs, strict=True):
        graph.space.unite(graph.tensors.setdefault(id(tensor), labels), labels)
    for node in nodes_of(model):
        if all(id(tensor) in graph.tensors for tensor in tf.nest.flatten(node.outputs)):
            continue
        path = prefix + node.layer.name
        call = Call(graph, node, path)
        graph.paths[id(node)] = path
        if path in opaque:
            outputs = call.opaque("found by the check not to keep its channels apart")
        elif is_graph(node.layer):
            inner = [call.channels(i).reshape((1,) * (x.ndim - 1) + (-1,)) for i, x in enumerate(call.inputs)]
            outputs = _walk_labels(graph, node.layer, inner, f"{path}/", opaque)
        else:
            outputs = _apply_rule(call)
        for tensor, labels in zip(call.outputs, outputs, strict=True):
            graph.tensors[id(tensor)] = labels
    return [graph.tensors[id(tensor)] for tensor in model.outputs]


def _apply_rule(call: Call) -> list[Labels]:
    outputs = find_rule(call.layer)(call)
    return outputs if isinstance(outputs, list) else [outputs]
