"""Criteria that judge whole filters: one score per output channel of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.evidence import Evidence


@dataclass(frozen=True)
class NormScale:
    """|gamma| of the batch norm that follows (Liu et al., "Network Slimming", ICCV 2017)."""

    needs_scale: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per filter."""
        return np.abs(evidence.scale)


@dataclass(frozen=True)
class GeometricMedian:
    """The sum of distances to all other filters: who is near the middle can be replaced.

    He et al., "Filter Pruning via Geometric Median", CVPR 2019, equation 7.

    >>> GeometricMedian()(Evidence("conv", np.array([[0.0, 1.0, 5.0]])))
    array([6., 5., 9.])
    """

    compares_sizes: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per filter."""
        rows = _rows(evidence)
        squares = np.sum(rows**2, axis=1)
        distances = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
        return np.sqrt(np.maximum(distances, 0)).sum(axis=1)


@dataclass(frozen=True)
class Redundancy:
    """RePr: with rows W normalised and P = |W W^T - I|, minus the mean of a filter's row of P.

    The most redundant filter goes first. Prakash et al., "RePr", CVPR 2019, equations 2 and 3.

    >>> Redundancy()(Evidence("conv", np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])))
    array([-0.33333333, -0.33333333, -0.        ])
    """

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per filter."""
        rows = _rows(evidence)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        overlap = np.abs(rows @ rows.T)
        np.fill_diagonal(overlap, 0)
        return -overlap.mean(axis=1)


def _rows(evidence: Evidence) -> np.ndarray:
    """Return the filters as rows, float64 (filters, weights of a filter)."""
    return evidence.weights.reshape(-1, evidence.weights.shape[-1]).T.astype(np.float64)
