"""Groups: the channels that go, or stay, together, and every slice of a weight that goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfprune.channels.graph import ChannelGraph, Role, Slot


@dataclass(frozen=True)
class Slice:
    """Positions of one axis of one weight: what a group takes with it when it goes."""

    layer: str
    variable: Any
    axis: int
    role: Role
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """Groups that are made by the same layers: the unit of ratios, guards and multiples.

    Attributes:
        layers: paths of the layers that make the channels, in order of execution.
        groups: numbers of the groups.
        width: channels of the first layer, frozen ones and those of other families included.
        step: channels of the first layer that one group takes with it.
    """

    layers: tuple[str, ...]
    groups: np.ndarray
    width: int
    step: int


class ChannelGroups:
    """All groups of a graph that may go, as one sorted table.

    `groups[i]` gives the slices of group i; the arrays are for whoever scores them all at once:
    entry m says that position `positions[m]` of slot `slots[slot_index[m]]` belongs to group
    `group_of[m]`; entries are sorted by group.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.slots: list[Slot] = list(graph.slots.values())
        space = graph.space
        labels = np.concatenate([slot.labels for slot in self.slots] or [np.zeros(0, np.int64)])
        slot_index = np.repeat(np.arange(len(self.slots)), [len(slot.labels) for slot in self.slots])
        positions = np.concatenate([np.arange(len(slot.labels)) for slot in self.slots] or [np.zeros(0, np.int64)])
        made = np.array([slot.role == "out" for slot in self.slots], bool)[slot_index]
        roots = space.find(labels)
        free = ~space.is_frozen(labels) & np.isin(roots, roots[made])
        own_roots, group_of = np.unique(roots[free], return_inverse=True)
        number_of_root = np.full(len(space), -1)
        number_of_root[own_roots] = np.arange(len(own_roots))
        self._numbers = number_of_root[space.find(np.arange(len(space)))]
        order = np.argsort(group_of, kind="stable")
        self.group_of: np.ndarray = group_of[order]
        self.slot_index: np.ndarray = slot_index[free][order]
        self.positions: np.ndarray = positions[free][order]
        self._starts = np.searchsorted(self.group_of, np.arange(len(own_roots) + 1))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, group: int) -> tuple[Slice, ...]:
        """Return the slices of one group."""
        if not 0 <= group < len(self):
            raise IndexError(f"there are {len(self)} groups, and none of number {group}")
        entries = slice(self._starts[group], self._starts[group + 1])
        slots, positions = self.slot_index[entries], self.positions[entries]
        slices = []
        for index in dict.fromkeys(slots.tolist()):
            slot = self.slots[index]
            taken = tuple(sorted(positions[slots == index].tolist()))
            slices.append(Slice(slot.layer, slot.variable, slot.axis, slot.role, taken))
        return tuple(slices)

    def numbers(self, labels: np.ndarray) -> np.ndarray:
        """Return the number of the group of each label, -1 where it may not go."""
        return self._numbers[labels]

    def keep(self, removed: np.ndarray) -> np.ndarray:
        """Return for every label of the space whether it stays; `removed` is bool (groups,)."""
        return ~np.append(removed, False)[self._numbers]

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The groups by the layers that make them."""
        made = np.array([slot.role == "out" for slot in self.slots], bool)[self.slot_index]
        group_of, slot_index = self.group_of[made], self.slot_index[made]
        starts, slots = np.searchsorted(group_of, np.arange(len(self) + 1)).tolist(), slot_index.tolist()
        members: dict[tuple[int, ...], list[int]] = {}
        for group in range(len(self)):
            makers = tuple(dict.fromkeys(slots[starts[group] : starts[group + 1]]))
            members.setdefault(makers, []).append(group)
        families = []
        for makers, groups in members.items():
            first = self.slots[makers[0]]
            step = int(np.count_nonzero(self.numbers(first.labels) == groups[0]))
            layers = tuple(dict.fromkeys(self.slots[index].layer for index in makers))
            families.append(Family(layers, np.array(groups), len(first.labels), step))
        return tuple(families)

    def numbers_of_maker(self, family: Family) -> np.ndarray:
        """Return the group of each output channel of the first layer of a family, -1 where it may not go."""
        first = next(slot for slot in self.slots if slot.layer == family.layers[0] and slot.role == "out")
        return self.numbers(first.labels)

    @cached_property
    def never_empty(self) -> tuple[np.ndarray, ...]:
        """Sets of groups of which one must stay: those of a tensor, or of an axis of a weight, that has no others.

        A slice of a layer's channels is a tensor of its own, so a guard per layer would not do.
        """
        # Most layers hand on the labels they get, so that few of these are different.
        everywhere = [*self.graph.tensors.values(), *(slot.labels for slot in self.slots)]
        sets = {}
        for labels in {labels.tobytes(): labels for labels in everywhere}.values():
            numbers = np.unique(self.numbers(labels))
            if numbers.size and numbers[0] >= 0:
                sets[numbers.tobytes()] = numbers
        return tuple(sets.values())
