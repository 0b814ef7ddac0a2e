"""Criteria that look at the weights alone, one score per weight."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfprune.criteria.evidence import Evidence


@dataclass(frozen=True)
class Magnitude:
    """|w|^power (Han et al. 2015; Zhu & Gupta 2017, arXiv 1710.01878); a filter's score is the sum.

    >>> Magnitude(power=2.0)(Evidence("conv", np.array([[-2.0, 1.0]])))
    array([[4., 1.]])
    """

    power: float = 1.0
    compares_sizes: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per weight."""
        sizes = np.abs(evidence.weights)
        return sizes if self.power == 1 else sizes**self.power


@dataclass(frozen=True)
class Random:
    """Chance, as a control: the same scores for a layer's name and a seed, so that masks only grow."""

    seed: int = 0

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return one score per weight, from 0 to 1."""
        rng = np.random.default_rng([self.seed, zlib.crc32(evidence.layer.encode())])
        return rng.random(evidence.weights.shape, np.float32)
