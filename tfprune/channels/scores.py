"""Scores of groups: a criterion judges every layer, and a group gets what its slices got. Higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tfprune.channels.graph import Slot
from tfprune.channels.groups import ChannelGroups
from tfprune.criteria import CRITERIA, Criterion, Evidence
from tfprune.errors import InputError, look_up, unknown_name
from tfprune.keras import keras, tf

Reduction = Literal["mean", "max", "l2"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "max", "l2")
_OF_NORMS = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class Gathered:
    """Gradient evidence from batches: per kernel the mean of t^2, per slot the mean of (sum of t)^2.

    t = gradient of the task loss * weight (Molchanov et al., CVPR 2019).
    """

    weights: dict[int, np.ndarray] = field(default_factory=dict)
    filters: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)


def gather_taylor(groups: ChannelGroups, batches: Iterable[Any], loss: Callable[[Any, Any], Any]) -> Gathered:
    """Gather the evidence of the Taylor criteria over (images, truth) batches; nothing is trained.

    Args:
        groups: of the model that is asked.
        batches: at least one; a dataset's `take(n)` does.
        loss: (truth, outputs) -> loss per image or one number; task loss only, no weight decay.

    Raises:
        InputError: when there is no batch.
    """
    model, slots = groups.graph.model, _kernel_slots(groups)
    kernels = list({id(slot.variable): slot.variable for _, slot in slots}.values())
    weights = {id(kernel): np.zeros(kernel.shape) for kernel in kernels}
    filters = {(id(slot.variable), slot.axis): np.zeros(len(slot.labels)) for _, slot in slots}

    @tf.function
    def products(images: Any, truth: Any) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernels)
            value = tf.reduce_mean(loss(truth, model(images, training=False)))
        gradients = tape.gradient(value, kernels, unconnected_gradients="zero")
        return [gradient * kernel for gradient, kernel in zip(gradients, kernels, strict=True)]

    count = 0
    for images, truth in batches:
        count += 1
        for kernel, product in zip(kernels, products(images, truth), strict=True):
            values = product.numpy().astype(np.float64)
            weights[id(kernel)] += values**2
            for axis in range(values.ndim):
                if (id(kernel), axis) in filters:
                    filters[id(kernel), axis] += _per_position(values, axis) ** 2
    if not count:
        raise InputError("Taylor scores need at least one batch of images and truth; none was given")
    mean = {key: value / count for key, value in weights.items()}
    return Gathered(mean, {key: value / count for key, value in filters.items()})


def score_groups(
    groups: ChannelGroups,
    *,
    criterion: str | Criterion = "magnitude",
    reduction: Reduction = "mean",
    gathered: Gathered | None = None,
) -> np.ndarray:
    """Return one score per group, shape (groups,).

    Every kernel that makes or reads the channels is judged with those channels as its filters. A
    criterion that `compares_sizes` does not judge kernels in front of a norm, which divides the sizes
    of their filters away, where other kernels read the channels. The scores of one kernel are divided
    by their mean size, so that layers compare, and a group gets the mean, the maximum or the root mean
    square over its slices. Where a criterion gives negative scores, all are raised such that the lowest
    is 0, before they are squared.

    Args:
        groups: the groups.
        criterion: a name of `tfprune.criteria.CRITERIA` or a criterion.
        reduction: `mean`, `max` or `l2`.
        gathered: evidence from batches, for the Taylor criteria.

    Raises:
        InputError: for an unknown name, or evidence that is missing.
    """
    judge = look_up("criterion", criterion, CRITERIA) if isinstance(criterion, str) else criterion
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    by_norm = getattr(judge, "needs_scale", False)
    slots = _norm_slots(groups) if by_norm else _kernel_slots(groups)
    if getattr(judge, "compares_sizes", False):
        slots = _sized(groups, slots)
    by_slot: dict[int, np.ndarray] = {}
    variable = values = None
    for index, slot in slots:
        # The slots of a kernel follow each other. All kernels at once would be a second copy of the model.
        if slot.variable is not variable:
            variable, values = slot.variable, keras.backend.get_value(slot.variable)
        by_slot[index] = _slot_scores(slot, values, judge, gathered)
    scores = _reduce(groups, by_slot, reduction)
    if by_norm and np.isnan(scores).any():
        # A layer without a norm has no gamma: next to the layers that have one, its kernel speaks.
        scores = np.where(np.isnan(scores), score_groups(groups, reduction=reduction), scores)
    # Weights and prices multiply scores: below zero the dearest channels would be the first to go.
    return scores - min(0.0, float(scores.min(initial=0.0)))


def _kernel_slots(groups: ChannelGroups) -> list[tuple[int, Slot]]:
    return [
        (index, slot)
        for index, slot in enumerate(groups.slots)
        if slot.role in ("out", "in") and len(slot.variable.shape) > 1
    ]


def _sized(groups: ChannelGroups, kernels: list[tuple[int, Slot]]) -> list[tuple[int, Slot]]:
    """Return the slots of kernels but those in front of a norm whose channels other kernels read.

    Behind a norm a filter times any number makes the same channel.
    """
    normed = _touched(groups, [slot for slot in groups.slots if _parameter(slot) in _OF_NORMS])
    told = normed & _touched(groups, [slot for _, slot in kernels if slot.role == "in"])

    def has_size(slot: Slot) -> bool:
        numbers = groups.numbers(slot.labels)
        return slot.role == "in" or not told[numbers[numbers >= 0]].all()

    return [(index, slot) for index, slot in kernels if has_size(slot)]


def _touched(groups: ChannelGroups, slots: Iterable[Slot]) -> np.ndarray:
    """Return which groups have a slice of these slots, bool (groups,)."""
    numbers = np.concatenate([*(groups.numbers(slot.labels) for slot in slots), np.zeros(0, np.int64)])
    touched = np.zeros(len(groups), bool)
    touched[numbers[numbers >= 0]] = True
    return touched


def _parameter(slot: Slot) -> str:
    return slot.variable.name.split("/")[-1].split(":")[0] if slot.role == "thru" else ""


def _norm_slots(groups: ChannelGroups) -> list[tuple[int, Slot]]:
    return [(index, slot) for index, slot in enumerate(groups.slots) if _parameter(slot) == "gamma"]


def _slot_scores(slot: Slot, values: np.ndarray, judge: Criterion, gathered: Gathered | None) -> np.ndarray:
    """Return one score per position of a slot, of mean size 1."""
    weights = np.moveaxis(values.astype(np.float32, copy=False), slot.axis, -1)
    wanted = getattr(judge, "gathers", None)
    found = None
    if wanted is not None:
        found = _evidence(slot, wanted, gathered)
    scale = weights if weights.ndim == 1 else None
    name = f"{slot.layer}:{slot.axis}"
    scores = np.asarray(judge(Evidence(name, np.atleast_2d(weights), gathered=found, scale=scale)))
    scores = _per_position(scores, scores.ndim - 1)
    return scores / max(float(np.abs(scores).mean()), np.finfo(np.float64).tiny)


def _evidence(slot: Slot, wanted: str, gathered: Gathered | None) -> np.ndarray:
    if wanted not in ("taylor", "taylor_filters"):
        raise InputError(
            f"this criterion needs '{wanted}', which only training gathers; for groups of channels use magnitude, "
            "taylor, taylor_gate, norm_scale, geometric_median, redundancy or random"
        )
    if gathered is None:
        raise InputError("this criterion needs gradients: hand over batches and a loss")
    if wanted == "taylor_filters":
        return gathered.filters[id(slot.variable), slot.axis]
    return np.moveaxis(gathered.weights[id(slot.variable)], slot.axis, -1)


def _per_position(values: np.ndarray, axis: int) -> np.ndarray:
    return values.sum(axis=tuple(other for other in range(values.ndim) if other != axis)).astype(np.float64)


def _reduce(groups: ChannelGroups, scores: dict[int, np.ndarray], reduction: Reduction) -> np.ndarray:
    """Bring scores per slot position together per group; NaN for a group that has none."""
    offsets = np.zeros(len(groups.slots), np.int64)
    flat, start = [], 0
    for index, values in scores.items():
        offsets[index] = start
        flat.append(values)
        start += len(values)
    judged = np.isin(groups.slot_index, list(scores))
    group_of = groups.group_of[judged]
    values = np.concatenate([*flat, np.zeros(0)])[offsets[groups.slot_index[judged]] + groups.positions[judged]]
    counts = np.bincount(group_of, minlength=len(groups)).astype(float)
    counts[counts == 0] = np.nan
    if reduction == "max":
        result = np.full(len(groups), -np.inf)
        np.maximum.at(result, group_of, values)
        return np.where(np.isnan(counts), np.nan, result)
    if reduction == "l2":
        values = values - min(0.0, float(values.min(initial=0.0)))
        return np.sqrt(np.bincount(group_of, values**2, minlength=len(groups)) / counts)
    return np.bincount(group_of, values, minlength=len(groups)) / counts


def weigh_by_rank(groups: ChannelGroups, scores: np.ndarray) -> np.ndarray:
    """Return scores to rank over all layers: the n-th best of C channels counts times the root of (root of C / n).

    Equal scores then leave widths in proportion to the roots of what they were. Halfway between equal shares
    (C / n), where narrow layers keep a channel or two that everything has to pass, and equal numbers (1 / n,
    as in LAMP, Lee et al., ICLR 2021), where wide layers lose nearly all.
    """
    weighed = scores.copy()
    for family in groups.families:
        order = family.groups[np.argsort(-weighed[family.groups], kind="stable")]
        weighed[order] *= np.sqrt(np.sqrt(len(order)) / np.arange(1, len(order) + 1))
    return weighed
