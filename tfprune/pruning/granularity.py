"""Granularity within one kernel: which of its weights go together.

A kernel is seen with its filters last, shape (..., inputs, filters).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError
from tfprune.pruning.choice import keep_by_size, keep_highest


@dataclass(frozen=True)
class Weight:
    """Every weight for itself."""

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Return the bool mask of a kernel from the scores of its weights."""
        return keep_highest(scores, sparsity)

    def pool(self, scores: np.ndarray) -> tuple[np.ndarray, None]:
        """Return the scores of the units, shape (units,), and no sizes: a unit is a weight."""
        return scores.reshape(-1), None

    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the kernel's mask from the mask of its units."""
        return kept.reshape(shape)


@dataclass(frozen=True)
class Block:
    """Blocks of `height` inputs by `width` filters in the rank-2 view (everything else, filters).

    A block's score is the mean of its weights' scores, so that cut blocks at the edge are not
    worse off. tfmot has this for rank-2 kernels only.
    """

    height: int = 4
    width: int = 1

    def __post_init__(self) -> None:
        """Refuse an empty block."""
        if self.height < 1 or self.width < 1:
            raise InputError(f"block {self.height}x{self.width}: both sides must be at least 1")

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Return the bool mask of a kernel from the scores of its weights."""
        pooled, sizes = self.pool(scores)
        return self.spread(keep_by_size(pooled, sizes, sparsity), scores.shape)

    def pool(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean scores and sizes of the blocks, both of shape (blocks,)."""
        view = scores.reshape(-1, scores.shape[-1])
        sums, sizes = self._sum(view.astype(np.float64)), self._sum(np.ones(view.shape))
        return (sums / sizes).reshape(-1), sizes.reshape(-1)

    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the kernel's mask from the mask of its blocks."""
        rows, columns = math.prod(shape[:-1]), shape[-1]
        grid = kept.reshape(-(-rows // self.height), -(-columns // self.width))
        tiles = grid.repeat(self.height, axis=0).repeat(self.width, axis=1)
        return tiles[:rows, :columns].reshape(shape)

    def _sum(self, view: np.ndarray) -> np.ndarray:
        starts = np.arange(0, view.shape[0], self.height), np.arange(0, view.shape[1], self.width)
        return np.add.reduceat(np.add.reduceat(view, starts[0], axis=0), starts[1], axis=1)


@dataclass(frozen=True)
class Pattern:
    """N:M sparsity: `zeros` of every `of` consecutive inputs of a filter are zero (2:4 by default).

    Hardware with sparse tensor cores reads it. During a ramp the zeros per group grow with the
    schedule, rounded; a schedule that does not end at zeros / of is refused. Inputs left over at
    the end, when `of` does not divide their number, stay dense.
    """

    zeros: int = 2
    of: int = 4

    def __post_init__(self) -> None:
        """Refuse a pattern that keeps nothing or drops nothing."""
        if not 0 < self.zeros < self.of:
            raise InputError(f"pattern {self.zeros}:{self.of}: zeros must be between 1 and {self.of - 1}")

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Return the bool mask of a kernel from the scores of its weights."""
        zeros = min(self.zeros, round(sparsity * self.of))
        mask = np.ones(scores.shape, bool)
        whole = scores.shape[-2] // self.of * self.of
        if not whole or not zeros:
            return mask
        # (..., groups, of, filters): rank the members of each group.
        groups = scores[..., :whole, :].reshape(*scores.shape[:-2], -1, self.of, scores.shape[-1])
        ranks = groups.argsort(axis=-2, kind="stable").argsort(axis=-2)
        mask[..., :whole, :] = (ranks >= zeros).reshape(*scores.shape[:-2], whole, scores.shape[-1])
        return mask


KERNELWISE: dict[str, Weight | Block | Pattern] = {"weight": Weight(), "block": Block(), "pattern": Pattern()}
"""Name of a granularity within one kernel -> its usual form."""
