"""Criteria: evidence about the weights of a layer -> scores, higher = keep.

A criterion is a callable that takes an `Evidence` and returns an array of scores: one per weight,
of the weights' shape, or one per filter, of shape (filters,). It knows nothing of tfmot, of graphs
or of masks. One of your own is a function, or, with settings that are saved with the model, a
frozen dataclass:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> @dataclass(frozen=True)
    ... class Closeness:
    ...     centre: float = 1.0
    ...
    ...     def __call__(self, evidence):
    ...         return -np.abs(evidence.weights - self.centre)
    >>> Closeness()(Evidence("conv", np.array([[0.5, 1.0]])))
    array([[-0.5, -0. ]])

Hand it over as `MaskController(model, schedule, criterion=Closeness(0.9))`; where a saved model
that uses it is loaded, name its class: `with tfprune.pruning.scope(Closeness): ...`. A class
attribute `gathers = "taylor"` asks the training step for evidence (see `GATHERED`),
`needs_scale = True` for the gamma of the batch norm behind a layer; `compares_sizes = True` says that a
filter's score grows with its weights, which a norm behind it divides away.
"""

from __future__ import annotations

from tfprune.criteria.evidence import GATHERED, Criterion, Evidence
from tfprune.criteria.filters import GeometricMedian, NormScale, Redundancy
from tfprune.criteria.gradients import Movement, Taylor, TaylorGate
from tfprune.criteria.weights import Magnitude, Random

CRITERIA: dict[str, Criterion] = {
    "magnitude": Magnitude(),
    "magnitude_l2": Magnitude(power=2.0),
    "taylor": Taylor(),
    "taylor_gate": TaylorGate(),
    "movement": Movement(),
    "norm_scale": NormScale(),
    "geometric_median": GeometricMedian(),
    "redundancy": Redundancy(),
    "random": Random(),
}
"""The criteria that a recipe can name, with their default settings."""

__all__ = [
    "CRITERIA",
    "GATHERED",
    "Criterion",
    "Evidence",
    "GeometricMedian",
    "Magnitude",
    "Movement",
    "NormScale",
    "Random",
    "Redundancy",
    "Taylor",
    "TaylorGate",
]
