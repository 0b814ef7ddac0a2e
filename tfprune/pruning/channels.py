"""Channels of a whole model as what masks take: everything that is coupled goes to zero together."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tfprune.channels import ChannelGroups, Family, Plan, label_channels
from tfprune.channels.planning import read_plan
from tfprune.criteria import Criterion
from tfprune.pruning.controller import MaskController
from tfprune.pruning.groups import ChannelGroup, Member
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import Selection

_MASKED = ("kernel", "depthwise_kernel", "pointwise_kernel", "bias", "gamma", "beta")
_PRUNES = 16
"""Mask updates."""


def mask_channels(
    model: Any, plan: Plan, *, schedule: str, criterion: str | Criterion, steps: int
) -> MaskController | None:
    """Return the controller whose masks close to the shape of a plan in so many training steps.

    None where the plan takes nothing.

    Raises:
        InputError: when a layer cannot be masked or judged by the criterion, or the steps are too few.
    """
    groups = ChannelGroups(label_channels(model, opaque=plan.opaque))
    masks, selection, shares = groups_to_mask(groups, read_plan(groups, plan))
    if not masks:
        return None
    prunes = max(1, min(_PRUNES, steps * 2 // 5))  # the schedule movement ramps over 40 % of the steps
    return MaskController(
        model,
        build_schedule(schedule, max(shares.values()), begin_step=0, end_step=steps, prunes=prunes),
        criterion=criterion,
        selection=selection,
        granularity=masks,
        scope="layer",
        layer_sparsity=shares,
    )


def groups_to_mask(
    groups: ChannelGroups, removed: np.ndarray
) -> tuple[tuple[ChannelGroup, ...], Selection, dict[str, float]]:
    """Return the channel groups, the selection and the `layer_sparsity` of a `MaskController`.

    Masked by them, every family of coupled layers ends with as many channels as a plan leaves it; which
    ones is up to the masks. What reads a channel is masked too: behind a sigmoid, a filter of zeros is not silent.

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
            if id(slot.variable) not in names or not np.isin(family.groups, numbers).any():
                continue
            indices = tuple(tuple(np.flatnonzero(numbers == group).tolist()) for group in family.groups)
            members.append(Member(slot.layer, names[id(slot.variable)], slot.axis, indices))
            if slot.role == "out" and len(slot.variable.shape) > 1:
                masked.append(slot.layer)
        name = f"{family.layers[0]}#{number}"
        made.append(ChannelGroup(name, tuple(members), _parts_of(groups, family)))
        shares[f"^{re.escape(name)}$"] = share
    return tuple(made), Selection(tuple(dict.fromkeys(masked)), ()), shares


def _parts_of(groups: ChannelGroups, family: Family) -> tuple[tuple[int, ...], ...]:
    """Return the channels of each slice of a family, which may not be emptied; all of a family never is."""
    inside = [np.isin(family.groups, together) for together in groups.never_empty]
    sizes = [len(together) for together in groups.never_empty]
    return tuple(
        tuple(np.flatnonzero(part).tolist())
        for part, size in zip(inside, sizes, strict=True)
        if part.sum() == size < len(family.groups)
    )


def masked_groups(groups: ChannelGroups, controller: MaskController) -> np.ndarray:
    """Return which groups the masks of a controller hold at zero in the kernels that make them, bool (groups,)."""
    masks = dict(zip(controller.selection.masked, (layer.mask.numpy() for layer in controller.layers), strict=True))
    closed = np.zeros(len(groups), bool)
    for slot in groups.slots:
        if slot.role != "out" or slot.layer not in masks or len(slot.variable.shape) < 2:
            continue
        mask = masks[slot.layer]
        is_open = mask.any(axis=tuple(axis for axis in range(mask.ndim) if axis != slot.axis))
        numbers = groups.numbers(slot.labels)
        closed[numbers[~is_open & (numbers >= 0)]] = True
    return closed
