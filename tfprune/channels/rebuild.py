"""A new, narrower model: every call of the old one made again, on layers with fewer channels.

The graph is wired anew from the recorded calls, not from the model's config: picks of channels have
to be put in, and what a lambda does need not be in any config.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from tfprune.channels.copying import added_tensors, copy_layer, insert_added, is_op_layer, restore_settings
from tfprune.channels.graph import ChannelGraph, Gather, Move, is_graph, nodes_of
from tfprune.channels.sampling import Left, is_symbolic, map_arguments, map_tensors
from tfprune.errors import InputError, TfpruneError
from tfprune.keras import finish_weights, keras, tf

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class CannotRebuildError(TfpruneError):
    """A call cannot be made: what is left of a tensor is no array, or too little for it.

    `suspects` has its path: `remove_channels` freezes it and plans again.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"'{path}' cannot be called with what is left of its channels. Name it in the plan's 'opaque', or write a "
            "rule for its layer."
        )
        self.suspects = [path]


@dataclass(frozen=True)
class _Routed:
    """A tensor that was not built: its values are those of `source`, moved to where `index` says.

    `index` holds channels of the *original* source, and has size 1 along axes that are not moved.
    """

    source: Any
    labels: np.ndarray
    index: np.ndarray


def rebuild(graph: ChannelGraph, keep: np.ndarray, *, dtype: str | None = None) -> Any:
    """Return a new model with the channels whose labels are kept, and their weights.

    Names, trainable flags, regularizers, constraints, dtype policies, nested models and the structure
    of inputs and outputs stay; a compiled optimizer and its state do not.

    Args:
        graph: the labelled model.
        keep: bool per label of the graph's space.
        dtype: for a twin to compare with: the dtype policy of every layer; calls that always train do not.
    """
    rebuilder = Rebuilder(graph, keep, dtype=dtype)
    rebuilder.fill()
    return rebuilder.model


class Rebuilder:
    """Builds the layers and the graph of the new model; `fill` gives it its weights, as often as asked."""

    def __init__(self, graph: ChannelGraph, keep: np.ndarray, *, dtype: str | None = None) -> None:
        self.graph = graph
        self.keep = keep
        self.dtype = dtype
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.names = {layer.name for layer in graph.model._flatten_layers()}
        self.model = self.build(graph.model)

    def build(self, model: Any) -> Any:
        """Build a model, the whole one or a nested one."""
        added = added_tensors(model)
        if isinstance(model, keras.Sequential) and not added and not self._rewired(model):
            return self._chain(model)
        values: dict[int, Any] = {id(tensor): self._input(tensor) for tensor in model.inputs}
        inputs = map_tensors(model._nested_inputs, values)
        for node in nodes_of(model):
            outputs = self._call(node, values)
            for tensor, value in zip(tf.nest.flatten(node.outputs), outputs, strict=True):
                values[id(tensor)] = value
        outputs = map_tensors(model._nested_outputs, values)
        plain = type(model).__name__ in ("Functional", "Model", "Sequential")
        build = keras.Model if plain else type(model)
        try:
            made = build(inputs=inputs, outputs=outputs, name=model.name)
        except TypeError as error:
            raise InputError(
                f"model '{model.name}' ({type(model).__name__}) cannot be made anew: {error}. "
                "A subclass of keras.Model must take inputs, outputs and name."
            ) from error
        insert_added(made, [values[id(tensor)] for tensor in added])
        return made

    def _rewired(self, model: Any) -> bool:
        tables = (self.graph.moves, self.graph.gathers, self.graph.paddings)
        return any(id(node) in table for node in nodes_of(model) for table in tables)

    def _chain(self, model: Any) -> Any:
        tensor = model.inputs[0]
        first = keras.layers.InputLayer(
            batch_input_shape=self._input_shape(tensor), dtype=self._input_dtype(tensor), name=model.input_names[0]
        )
        self._note(tensor, first)
        return keras.Sequential([first, *(self._layer(layer) for layer in model.layers)], name=model.name)

    def _input(self, tensor: Any) -> Any:
        shape = self._input_shape(tensor)
        name = tensor._keras_history.layer.name
        made = keras.Input(batch_shape=shape, dtype=self._input_dtype(tensor), name=name)
        self._note(tensor, made._keras_history.layer)
        return made

    def _note(self, tensor: Any, made: Any) -> None:
        layer = tensor._keras_history.layer
        self.copies[id(layer)] = (layer, made)

    def _input_shape(self, tensor: Any) -> tuple[int | None, ...]:
        labels = self.graph.tensors[id(tensor)]
        width = int(self.keep[labels].sum()) if len(tensor.shape) > 1 and tensor.shape[-1] else tensor.shape[-1]
        return (*tensor.shape[:-1], width)

    def _input_dtype(self, tensor: Any) -> str:
        return self.dtype if self.dtype and tensor.dtype.is_floating else tensor.dtype.name

    def _layer(self, layer: Any) -> Any:
        """Return the new layer for an old one; a shared layer is made once."""
        if id(layer) not in self.copies:
            copy = self.build(layer) if is_graph(layer) else self._copy(layer)
            self.copies[id(layer)] = (layer, copy)
        return self.copies[id(layer)][1]

    def _copy(self, layer: Any) -> Any:
        changes: dict[str, Any] = {}
        for edit in self.graph.edits.get(id(layer), ()):
            count = self._alive(edit.labels, edit.axis)
            if edit.each:
                changes[edit.key] = self._left_of(edit.labels).of(layer.get_config()[edit.key])
            elif edit.index is None:
                changes[edit.key] = count
            else:
                value = changes.setdefault(edit.key, list(getattr(layer, edit.key)))
                value[edit.index] = count
        return copy_layer(layer, changes, dtype=self.dtype)

    def _left_of(self, labels: np.ndarray, axis: int = -1) -> Left:
        return Left(np.flatnonzero(self.keep[labels]), len(labels), axis)

    def _alive(self, labels: np.ndarray, axis: int) -> int:
        others = tuple(other for other in range(labels.ndim) if other != axis % labels.ndim)
        return int(self.keep[labels].any(axis=others).sum())

    def _call(self, node: Any, values: dict[int, Any]) -> list[Any]:
        if id(node) in self.graph.moves:
            return [self._move(node, self.graph.moves[id(node)], values)]
        gather = self.graph.gathers.get(id(node))
        ends = (*node.keras_inputs, *tf.nest.flatten(node.outputs))
        if gather and not all(self.keep[self.graph.tensors[id(tensor)]].all() for tensor in ends):
            return self._gather(node, gather, values)
        if any(isinstance(values[id(tensor)], _Routed) for tensor in node.keras_inputs):
            raise CannotRebuildError(self.graph.paths[id(node)])
        if id(node) in self.graph.paddings and not self.keep[self.graph.tensors[id(ends[-1])]].all():
            return [self._pad(node, values[id(ends[0])])]
        labels, axis = self.graph.constants.get(id(node), (None, -1))
        left = None if labels is None else self._left_of(labels, axis)
        args, kwargs = map_arguments(node, values, inference=self.dtype is not None, left=left)
        if self.dtype and is_op_layer(node.layer):
            args, kwargs = tf.nest.map_structure(self._in_dtype, (args, kwargs))
        layer = self._layer(node.layer)
        try:
            return tf.nest.flatten(layer(*args, **kwargs))
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise CannotRebuildError(self.graph.paths[id(node)]) from error

    def _in_dtype(self, item: Any) -> Any:
        """Return a float constant, or the name of a float type, among the arguments of an op in a twin's dtype."""
        if isinstance(item, str | tf.DType):
            return tf.as_dtype(self.dtype) if item in _FLOATS else item
        if isinstance(item, np.ndarray) or (tf.is_tensor(item) and not is_symbolic(item)):
            return tf.cast(item, self.dtype) if item.dtype in _FLOATS else item
        return item

    def _gather(self, node: Any, gather: Gather, values: dict[int, Any]) -> list[Any]:
        tensors = [node.keras_inputs[index] for index in gather.inputs]
        alive = np.concatenate([self.keep[self.graph.tensors[id(tensor)]].reshape(-1) for tensor in tensors])
        source = values[id(tensors[0])]
        if len(tensors) > 1:
            name = self._new_name(f"{node.layer.name}_joined")
            source = keras.layers.Concatenate(name=name)([values[id(t)] for t in tensors])
        positions, name = np.cumsum(alive) - 1, f"{node.layer.name}_picked"
        left = [self.keep[self.graph.tensors[id(tensor)]].reshape(-1) for tensor in tf.nest.flatten(node.outputs)]
        return [
            pick_channels(source, positions[pick[stay]], self._new_name(name))
            for pick, stay in zip(gather.picks, left, strict=True)
        ]

    def _pad(self, node: Any, value: Any) -> Any:
        """Put as many zeros around the channels as are left of them."""
        axis, start = self.graph.paddings[id(node)]
        width = self.graph.tensors[id(node.keras_inputs[0])].size
        alive = self.keep[self.graph.tensors[id(tf.nest.flatten(node.outputs)[0])]].reshape(-1)
        around = [[0, 0] for _ in value.shape]
        around[axis] = [int(alive[:start].sum()), int(alive[start + width :].sum())]
        return op_layer(tf.pad, self._new_name(f"{node.layer.name}_padded"))(value, around)

    def _new_name(self, wanted: str) -> str:
        """Return a name that no layer of the model has."""
        name = next(name for name in (f"{wanted}_{i}" if i else wanted for i in count()) if name not in self.names)
        self.names.add(name)
        return name

    def _move(self, node: Any, move: Move, values: dict[int, Any]) -> Any:
        """Reshape or transpose; where no box of what is left can be filled, wait until it can.

        A channel shuffle by reshape, transpose, reshape is the case: once the values stand on the
        channel axis again, the chain is one pick of channels.
        """
        (before,), (after,) = node.keras_inputs[:1], tf.nest.flatten(node.outputs)
        value, labels = values[id(before)], self.graph.tensors[id(after)]
        if not isinstance(value, _Routed):
            if _fills_box(self.keep[labels]):
                return self._move_built(node, move, values, labels)
            channels = self.graph.tensors[id(before)]
            if channels.size != channels.shape[-1]:
                raise CannotRebuildError(self.graph.paths[id(node)])
            value = _Routed(value, channels.reshape(-1), np.arange(channels.size).reshape(channels.shape))
        index = move.function(value.index)
        same_places = tuple(after.shape[:-1]) == tuple(value.source.shape[:-1])
        if not same_places or index.size != index.shape[-1]:
            return _Routed(value.source, value.labels, index)
        alive = self.keep[value.labels]
        pick = index.reshape(-1)
        return pick_channels(
            value.source, (np.cumsum(alive) - 1)[pick[alive[pick]]], self._new_name(f"{node.layer.name}_picked")
        )

    def _move_built(self, node: Any, move: Move, values: dict[int, Any], labels: np.ndarray) -> Any:
        args, kwargs = map_arguments(node, values)
        if move.target_in_arguments:
            args, kwargs = list(args), dict(kwargs)
            target = list(kwargs["shape"] if "shape" in kwargs else args[1])
            for axis, size in enumerate(labels.shape):
                if size > 1 and isinstance(target[axis], int | np.integer) and target[axis] != -1:
                    target[axis] = self._alive(labels, axis)
            if "shape" in kwargs:
                kwargs["shape"] = target
            else:
                args[1] = target
        return self._layer(node.layer)(*args, **kwargs)

    def fill(self, read: Callable[[Any], np.ndarray] = lambda variable: variable.numpy()) -> None:
        """Copy the weights that are left, the trainable flags and the initializers.

        `read` gives the value of an old variable, in its old shape.
        """
        self.model._trainable = self.graph.model._trainable
        for old, new in self.copies.values():
            if is_graph(old):
                new._trainable = old._trainable  # its layers have copies of their own, and picks of channels are new
                continue
            restore_settings(old, new)
            for source, target in zip(old.weights, new.weights, strict=True):
                keras.backend.set_value(target, self._left(source, read))
        finish_weights(self.model)

    def _left(self, variable: Any, read: Callable[[Any], np.ndarray]) -> np.ndarray:
        value = read(variable)
        for axis in range(value.ndim):
            slot = self.graph.slots.get((id(variable), axis))
            if slot is not None and not (alive := self.keep[slot.labels]).all():
                value = value.compress(alive, axis)
        return value


def _fills_box(alive: np.ndarray) -> bool:
    """Return whether what is left is everything in some rows and columns, so that it is an array again."""
    box = np.ones((1,) * alive.ndim, bool)
    for axis in range(alive.ndim):
        others = tuple(other for other in range(alive.ndim) if other != axis)
        box = box & alive.any(axis=others, keepdims=True)
    return bool(np.array_equal(box, alive))


def pick_channels(tensor: Any, indices: np.ndarray, name: str) -> Any:
    """Return the channels `indices` of a symbolic tensor, by a slice where they lie in one run.

    Both ops can be saved to a .keras file, which an `x[..., a:b]` cannot, and need no code of
    tfprune when it is loaded.
    """
    first, count = int(indices[0]), len(indices)
    if count == tensor.shape[-1] and np.array_equal(indices, np.arange(count)):
        return tensor
    if np.array_equal(indices, np.arange(first, first + count)):
        rank = len(tensor.shape)
        return op_layer(tf.slice, name)(tensor, [0] * (rank - 1) + [first], [-1] * (rank - 1) + [count])
    return op_layer(tf.gather, name)(tensor, indices.tolist(), axis=-1)


def op_layer(function: Callable[..., Any], name: str) -> Any:
    """Return the layer that stands for a TensorFlow op on symbolic tensors."""
    from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

    return TFOpLambda(function, name=name)
