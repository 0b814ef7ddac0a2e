"""Deciding which groups go: ratios, ranking, guards and channel multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from tfprune.channels.cost import kernel_uses, tensor_shapes
from tfprune.channels.graph import ChannelGraph, walk
from tfprune.channels.groups import ChannelGroups, Family
from tfprune.channels.plan import LayerPlan, Plan
from tfprune.errors import InputError, unknown_name

SMALLEST_SHARE = 0.9
"""Rounding to a multiple never leaves less than this share of the channels asked for: 12 of 24
become 16 at a multiple of 8, not 8."""


@dataclass(frozen=True)
class Selection:
    """How groups are chosen by their scores.

    Attributes:
        ratio: fraction of the groups to remove, 0 <= ratio < 1; or pattern of layer names -> ratio,
            the first that matches counts and other layers stay whole.
        scope: `layer` takes the ratio from every family of layers, `global` ranks all groups together.
        multiple_of: widths that layers are to have, 1 for any.
        min_channels: a layer keeps at least this many.
        max_ratio: a layer loses at most this fraction.
        include, exclude: patterns of layer names (`*` and `?`); excluded layers, and those coupled to
            them, stay whole.
    """

    ratio: float | Mapping[str, float] = 0.5
    scope: Literal["layer", "global"] = "layer"
    multiple_of: int = 1
    min_channels: int = 1
    max_ratio: float = 0.95
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        ratios = self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio]
        for name, value in [*(("ratio", ratio) for ratio in ratios), ("max_ratio", self.max_ratio)]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise InputError(f"{name} must be a number from 0 to below 1, not {value!r}")
        for name in ("multiple_of", "min_channels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.scope not in ("layer", "global"):
            raise unknown_name("scope", self.scope, ("layer", "global"))
        if self.scope == "global" and isinstance(self.ratio, Mapping):
            raise InputError("a ratio per layer and the scope 'global' contradict each other; give one ratio")
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name} takes a list of patterns, not one string: [{getattr(self, name)!r}]")


def choose(groups: ChannelGroups, scores: np.ndarray, selection: Selection) -> np.ndarray:
    """Return which groups go, bool (groups,).

    Raises:
        InputError: when a pattern matches no layer.
    """
    _check_patterns(groups, selection)
    families = [(family, ratio) for family in groups.families if (ratio := _ratio_of(family, selection)) is not None]
    removed = np.zeros(len(groups), bool)
    ranked = np.concatenate([scores[family.groups] for family, _ in families] or [np.zeros(0)])
    threshold = -np.inf
    if selection.scope == "global" and len(ranked):
        threshold = np.sort(ranked)[min(int(len(ranked) * selection.ratio), len(ranked) - 1)]
    for family, ratio in families:
        order = family.groups[np.argsort(-scores[family.groups], kind="stable")]
        if selection.scope == "global":
            wanted = int(np.count_nonzero(scores[family.groups] >= threshold))
        else:
            wanted = len(order) - int(len(order) * ratio)
        frozen = int(np.count_nonzero(groups.numbers_of_maker(family) < 0))
        removed[order[_rounded(wanted, family, selection, frozen) :]] = True
    for together in groups.never_empty:
        if removed[together].all():
            removed[together[np.argmax(scores[together])]] = False
    return removed


def _rounded(wanted: int, family: Family, selection: Selection, frozen: int) -> int:
    """Return how many groups of a family stay, given how many are wanted."""
    total, step, multiple = len(family.groups), family.step, selection.multiple_of
    least = max(1, math.ceil((selection.min_channels - frozen) / step), math.ceil(total * (1 - selection.max_ratio)))
    wanted = min(max(wanted, least), total)
    if multiple == 1:
        return wanted
    fitting = [count for count in range(least, total + 1) if (frozen + count * step) % multiple == 0 or count == total]
    big_enough = [count for count in fitting if count >= SMALLEST_SHARE * wanted]
    return min(big_enough, key=lambda count: (abs(count - wanted), -count))


def _ratio_of(family: Family, selection: Selection) -> float | None:
    """Return the ratio that holds for a family, None when it stays whole."""

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(layer, pattern) for layer in family.layers for pattern in patterns)

    if matches(selection.exclude) or not matches(selection.include):
        return None
    if not isinstance(selection.ratio, Mapping):
        return selection.ratio
    return next((ratio for pattern, ratio in selection.ratio.items() if matches([pattern])), None)


def _check_patterns(groups: ChannelGroups, selection: Selection) -> None:
    layers = {path for path, _ in walk(groups.graph.model)}
    patterns = [*selection.include, *selection.exclude]
    patterns += selection.ratio if isinstance(selection.ratio, Mapping) else ()
    for pattern in patterns:
        if pattern != "*" and not any(fnmatchcase(layer, pattern) for layer in layers):
            raise unknown_name("layer or pattern of layers", pattern, sorted(layers))


def write_plan(groups: ChannelGroups, removed: np.ndarray, *, opaque: Sequence[str] = ()) -> Plan:
    """Write down which groups go, with the dry run."""
    remove: dict[str, tuple[int, ...]] = {}
    for family in groups.families:
        gone = family.groups[removed[family.groups]]
        positions = np.flatnonzero(np.isin(groups.numbers_of_maker(family), gone)).tolist()
        if positions:
            remove[family.layers[0]] = tuple(sorted({*remove.get(family.layers[0], ()), *positions}))
    return Plan(
        model=groups.graph.model.name,
        fingerprint=groups.graph.fingerprint,
        remove=remove,
        layers=_dry_run(groups, removed),
        opaque=tuple(opaque),
    )


def read_plan(groups: ChannelGroups, plan: Plan) -> np.ndarray:
    """Return which groups a plan removes, bool (groups,).

    Raises:
        InputError: when the plan is for another architecture, names a layer or channel that is not
            there or may not go, or would leave something without channels.
    """
    if plan.fingerprint != groups.graph.fingerprint:
        raise InputError(
            f"the plan was made for '{plan.model}' with fingerprint {plan.fingerprint}, and this model, "
            f"'{groups.graph.model.name}', has {groups.graph.fingerprint}: another architecture. Make a new plan."
        )
    makers = {slot.layer: slot for slot in groups.slots[::-1] if slot.role == "out" and len(slot.variable.shape) > 1}
    reasons = groups.graph.space.frozen_reasons()
    removed = np.zeros(len(groups), bool)
    for layer, channels in plan.remove.items():
        if layer not in makers:
            raise unknown_name("layer", layer, makers, "plan, remove")
        labels, place = makers[layer].labels, f"plan, remove, {layer}"
        for channel in channels:
            if not 0 <= channel < len(labels):
                raise InputError(f"{place}: there is no channel {channel}, they go from 0 to {len(labels) - 1}")
        chosen = labels[list(channels)]
        numbers = groups.numbers(chosen)
        if (numbers < 0).any():
            root = int(groups.graph.space.find(chosen)[numbers < 0][0])
            raise InputError(f"{place}: channel {channels[int(np.argmin(numbers))]} may not go: {reasons.get(root)}")
        removed[numbers] = True
    for together in groups.never_empty:
        if removed[together].all():
            slices = groups[int(together[0])]
            raise InputError(f"plan: all channels that '{slices[0].layer}' is part of would go; at least one must stay")
    return removed


def _dry_run(groups: ChannelGroups, removed: np.ndarray) -> tuple[LayerPlan, ...]:
    keep = groups.keep(removed)
    reasons = groups.graph.space.frozen_reasons()
    coupled: dict[str, dict[str, None]] = {}
    for family in groups.families:
        for layer in family.layers:
            coupled.setdefault(layer, {}).update(dict.fromkeys(other for other in family.layers if other != layer))
    macs = _macs_by_layer(groups.graph, keep)
    rows = {}
    for slot in groups.slots:
        if slot.layer in rows or slot.role != "out":
            continue
        stuck = groups.numbers(slot.labels) < 0
        roots = groups.graph.space.find(slot.labels[stuck])
        rows[slot.layer] = LayerPlan(
            layer=slot.layer,
            channels=len(slot.labels),
            channels_after=int(keep[slot.labels].sum()),
            macs=macs.get(slot.layer, (0, 0))[0],
            macs_after=macs.get(slot.layer, (0, 0))[1],
            coupled=tuple(coupled.get(slot.layer, ())),
            frozen=int(stuck.sum()),
            reason=reasons.get(int(roots[0]), "") if len(roots) else "",
        )
    others = [path for path in macs if path not in rows]
    depthwise = [LayerPlan(path, *_widths(groups, path, keep), *macs[path]) for path in others]
    return (*rows.values(), *depthwise)


def _widths(groups: ChannelGroups, path: str, keep: np.ndarray) -> tuple[int, int]:
    labels = next((slot.labels for slot in groups.slots if slot.layer == path), np.zeros(0, np.int64))
    return len(labels), int(keep[labels].sum())


def _macs_by_layer(graph: ChannelGraph, keep: np.ndarray) -> dict[str, tuple[int, int]]:
    """Return path -> multiplications before and after; empty for models of unknown size."""
    try:
        shapes = tensor_shapes(graph.model)
    except InputError:
        return {}
    macs: dict[str, tuple[int, int]] = {}
    for path, node in walk(graph.model):
        for kernel, positions in kernel_uses(node, shapes) or ():
            after = []
            for axis, size in enumerate(kernel.shape):
                slot = graph.slots.get((id(kernel), axis))
                after.append(size if slot is None else int(keep[slot.labels].sum()))
            old, new = macs.get(path, (0, 0))
            macs[path] = (old + positions * math.prod(kernel.shape), new + positions * math.prod(after))
    return macs
