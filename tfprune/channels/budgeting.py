"""Plans that meet a budget: the mildest removal under which every bound holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfprune.budget import Bound
from tfprune.channels.counting import ChannelCosts
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.plan import Met
from tfprune.channels.planning import RankedFamily, Selection, choose_ranked, rank_families
from tfprune.channels.rebuild import rebuild
from tfprune.channels.unreachable import explain_unreachable
from tfprune.errors import InputError

Measure = Callable[[Any], float]
"""What a model costs on a target: `measure(model)` -> file bytes, arena bytes or milliseconds."""

COUNTED = ("macs", "parameters", "activation_bytes")
"""Quantities that are counted from the plan; all others are measured on a model that is built."""

PROXIES = {
    "file_bytes": "parameters",
    "gzip_bytes": "parameters",
    "arena_bytes": "activation_bytes",
    "latency_ms": "macs",
}
_RATIO_STEPS = 2048
_MOST_MEASUREMENTS = 6
_AIM, _NEAR_ENOUGH = 0.985, 0.96
"""Shares of a bound: what a guess aims at, and from where on no milder plan is looked for."""


class BudgetPlanner:
    """Finds what has to go for a budget.

    Channels go by the selection's ranking, at the lowest ratio that MACs, parameters, file bytes and
    milliseconds allow. Before that, where memory is bounded, channels that are alive at the peak of
    the activations go step by step, those first that cost the least score for the values freed there.

    A quantity that only a built model tells is guessed from one that can be counted (file bytes from
    parameters, the arena from activations, milliseconds from MACs) along a line through two
    measurements, so that a handful of models is built; where no such guess holds, by halves.

    Args:
        groups: of the dense model.
        scores: one per group, higher = keep.
        selection: budget, guards, multiples, scope.
        costs: of the dense model.
        value_bytes: bytes of one activation value in the number format that counts.
        measures: quantity -> how it is measured.

    Raises:
        InputError: when a bound asks for a quantity that nothing measures.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        scores: np.ndarray,
        selection: Selection,
        costs: ChannelCosts,
        *,
        value_bytes: int = 1,
        measures: Mapping[str, Measure] | None = None,
    ) -> None:
        self.groups, self.scores, self.selection, self.costs = groups, scores, selection, costs
        self.value_bytes, self.measures = value_bytes, dict(measures or {})
        self._ranked = rank_families(groups, scores, selection)
        self._measured: dict[tuple[str, bytes], float] = {}
        self._nothing = np.zeros(len(groups), bool)
        for bound in selection.budget:
            if bound.quantity not in COUNTED and bound.quantity not in self.measures:
                accepted = ", ".join([*COUNTED, *self.measures])
                raise InputError(f"budget {bound}: nothing measures {bound.quantity} here; accepted: {accepted}")

    def choose(self) -> tuple[np.ndarray, tuple[Met, ...]]:
        """Return which groups go, bool (groups,), and how each bound is met.

        Raises:
            InputError: when a bound cannot be met, with the numbers and what would help.
        """
        gone = self._nothing
        for bound in sorted(self.selection.budget, key=_turn):
            quantity, limit = bound.quantity, self._limit(bound)
            if self.cost(quantity, gone) <= limit:
                continue
            gone = (self._shrink if quantity in COUNTED else self._shrink_measured)(quantity, limit, gone)
            if self.cost(quantity, gone) > limit:
                raise explain_unreachable(
                    bound,
                    self.selection,
                    self.costs,
                    self.groups.keep(gone),
                    before=self.cost(quantity, self._nothing),
                    least=self.cost(quantity, gone),
                    limit=limit,
                )
        return gone, tuple(self._met(bound, gone) for bound in self.selection.budget)

    def _limit(self, bound: Bound) -> float:
        return bound.limit(self.cost(bound.quantity, self._nothing)) if bound.is_share else bound.most

    def _met(self, bound: Bound, gone: np.ndarray) -> Met:
        before, after = (self.cost(bound.quantity, mask) for mask in (self._nothing, gone))
        return Met(bound.quantity, self._limit(bound), before, after)

    def cost(self, quantity: str, gone: np.ndarray) -> float:
        """Return a quantity of the model without the groups that are gone, counted, or measured once."""
        keep = self.groups.keep(gone)
        if quantity == "macs":
            return self.costs.macs(keep)
        if quantity == "parameters":
            return self.costs.parameters(keep)
        if quantity == "activation_bytes":
            return self.value_bytes * self.costs.peak(keep)[0]
        key = (quantity, gone.tobytes())
        if key not in self._measured:
            model = rebuild(self.groups.graph, keep) if gone.any() else self.groups.graph.model
            self._measured[key] = float(self.measures[quantity](model))
        return self._measured[key]

    def _shrink(self, quantity: str, limit: float, gone: np.ndarray) -> np.ndarray:
        """Return `gone` and the least more under which a counted quantity is within a limit, else the most."""
        if quantity == "activation_bytes":
            return self._relieve(limit, gone)

        def removed(step: int) -> np.ndarray:
            ratio = step / _RATIO_STEPS
            return gone | choose_ranked(self.groups, self.scores, self._ranked, scope=self.selection.scope, ratio=ratio)

        low, high = 0, _RATIO_STEPS - 1
        while low < high:
            middle = (low + high) // 2
            if self.cost(quantity, removed(middle)) <= limit:
                high = middle
            else:
                low = middle + 1
        return removed(low)

    def _shrink_measured(self, quantity: str, limit: float, gone: np.ndarray) -> np.ndarray:
        """Do the same for a measured quantity, by limits on its proxy that are guessed from measurements."""
        proxy = PROXIES[quantity]

        def point(mask: np.ndarray) -> tuple[float, float]:
            return self.cost(proxy, mask), self.cost(quantity, mask)

        points, passing = {point(self._nothing), point(gone)}, None
        for _ in range(_MOST_MEASUREMENTS):
            tried = self._shrink(proxy, _guess(points, limit), gone)
            is_new = point(tried) not in points
            points.add(point(tried))
            if self.cost(quantity, tried) <= limit:
                passing = tried
            if not is_new or _NEAR_ENOUGH * limit <= self.cost(quantity, tried) <= limit:
                break
        return self._bisect(quantity, limit, gone) if passing is None else passing

    def _bisect(self, quantity: str, limit: float, gone: np.ndarray) -> np.ndarray:
        """Do the same where a quantity falls in a step, which no line finds: halve the way to the strongest removal."""
        proxy = PROXIES[quantity]
        passing, too_much = self._shrink(proxy, 0.0, gone), self.cost(proxy, gone)
        for _ in range(_MOST_MEASUREMENTS if self.cost(quantity, passing) <= limit else 0):
            tried = self._shrink(proxy, (self.cost(proxy, passing) + too_much) / 2, gone)
            if self.cost(quantity, tried) <= limit:
                passing = tried
            else:
                too_much = self.cost(proxy, tried)
        return passing

    def _relieve(self, limit: float, gone: np.ndarray) -> np.ndarray:
        """Take, while the peak is too high, the step that costs the least score for each value it frees there."""
        gone = gone.copy()
        while True:
            keep = self.groups.keep(gone)
            peak, moment = self.costs.peak(keep)
            if self.value_bytes * peak <= limit:
                return gone
            alive = np.unique(self.groups.numbers(np.concatenate([self.costs.labels(key) for key in moment.alive])))
            before = sum(self.costs.tensor_size(key, keep) for key in moment.alive)
            best, best_price = None, np.inf
            # What passes the peak must pass all of its layers: the narrower one is, the dearer its next channel.
            for family in self._ranked:
                step = _next_step(family, gone) if np.isin(family.groups, alive).any() else None
                if step is None or self._would_empty(step, gone):
                    continue
                after = gone.copy()
                after[step] = True
                without = self.groups.keep(after)
                freed = before - sum(self.costs.tensor_size(key, without) for key in moment.alive)
                narrowness = len(family.groups) / np.count_nonzero(~gone[family.groups])
                price = narrowness * self.scores[step].sum() / freed if freed else np.inf
                if price < best_price:
                    best, best_price = step, price
            if best is None:
                return gone
            gone[best] = True

    def _would_empty(self, step: np.ndarray, gone: np.ndarray) -> bool:
        after = gone.copy()
        after[step] = True
        return any(after[together].all() for together in self.groups.never_empty)


def _turn(bound: Bound) -> tuple[bool, bool]:
    """Return the place of a bound in the order: memory first, for it says where; what is counted before the rest."""
    memory = "activation_bytes" in (bound.quantity, PROXIES.get(bound.quantity))
    return not memory, bound.quantity not in COUNTED


def _next_step(family: RankedFamily, gone: np.ndarray) -> np.ndarray | None:
    """Return the groups that go when a family becomes one step narrower, None when it may not."""
    staying = family.groups[~gone[family.groups]]
    fewer = [count for count in family.may_stay if count < len(staying)]
    return staying[fewer[-1] :] if fewer else None


def _guess(points: set[tuple[float, float]], limit: float) -> float:
    """Return the value of a proxy at which a measured quantity should be just within its limit.

    Args:
        points: (proxy, measured), at least one of them above the limit.
        limit: of the measured quantity.
    """
    ordered = sorted(points)
    above = next(point for point in ordered if point[1] > limit)
    below = [point for point in ordered if point[0] < above[0]]
    other = below[-1] if below else next((point for point in ordered if point[0] > above[0]), (0.0, 0.0))
    slope = (above[1] - other[1]) / (above[0] - other[0])
    if slope <= 0:  # noise of a clock
        return above[0] * _AIM * limit / above[1]
    guess = above[0] - (above[1] - _AIM * limit) / slope
    floor = below[-1][0] if below else 0.0
    return max(guess, floor)
