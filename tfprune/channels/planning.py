"""Deciding which groups go: ratios, ranking, guards and channel multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from tfprune.budget import Bound, parse_budget
from tfprune.channels.counting import ChannelCosts
from tfprune.channels.graph import walk
from tfprune.channels.groups import ChannelGroups, Family
from tfprune.channels.plan import LayerPlan, Met, Plan
from tfprune.errors import InputError, unknown_name

SMALLEST_SHARE = 0.9
"""Rounding to a multiple never leaves less than this share of the channels asked for: 12 of 24
become 16 at a multiple of 8, not 8."""


@dataclass(frozen=True)
class Selection:
    """How groups are chosen by their scores.

    Attributes:
        ratio: fraction of the groups to remove, 0 <= ratio < 1; or pattern of layer names -> ratio,
            the first that matches counts and other layers stay whole. Default: .5 without a budget.
        budget: what the smaller model may cost at most, instead of a ratio: "macs<=0.5x", or bounds.
        per_cost: divide scores by what one group costs: `macs` or `parameters` of the whole model.
        scope: `layer` takes the ratio from every family of layers, `global` ranks all groups together
            (`tfprune.channels.scores.weigh_by_rank`).
        multiple_of: widths that layers are to have, 1 for any.
        min_channels: a layer keeps at least this many.
        max_ratio: a layer loses at most this fraction.
        include, exclude: patterns of layer names (`*` and `?`); excluded layers, and those coupled to
            them, stay whole.
    """

    ratio: float | Mapping[str, float] | None = None
    budget: str | Sequence[Bound] = ()
    per_cost: Literal["macs", "parameters"] | None = None
    scope: Literal["layer", "global"] = "layer"
    multiple_of: int = 1
    min_channels: int = 1
    max_ratio: float = 0.95
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        budget = parse_budget(self.budget) if isinstance(self.budget, str) else tuple(self.budget)
        object.__setattr__(self, "budget", budget)
        if budget and self.ratio is not None:
            raise InputError("a ratio and a budget contradict each other; give one of them")
        if self.ratio is None and not budget:
            object.__setattr__(self, "ratio", 0.5)
        if self.per_cost not in (None, "macs", "parameters"):
            raise unknown_name("cost to divide scores by", self.per_cost, ("macs", "parameters"))
        ratios = [] if budget else self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio]
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

    @property
    def guards(self) -> str:
        """What keeps channels from going, in words.

        >>> Selection(0.5, multiple_of=8, exclude=["stem*"]).guards
        'multiple_of 8, exclude [stem*], max_ratio 0.95'
        """
        said = [f"{name} {getattr(self, name)}" for name in ("multiple_of", "min_channels") if getattr(self, name) > 1]
        said += [f"include [{', '.join(self.include)}]"] if list(self.include) != ["*"] else []
        said += [f"exclude [{', '.join(self.exclude)}]"] if self.exclude else []
        return ", ".join([*said, f"max_ratio {self.max_ratio:g}"])


@dataclass(frozen=True)
class RankedFamily:
    """A family that may lose groups: the groups best first, its ratio, and how many of them may stay.

    `ratio` is None under a budget.
    """

    groups: np.ndarray
    ratio: float | None
    may_stay: tuple[int, ...]

    def nearest(self, wanted: int) -> int:
        """Return how many groups stay, given how many are wanted."""
        wanted = min(max(wanted, self.may_stay[0]), self.may_stay[-1])
        big_enough = [count for count in self.may_stay if count >= SMALLEST_SHARE * wanted]
        return min(big_enough, key=lambda count: (abs(count - wanted), -count))


def share_of(count: int, ratio: float) -> int:
    """Return how many of `count` a ratio is, rounded down: of 40 and 1 - .8 it is 8, though their product is below.

    >>> share_of(40, 1 - 0.8)
    8
    """
    return int(count * ratio + 1e-9)


def rank_families(groups: ChannelGroups, scores: np.ndarray, selection: Selection) -> list[RankedFamily]:
    """Return the families that a selection takes from.

    Raises:
        InputError: when a pattern matches no layer.
    """
    _check_patterns(groups, selection)
    ranked = []
    for family in groups.families:
        taken, ratio = _ratio_of(family, selection)
        if taken:
            order = family.groups[np.argsort(-scores[family.groups], kind="stable")]
            frozen = int(np.count_nonzero(groups.numbers_of_maker(family) < 0))
            ranked.append(RankedFamily(order, ratio, _may_stay(family, selection, frozen)))
    return ranked


def choose(groups: ChannelGroups, scores: np.ndarray, selection: Selection) -> np.ndarray:
    """Return which groups go by the ratio of a selection, bool (groups,).

    Raises:
        InputError: when a pattern matches no layer, or a ratio above 0 takes nothing.
    """
    removed = choose_ranked(groups, scores, rank_families(groups, scores, selection), scope=selection.scope)
    ratios = selection.ratio.values() if isinstance(selection.ratio, Mapping) else [selection.ratio]
    if any(ratios) and not removed.any():
        raise InputError(
            f"ratio {selection.ratio} takes no channel from model '{groups.graph.model.name}'. What keeps channels "
            f"from going: {selection.guards}. Give a larger ratio, a smaller multiple_of, or other layers."
        )
    return removed


def choose_ranked(
    groups: ChannelGroups,
    scores: np.ndarray,
    ranked: Sequence[RankedFamily],
    *,
    scope: str,
    ratio: float | None = None,
) -> np.ndarray:
    """Return which groups go, bool (groups,), at the families' ratios or at one for all."""
    removed, weakest = np.zeros(len(groups), bool), np.zeros(len(groups), bool)
    if scope == "global" and ranked:
        # By rank and not by a threshold: many scores may be equal, as those of dead channels are.
        together = np.concatenate([family.groups for family in ranked])
        rising = together[np.argsort(scores[together], kind="stable")]
        weakest[rising[: share_of(len(together), ranked[0].ratio if ratio is None else ratio)]] = True
    for family in ranked:
        if scope == "global":
            wanted = int(np.count_nonzero(~weakest[family.groups]))
        else:
            wanted = len(family.groups) - share_of(len(family.groups), family.ratio if ratio is None else ratio)
        removed[family.groups[family.nearest(wanted) :]] = True
    families = [family.groups for family in ranked]
    return keep_one_of_each(groups.never_empty, removed, scores, families=families)


def keep_one_of_each(
    sets: Sequence[Sequence[int]], removed: np.ndarray, scores: np.ndarray, *, families: Sequence[np.ndarray]
) -> np.ndarray:
    """Return which groups go, bool (groups,), when the best of each set stays that would be all gone.

    In its place goes the weakest of its family that no set needs, so that the family is as wide as before.

    >>> one = keep_one_of_each([[0, 1]], np.array([1, 1, 0, 0]) > 0, np.arange(4.0), families=[np.arange(4)])
    >>> np.flatnonzero(one).tolist()
    [0, 2]
    """
    removed = removed.copy()
    for together in map(np.asarray, sets):
        if not removed[together].all():
            continue
        best = together[np.argmax(scores[together])]
        removed[best] = False
        family = next(family for family in families if best in family)
        for weakest in family[np.argsort(scores[family], kind="stable")]:
            needed = any(removed[other].sum() == len(other) - 1 for other in map(np.asarray, sets) if weakest in other)
            if not removed[weakest] and not needed:
                removed[weakest] = True
                break
    return removed


def _may_stay(family: Family, selection: Selection, frozen: int) -> tuple[int, ...]:
    """Return how many groups of a family may stay, rising: by the guards, and in multiples."""
    total, step = len(family.groups), family.step
    least = max(1, math.ceil((selection.min_channels - frozen) / step), total - share_of(total, selection.max_ratio))
    return tuple(
        count
        for count in range(min(least, total), total + 1)
        if (frozen + count * step) % selection.multiple_of == 0 or count == total
    )


def _ratio_of(family: Family, selection: Selection) -> tuple[bool, float | None]:
    """Return whether a selection takes from a family, and at which ratio."""

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(layer, pattern) for layer in family.layers for pattern in patterns)

    if matches(selection.exclude) or not matches(selection.include):
        return False, None
    if not isinstance(selection.ratio, Mapping):
        return True, selection.ratio
    ratio = next((ratio for pattern, ratio in selection.ratio.items() if matches([pattern])), None)
    return ratio is not None, ratio


def _check_patterns(groups: ChannelGroups, selection: Selection) -> None:
    layers = {path for path, _ in walk(groups.graph.model)}
    patterns = [*selection.include, *selection.exclude]
    patterns += selection.ratio if isinstance(selection.ratio, Mapping) else ()
    for pattern in patterns:
        if pattern != "*" and not any(fnmatchcase(layer, pattern) for layer in layers):
            raise unknown_name("layer or pattern of layers", pattern, sorted(layers))


def write_plan(
    groups: ChannelGroups,
    removed: np.ndarray,
    *,
    opaque: Sequence[str] = (),
    budget: Sequence[Met] = (),
    input_size: tuple[int, int] | None = None,
) -> Plan:
    """Write down which groups go, with the dry run; its MACs need `input_size` where a model leaves that open."""
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
        layers=_dry_run(groups, removed, input_size),
        opaque=tuple(opaque),
        budget=tuple(budget),
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


def _dry_run(groups: ChannelGroups, removed: np.ndarray, input_size: tuple[int, int] | None) -> tuple[LayerPlan, ...]:
    keep = groups.keep(removed)
    reasons = groups.graph.space.frozen_reasons()
    coupled: dict[str, dict[str, None]] = {}
    for family in groups.families:
        for layer in family.layers:
            coupled.setdefault(layer, {}).update(dict.fromkeys(other for other in family.layers if other != layer))
    try:
        costs = ChannelCosts(groups.graph, input_size=input_size)
        before, after = costs.macs_by_layer(np.ones_like(keep)), costs.macs_by_layer(keep)
    except InputError:  # the size of its pictures is open
        before, after = {}, {}
    macs = {path: (before[path], after[path]) for path in before}
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
