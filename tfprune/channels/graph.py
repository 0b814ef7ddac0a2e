"""A network's channels: what the rules of its layers say of them.

`ChannelGraph` is what they say, `Call` is what a rule sees; `tfprune.channels.labelling` does the walk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tfprune.channels.labels import Labels, LabelSpace
from tfprune.channels.sampling import sample_tensors
from tfprune.keras import keras, tf

Role = Literal["out", "thru", "in"]
"""What an axis of a weight does with a channel: makes it (`out`), carries it on (`thru`: norms,
depthwise kernels), or reads it (`in`)."""


@dataclass(eq=False)
class Slot:
    """One axis of one variable, with the label of each of its positions."""

    layer: str
    variable: Any
    axis: int
    role: Role
    labels: np.ndarray


@dataclass(frozen=True)
class Edit:
    """A number in a layer's config that counts channels: those alive along `axis` of `labels`.

    `index` says where in the value of `key` the number stands, None when it is the value. With
    `each`, the value holds a number for each channel, along its last axis, instead of their count.
    """

    key: str
    labels: Labels
    axis: int
    index: int | None = None
    each: bool = False


@dataclass(frozen=True)
class Move:
    """A call that only moves values about (reshape, transpose): `function` does it to an array."""

    function: Callable[[np.ndarray], np.ndarray]
    target_in_arguments: bool = False


@dataclass(frozen=True)
class Gather:
    """A call that only picks channels: per output, their positions in these inputs laid side by side."""

    inputs: tuple[int, ...]
    picks: tuple[np.ndarray, ...]


@dataclass(eq=False)
class ChannelGraph:
    """What the rules said of a model; everything that decides or rebuilds reads it.

    Attributes:
        model: the model, never changed.
        space: the labels and which of them are one.
        slots: (id of variable, axis) -> its labels.
        tensors: id of a symbolic tensor -> its labels.
        edits: id of a layer -> numbers to change in its config.
        moves, gathers: id of a node -> how to build it again when re-applying its layer would be wrong.
        constants: id of a node -> the channels that arrays among its arguments have numbers for, and on which axis.
        paddings: id of a node that puts zeros around its channels -> their axis, and how many stand before them.
        paths: id of a node -> its path, `model/layer` inside nested models.
        probed: path -> layer of the calls whose behaviour was found out by experiment.
        contracted: labels that an op without weights sums over.
    """

    model: Any
    space: LabelSpace = field(default_factory=LabelSpace)
    slots: dict[tuple[int, int], Slot] = field(default_factory=dict)
    tensors: dict[int, Labels] = field(default_factory=dict)
    edits: dict[int, list[Edit]] = field(default_factory=dict)
    moves: dict[int, Move] = field(default_factory=dict)
    gathers: dict[int, Gather] = field(default_factory=dict)
    constants: dict[int, tuple[np.ndarray, int]] = field(default_factory=dict)
    paddings: dict[int, tuple[int, int]] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    probed: dict[str, Any] = field(default_factory=dict)
    contracted: list[np.ndarray] = field(default_factory=list)

    @cached_property
    def samples(self) -> dict[int, np.ndarray]:
        """Values of all tensors for one random input, computed when a probe first needs them."""
        return sample_tensors(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of layers, wiring and weight shapes: equal for checkpoints of one architecture."""
        numbers: dict[int, int] = {}
        rows = []
        for _, node in walk(self.model):
            # Tensors are numbered as they are met: names that Keras made up differ from build to build.
            read = [numbers.setdefault(id(tensor), len(numbers)) for tensor in node.keras_inputs]
            made = [numbers.setdefault(id(tensor), len(numbers)) for tensor in tf.nest.flatten(node.outputs)]
            rows.append([type(node.layer).__name__, [tuple(w.shape) for w in node.layer.weights], read, made])
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


class Call:
    """One call of one layer, as its rule sees it.

    A rule asks for the labels of the inputs (`channels`), makes new ones (`fresh`), says which axis
    of which weight carries them (`slot`), which number of the config counts them (`edit`), and
    returns the labels of the output (`spread`).
    """

    def __init__(self, graph: ChannelGraph, node: Any, path: str) -> None:
        self.graph = graph
        self.node = node
        self.layer = node.layer
        self.path = path
        self.tensors: list[Any] = list(node.keras_inputs)
        self.inputs: list[Labels] = [graph.tensors[id(tensor)] for tensor in self.tensors]
        self.outputs: list[Any] = tf.nest.flatten(node.outputs)

    def channels(self, index: int = 0) -> np.ndarray:
        """Return the labels along the last axis of an input, shape (C,).

        Where other axes are labelled too, the channels of all their positions are united, so that
        only whole channels can go.
        """
        labels, shape = self.inputs[index], self.tensors[index].shape
        width = shape[-1] if len(shape) else 1
        if width is None or (labels.shape[-1] == 1 and width > 1):
            self.freeze(labels, "its channels are not on the last axis")
            return self.graph.space.frozen(width or 1, f"'{self.path}': channels are not on its last axis")
        rows = labels.reshape(-1, labels.shape[-1])
        if len(rows) > 1:
            self.unite(rows[1:], rows[:1])
        return rows[0]

    def fresh(self, count: int) -> np.ndarray:
        """Return labels for `count` new channels."""
        return self.graph.space.fresh(count)

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Declare channels to be one, position by position; shapes broadcast."""
        self.graph.space.unite(a, b)

    def freeze(self, labels: np.ndarray, reason: str) -> None:
        """Forbid the removal of channels, and say why."""
        self.graph.space.freeze(labels, f"'{self.path}': {reason}")

    def slot(self, variable: Any, axis: int, labels: np.ndarray, role: Role) -> None:
        """Say that `axis` of a weight carries `labels`; None (no bias) is skipped.

        A second use of the same weight unites: that is all there is to shared layers.
        """
        if variable is None:
            return
        axis %= len(variable.shape)
        known = self.graph.slots.get((id(variable), axis))
        if known is None:
            self.graph.slots[id(variable), axis] = Slot(self.path, variable, axis, role, labels)
        else:
            self.unite(known.labels, labels)

    def edit(self, key: str, labels: Labels, *, axis: int = -1, index: int | None = None, each: bool = False) -> None:
        """Say that `key` of the layer's config counts the channels alive along an axis, or has a number for each."""
        edits = self.graph.edits.setdefault(id(self.layer), [])
        for known in edits:
            if (known.key, known.axis, known.index) == (key, axis, index):
                self.unite(known.labels, labels)
                return
        edits.append(Edit(key, labels, axis, index, each))

    def spread(self, labels: np.ndarray, index: int = 0) -> Labels:
        """Return channel labels (C,) in the rank of an output: (1, ..., 1, C)."""
        return labels.reshape((1,) * (len(self.outputs[index].shape) - 1) + (-1,))

    def opaque(self, reason: str) -> list[Labels]:
        """Freeze all inputs; the outputs are frozen too, for the same reason."""
        for labels in self.inputs:
            self.freeze(labels, reason)
        return self.frozen_outputs(reason)

    def frozen_outputs(self, reason: str) -> list[Labels]:
        """Return frozen labels for every output."""
        frozen = []
        for tensor in self.outputs:
            rank = len(tensor.shape)
            width = (tensor.shape[-1] or 1) if rank else 1
            labels = self.graph.space.frozen(width, f"'{self.path}': {reason}")
            frozen.append(labels.reshape((1,) * max(rank - 1, 0) + (-1,)))
        return frozen


Rule = Callable[[Call], "Labels | list[Labels]"]


def is_graph(layer: Any) -> bool:
    """Return whether a layer is a functional or sequential model, whose inside can be walked."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "_is_graph_network", False))


def nodes_of(model: Any) -> Iterator[Any]:
    """Yield the calls inside a model in an order of execution, its inputs left out.

    `layer._inbound_nodes` would also hold the calls that other models make of the same layers.
    """
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def walk(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, node) for all calls, those inside a nested model after the call of it."""
    for node in nodes_of(model):
        path = prefix + node.layer.name
        yield path, node
        if is_graph(node.layer):
            yield from walk(node.layer, f"{path}/")
