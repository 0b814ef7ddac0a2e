"""Criteria: evidence about weights -> scores, higher = keep.

A criterion is a callable `(weights) -> scores` of the same shape. It knows nothing of tfmot,
of graphs or of masks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Criterion = Callable[[np.ndarray], np.ndarray]


def magnitude(weights: np.ndarray) -> np.ndarray:
    """Score each weight by its absolute value (Han et al. 2015; Zhu & Gupta 2017).

    >>> magnitude(np.array([-2.0, 1.0]))
    array([2., 1.])
    """
    return np.abs(weights)


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude}
