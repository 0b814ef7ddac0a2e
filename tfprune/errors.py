"""The two kinds of failure a person can meet, and the look-up that names the nearest guess."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class TfpruneError(Exception):
    """Base of every error tfprune raises on purpose; its text is written for the user."""


class InputError(TfpruneError):
    """The user's input is at fault. The command line prints it and exits with 2.

    The text says what was given, what is accepted, what to do, and where
    (recipe path, layer name or file).
    """


class FindingError(TfpruneError):
    """A check ran to its end and found something. The command line exits with 1."""


def nearest(given: str, accepted: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the accepted name closest to `given`, or None when nothing is as close as `cutoff` (0-1, 1 is equal).

    >>> nearest("poly", ["polynomial", "linear"])
    'polynomial'
    """
    names = list(accepted)
    close = difflib.get_close_matches(given.lower(), [name.lower() for name in names], n=1, cutoff=cutoff)
    if close:
        return next(name for name in names if name.lower() == close[0])
    return next((name for name in names if given and name.lower().startswith(given.lower())), None)


def unknown_name(kind: str, given: object, accepted: Iterable[str], where: str = "") -> InputError:
    """Return the error for a name that is in no table.

    >>> print(unknown_name("schedule", "linaer", ["linear", "polynomial"]))
    unknown schedule 'linaer'; did you mean 'linear'? Accepted: linear, polynomial
    """
    names = list(accepted)
    guess = nearest(str(given), names)
    hint = f"; did you mean '{guess}'?" if guess else "."
    place = f"{where}: " if where else ""
    return InputError(f"{place}unknown {kind} {given!r}{hint} Accepted: {', '.join(names)}")


def look_up(kind: str, given: str, table: Mapping[str, T], where: str = "") -> T:
    """Return `table[given]`, or raise the `InputError` of `unknown_name`."""
    try:
        return table[given]
    except (KeyError, TypeError):
        raise unknown_name(kind, given, table, where) from None


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place in front of the text of any `InputError` raised in the block.

    >>> with located("recipe.yaml: architecture"):
    ...     raise InputError("width is 0; give at least 1")
    Traceback (most recent call last):
    tfprune.errors.InputError: recipe.yaml: architecture: width is 0; give at least 1
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
