"""Masks on weights while a model trains: schedules, wrapped layers, the mask controller, strip.

Importing this package loads no TensorFlow; its modules do.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

SCHEDULES = ("polynomial", "linear", "movement", "iterative", "one_shot", "constant")
GRANULARITIES = ("weight", "block", "pattern", "filter")
SCOPES = ("layer", "global")


def scope(*classes: type) -> AbstractContextManager[Any]:
    """Return the one scope in which masked models and their schedules load.

    Args:
        classes: criteria and schedules of your own.

    >>> with scope():
    ...     schedule = None  # model = keras.models.load_model("masked.keras")
    """
    from tfprune.pruning.saving import custom_objects

    return custom_objects(*classes)
