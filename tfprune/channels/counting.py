"""What a model will cost with some of its channels gone, counted from the plan: nothing is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.channels.cost import kernel_uses, macs_of, tensor_shapes, walk_shapes
from tfprune.channels.graph import ChannelGraph, walk
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.liveness import Moment, Shape, trace_moments
from tfprune.keras import tf


@dataclass(frozen=True)
class _Extent:
    """The size of an array as far as it does not change, and the labels that it has along each other axis."""

    fixed: int
    labels: tuple[np.ndarray, ...]

    def size(self, keep: np.ndarray) -> int:
        return self.fixed * math.prod(int(keep[labels].sum()) for labels in self.labels)


class _Products:
    """The multiply-accumulates of a call without a kernel, counted anew for every width of what it reads."""

    def __init__(self, graph: ChannelGraph, node: Any, shapes: dict[int, Shape]) -> None:
        self._node = node
        self._read = {id(tensor): (shapes[id(tensor)], graph.tensors[id(tensor)]) for tensor in node.keras_inputs}
        self._whole = macs_of(node, shapes)
        self._counted: dict[tuple[Shape, ...], int] = {tuple(shape for shape, _ in self._read.values()): self._whole}

    def macs(self, keep: np.ndarray) -> int:
        if not self._whole:
            return 0
        left = {key: _shape_left(shape, keep[labels]) for key, (shape, labels) in self._read.items()}
        given = tuple(left.values())
        if given not in self._counted:
            try:
                self._counted[given] = macs_of(self._node, left)
            except (ValueError, TypeError, tf.errors.OpError):  # a layer of the user's that knows one width
                self._counted[given] = self._whole
        return self._counted[given]


def _shape_left(shape: Shape, alive: np.ndarray) -> Shape:
    """Return the shape of a tensor of which some labels are left; an axis without labels keeps its size."""
    left = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(alive.ndim) if other != axis)
        left.append(int(alive.any(axis=others).sum()) if alive.shape[axis] > 1 else size)
    return tuple(left)


class ChannelCosts:
    """The costs of a labelled model as functions of the channels that stay, for a batch of one.

    `keep` is bool per label of the graph's space (`ChannelGroups.keep`).

    Args:
        graph: the labelled model.
        input_size: (H, W) in pixels, for a model that leaves its size open.

    Raises:
        InputError: when the size is open and not given.
    """

    def __init__(self, graph: ChannelGraph, *, input_size: tuple[int, int] | None = None) -> None:
        self.graph = graph
        shapes = tensor_shapes(graph.model, input_size=input_size)
        self._kernels: dict[str, list[_Extent]] = {}
        self._products: list[_Products] = []
        for path, node, here in walk_shapes(graph.model, shapes):
            uses = kernel_uses(node, here)
            if uses is not None:
                extents = [self._weight(kernel, positions) for kernel, positions in uses]
                self._kernels.setdefault(path, []).extend(extents)
            else:
                self._products.append(_Products(graph, node, here))
        self._weights = [self._weight(weight) for weight in graph.model.weights]
        self._tensors = {key: _tensor_extent(shapes[key], labels) for key, labels in graph.tensors.items()}
        self.names = {id(tensor): path for path, node in walk(graph.model) for tensor in tf.nest.flatten(node.outputs)}
        self.names.update({id(tensor): tensor.name for tensor in graph.model.inputs})
        self._heights = [shape[1] for shape in shapes.values() if len(shape) == 4]
        self.moments: tuple[Moment, ...] = trace_moments(graph.model, shapes)

    def _weight(self, weight: object, positions: int = 1) -> _Extent:
        slots = [self.graph.slots.get((id(weight), axis)) for axis in range(len(weight.shape))]
        fixed = math.prod(size for size, slot in zip(weight.shape, slots, strict=True) if slot is None)
        return _Extent(positions * fixed, tuple(slot.labels for slot in slots if slot is not None))

    def macs_by_layer(self, keep: np.ndarray) -> dict[str, int]:
        """Return path -> multiply-accumulates of the layers with kernels."""
        return {path: sum(extent.size(keep) for extent in extents) for path, extents in self._kernels.items()}

    def macs(self, keep: np.ndarray) -> int:
        """Return all multiply-accumulates."""
        return sum(products.macs(keep) for products in self._products) + sum(self.macs_by_layer(keep).values())

    def parameters(self, keep: np.ndarray) -> int:
        """Return all numbers stored, moving statistics included."""
        return sum(extent.size(keep) for extent in self._weights)

    def of_groups(self, groups: ChannelGroups, quantity: str) -> np.ndarray:
        """Return how many `macs` or `parameters` go with each group alone, shape (groups,)."""
        count = self.macs if quantity == "macs" else self.parameters
        removed = np.zeros(len(groups), bool)
        whole, freed = count(groups.keep(removed)), np.zeros(len(groups))
        for family in groups.families:
            removed[family.groups[0]] = True
            freed[family.groups] = whole - count(groups.keep(removed))
            removed[family.groups[0]] = False
        return freed

    def tensor_size(self, tensor: int, keep: np.ndarray) -> int:
        """Return the values of a tensor, given by its id."""
        return self._tensors[tensor].size(keep)

    def is_input(self, tensor: int) -> bool:
        """Return whether a tensor, given by its id, is an input of the model."""
        return tensor in map(id, self.graph.model.inputs)

    def labels(self, tensor: int) -> np.ndarray:
        """Return the labels of all channels of a tensor, given by its id."""
        return self.graph.tensors[tensor].reshape(-1)

    def stride(self) -> int:
        """Return how much smaller than the picture the smallest map is, a power of two; pooled values left out."""
        tallest = max(self._heights, default=1)
        lowest = min((height for height in self._heights if height > 1), default=tallest)
        return 2 ** round(math.log2(tallest / lowest))

    def peak(self, keep: np.ndarray) -> tuple[int, Moment]:
        """Return the largest number of activation values alive at once, and when that is."""
        sizes = {key: extent.size(keep) for key, extent in self._tensors.items()}
        return max(((moment.size(sizes), moment) for moment in self.moments), key=lambda found: found[0])


def _tensor_extent(shape: tuple[int, ...], labels: np.ndarray) -> _Extent:
    """Count one value per label, times the axes that have none; a scalar has a label too."""
    axes = zip(shape or (1,), labels.shape, strict=True)
    fixed = math.prod(size for size, labelled in axes if labelled == 1 and size > 1)
    return _Extent(fixed, (labels.reshape(-1),))
