"""Channels of a whole model as what masks take: everything that is coupled goes to zero together."""

from __future__ import annotations

import re

import numpy as np

from tfprune.channels import ChannelGroups
from tfprune.pruning.groups import ChannelGroup, Member
from tfprune.pruning.selection import Selection

_MASKED = ("kernel", "depthwise_kernel", "bias", "gamma", "beta")


def groups_to_mask(
    groups: ChannelGroups, removed: np.ndarray
) -> tuple[tuple[ChannelGroup, ...], Selection, dict[str, float]]:
    """Return the channel groups, the selection and the `layer_sparsity` of a `MaskController`.

    Masked by them, every family of coupled layers ends with as many channels as a plan leaves it; which
    ones is up to the masks.

    Args:
        groups: of the model that is to be masked.
        removed: bool (groups,), what a plan would remove.
    """
    names = {
        id(getattr(layer, name)): name
        for layer in groups.graph.model._flatten_layers(recursive=True, include_self=False)
        for name in _MASKED
        if hasattr(getattr(layer, name, None), "shape")
    }
    masked, made, shares = [], [], {}
    for number, family in enumerate(groups.families):
        share = float(removed[family.groups].mean())
        if not share:
            continue
        members = []
        for slot in groups.slots:
            numbers = groups.numbers(slot.labels)
            if slot.role == "in" or id(slot.variable) not in names or not np.isin(family.groups, numbers).all():
                continue
            indices = tuple(tuple(np.flatnonzero(numbers == group).tolist()) for group in family.groups)
            members.append(Member(slot.layer, names[id(slot.variable)], slot.axis, indices))
            if slot.role == "out" and len(slot.variable.shape) > 1:
                masked.append(slot.layer)
        name = f"{family.layers[0]}#{number}"
        made.append(ChannelGroup(name, tuple(members)))
        shares[f"^{re.escape(name)}$"] = share
    return tuple(made), Selection(tuple(dict.fromkeys(masked)), ()), shares


def zeroed_groups(groups: ChannelGroups) -> np.ndarray:
    """Return which groups have only zeros in all kernels that make them, bool (groups,)."""
    alive = np.zeros(len(groups), bool)
    for slot in groups.slots:
        if slot.role != "out" or len(slot.variable.shape) < 2:
            continue
        kernel = slot.variable.numpy()
        used = np.abs(kernel).sum(axis=tuple(axis for axis in range(kernel.ndim) if axis != slot.axis)) > 0
        numbers = groups.numbers(slot.labels)
        alive[numbers[used & (numbers >= 0)]] = True
    return ~alive
