"""From scores to what is kept: exact counts, over one layer or over many."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.errors import InputError

_BUFFERED = 1 << 22


def keep_highest(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Return a bool mask that keeps exactly n - round(n * sparsity) scores, the highest, at least one.

    Among equal scores the first are kept. It partitions and never sorts.

    >>> keep_highest(np.array([3.0, 1.0, 2.0, 0.5]), 0.5)
    array([ True, False,  True, False])
    """
    return _keep_count(scores, max(1, scores.size - round(scores.size * sparsity)))


def _keep_count(scores: np.ndarray, kept: int) -> np.ndarray:
    flat = scores.reshape(-1)
    if kept >= flat.size:
        return np.ones(scores.shape, bool)
    threshold = _smallest(flat, flat.size - kept)
    mask = flat >= threshold
    surplus = int(np.count_nonzero(mask)) - kept
    if surplus:
        mask[np.flatnonzero(flat == threshold)[-surplus:]] = False
    return mask.reshape(scores.shape)


def _smallest(flat: np.ndarray, rank: int) -> Any:
    """Return the score of a rank, 0 for the smallest.

    It partitions in memory that stays from layer to layer: page faults in fresh memory would cost
    as much as the partition itself.
    """
    if flat.size > _BUFFERED:
        return np.partition(flat, rank)[rank]
    part = _buffer(flat.dtype, threading.get_ident())[: flat.size]
    part[:] = flat
    part.partition(rank)
    return part[rank]


@functools.cache
def _buffer(dtype: np.dtype, thread: int) -> np.ndarray:
    return np.empty(_BUFFERED, dtype)


def keep_by_size(scores: np.ndarray, sizes: np.ndarray, sparsity: float) -> np.ndarray:
    """Return a bool mask over units of different sizes; the dropped ones hold as near as possible `sparsity` of all.

    >>> keep_by_size(np.array([4.0, 1.0, 2.0]), np.array([2, 4, 2]), 0.5)
    array([ True, False,  True])
    """
    if np.all(sizes == sizes[0]):
        return keep_highest(scores, sparsity)
    order = np.argsort(scores, kind="stable")
    dropped = np.concatenate([[0], np.cumsum(sizes[order])])
    count = int(np.argmin(np.abs(dropped - sparsity * sizes.sum())))
    mask = np.ones(scores.size, bool)
    mask[order[: min(count, scores.size - 1)]] = False
    return mask


def keep_over_all(
    scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray] | None, sparsity: float, *, normalize: bool = False
) -> list[np.ndarray]:
    """Rank the units of many layers together; return one bool mask per layer.

    At most 99 % of the units of a layer go, and one always stays.

    Args:
        scores: per layer, shape (units,).
        sizes: weights in each unit, like `scores`; None when a unit is a weight.
        sparsity: fraction of all weights to drop.
        normalize: divide a layer's scores by their Euclidean norm first (Molchanov et al. 2017).

    Raises:
        InputError: when the bound of 99 % leaves too few weights to drop.
    """
    ends = np.cumsum([layer.size for layer in scores])
    parts = [slice(end - layer.size, end) for layer, end in zip(scores, ends, strict=True)]
    ranked = np.empty(ends[-1], np.result_type(np.float32, *scores))
    for layer, part in zip(scores, parts, strict=True):
        # In float64: the squares of small Taylor scores are no float32.
        norm = float(np.linalg.norm(layer.astype(np.float64))) if normalize else 1.0
        np.divide(layer, norm or 1.0, out=ranked[part])
    flat = None if sizes is None else np.concatenate(sizes)
    mask = _keep(ranked, flat, sparsity)
    if _any_short(mask, parts):
        for part in parts:
            ranked[part][_keep_count(ranked[part], _at_least(part))] = np.inf
        mask = _keep(ranked, flat, sparsity)
        if _any_short(mask, parts):
            held = sum(map(_at_least, parts)) / ends[-1]
            raise InputError(
                f"a sparsity of {sparsity:g} over all layers cannot be met: at most 99 % of a layer goes, "
                f"which here is {1 - held:.4f} of all"
            )
    return np.split(mask, ends[:-1])


def _keep(scores: np.ndarray, sizes: np.ndarray | None, sparsity: float) -> np.ndarray:
    return keep_highest(scores, sparsity) if sizes is None else keep_by_size(scores, sizes, sparsity)


def _any_short(mask: np.ndarray, parts: Sequence[slice]) -> bool:
    return any(np.count_nonzero(mask[part]) < _at_least(part) for part in parts)


def _at_least(part: slice) -> int:
    """Return how many units of a layer stay whatever their scores: 1 %, and one."""
    units = part.stop - part.start
    return max(1, units - round(units * 0.99))
