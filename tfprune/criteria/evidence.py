"""What a criterion may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GATHERED = ("taylor", "taylor_filters", "movement")
"""What a training step can gather for a criterion that names it in its attribute `gathers`.

With t = (dL/dW') * w, L the task loss alone and W' the weights after masking: `taylor` is the mean of
t^2 over the steps since the last mask update, `taylor_filters` the mean of (the sum of t over a
filter)^2, and `movement` the scores that Adam (learning rate 1e-2) has trained with the gradient t from
the first step on. For movement w is the value that a masked weight keeps, so that its score goes on and
it may come back. For Taylor it is the weight as it stands: a masked one is zero, has no importance and
stays away. (At a trained weight the first-order term is noise around zero, at a masked one it is not:
ranked together, the masked ones came back at every update, 80 % of all that was kept at the last.)
"""


@dataclass(frozen=True)
class Evidence:
    """What is known about one layer when its masks are set.

    Attributes:
        layer: the name of the layer.
        weights: its kernel, filters last, shape (..., filters); a masked weight has the value it keeps.
        gathered: what the training step gathered, of the kernel's shape, or (filters,) for `taylor_filters`.
        scale: gamma of the batch norm that follows, shape (filters,), for a criterion whose attribute
            `needs_scale` is true.
    """

    layer: str
    weights: np.ndarray
    gathered: np.ndarray | None = None
    scale: np.ndarray | None = None


Criterion = Callable[[Evidence], np.ndarray]
