"""Criteria that look at what the training step gathered from the gradients of the task loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.evidence import Evidence


@dataclass(frozen=True)
class Taylor:
    """First-order Taylor importance (g w)^2, a filter's score is the sum of squares.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 8.
    """

    gathers: ClassVar[str] = "taylor"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per weight."""
        return evidence.gathered


@dataclass(frozen=True)
class TaylorGate:
    """First-order Taylor importance of whole filters in gate form, (sum of g w)^2.

    It is the squared change of the loss when a gate on the filter's output closes, to first order.
    The sum is over all that goes with the filter; where a batch norm follows, over its gamma and
    beta alone. Molchanov et al., CVPR 2019, section 3.1.
    """

    gathers: ClassVar[str] = "taylor_filters"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per filter."""
        return evidence.gathered


@dataclass(frozen=True)
class Movement:
    """Movement pruning: scores trained with a straight-through gradient; the highest signed ones stay.

    A score rises while its weight moves away from zero. Sanh et al., "Movement Pruning", NeurIPS
    2020 (arXiv 2005.07683), section 4. The scores have an Adam of their own, at 1e-2.
    """

    gathers: ClassVar[str] = "movement"

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per weight."""
        return evidence.gathered
