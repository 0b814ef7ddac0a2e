"""Masks on weights while a model trains: schedules, wrapped layers, the mask controller, strip.

Importing this package loads no TensorFlow; its modules do.
"""

from __future__ import annotations

SCHEDULES = ("polynomial", "linear")
