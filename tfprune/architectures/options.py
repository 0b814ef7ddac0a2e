"""The checks that builders of nets have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.errors import InputError


def check_whole(net: str, low: int, high: int | None, **values: Any) -> None:
    """Refuse what is not a whole number from `low` to `high` (None: any).

    >>> check_whole("fcn", 1, 7, depth=9)
    Traceback (most recent call last):
    tfprune.errors.InputError: fcn: depth must be a whole number from 1 to 7, not 9
    """
    for name, value in values.items():
        if not _is_whole(value) or value < low or (high is not None and value > high):
            accepted = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise InputError(f"{net}: {name} must be a whole number {accepted}, not {value!r}")


def check_wholes(net: str, count: int | None, **values: Any) -> tuple[int, ...]:
    """Return the one list given as a tuple; refuse what is not `count` (None: any) whole numbers of at least 1."""
    ((name, value),) = values.items()
    listed = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
    if listed is None or count not in (None, len(listed)) or not all(_is_whole(one) and one >= 1 for one in listed):
        number = {None: "a list of", 4: "four", 5: "five"}.get(count, str(count))
        raise InputError(f"{net}: {name} must be {number} whole numbers of at least 1, not {value!r}")
    return listed


def check_flags(net: str, **values: Any) -> None:
    """Refuse what is neither true nor false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"{net}: {name} must be true or false, not {value!r}")


def check_rate(net: str, **values: Any) -> None:
    """Refuse what is not a number in 0..1, below 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(f"{net}: {name} must be a number in 0..1, below 1, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
