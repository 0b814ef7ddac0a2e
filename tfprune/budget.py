"""The one budget language of recipes, the command line, searches and advice: what a model may cost at most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tfprune.errors import InputError, unknown_name

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "KiB": 2.0**10, "MiB": 2.0**20}
QUANTITIES: dict[str, Mapping[str, float]] = {
    "macs": _COUNT,
    "parameters": _COUNT,
    "file_bytes": _BYTES,
    "gzip_bytes": _BYTES,
    "activation_bytes": _BYTES,
    "arena_bytes": _BYTES,
    "latency_ms": {"": 1.0, "ms": 1.0},
}
"""What can be bounded -> its units. `x` (a share of the dense model) goes with all of them."""

_BOUND = re.compile(r"(?P<quantity>\w+)\s*<=\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[A-Za-z]*)")
_FORM = 'a budget is written like "file_bytes<=500KiB, arena_bytes<=320KiB, macs<=0.5x"'


@dataclass(frozen=True)
class Bound:
    """At most `most` of a quantity: in its unit (bytes, ms, a count), or as a share of the dense model."""

    quantity: str
    most: float
    is_share: bool = False

    def limit(self, dense: float) -> float:
        """Return the bound in the quantity's unit, given what the dense model has.

        >>> Bound("macs", 0.5, is_share=True).limit(300e6)
        150000000.0
        """
        return self.most * dense if self.is_share else self.most

    def __str__(self) -> str:
        """Return the bound as `parse_budget` reads it."""
        return f"{self.quantity}<={self.most:g}x" if self.is_share else f"{self.quantity}<={as_quantity(self)}"


def as_quantity(bound: Bound) -> str:
    """Write the number of a bound exactly, in the largest unit that leaves it short.

    >>> as_quantity(Bound("file_bytes", 512000)), as_quantity(Bound("macs", 1.5e6)), as_quantity(Bound("latency_ms", 5))
    ('500KiB', '1.5M', '5ms')
    """
    units = QUANTITIES[bound.quantity]
    texts = [f"{bound.most / size:.12g}{unit}" for unit, size in units.items() if bound.most >= size]
    return min(reversed(texts), key=lambda text: len(re.sub("[^0-9.]", "", text)), default=f"{bound.most:.12g}")


def write_amount(quantity: str, value: float) -> str:
    """Write an amount for people.

    >>> write_amount("file_bytes", 51_200), write_amount("macs", 1.24e8), write_amount("latency_ms", 5.128)
    ('50.0 KiB', '124,000,000', '5.13 ms')
    """
    if quantity.endswith("_bytes"):
        return f"{value / 1024:,.1f} KiB"
    return f"{value:,.2f} ms" if quantity.endswith("_ms") else f"{value:,.0f}"


def parse_budget(text: str) -> tuple[Bound, ...]:
    """Return the bounds of a budget; they hold together.

    >>> [str(bound) for bound in parse_budget("file_bytes<=500KiB, macs<=.5x, parameters <= 200k")]
    ['file_bytes<=500KiB', 'macs<=0.5x', 'parameters<=200k']

    Raises:
        InputError: with what is wrong and what is accepted.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"budget {text!r}: {_FORM}, of {', '.join(QUANTITIES)}")
    bounds = [_parse_bound(part.strip(), text) for part in text.split(",")]
    names = [bound.quantity for bound in bounds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"budget {text!r}: there are two bounds on {twice}; give the tighter one")
    return tuple(bounds)


def _parse_bound(part: str, text: str) -> Bound:
    place = f"budget {text!r}: "
    found = _BOUND.fullmatch(part)
    if found is None:
        raise InputError(f"{place}{part!r} is not QUANTITY<=NUMBER with a unit; {_FORM}")
    quantity, number, unit = found["quantity"], float(found["number"]), found["unit"]
    if quantity not in QUANTITIES:
        raise unknown_name("quantity", quantity, QUANTITIES, place.rstrip(": "))
    units = QUANTITIES[quantity]
    if number <= 0:
        raise InputError(f"{place}{part!r} leaves nothing; give a number above 0")
    if unit == "x":
        if number > 1:
            raise InputError(f"{place}{part!r}: x is a share of the dense model, at most 1x")
        return Bound(quantity, number, is_share=True)
    if unit not in units:
        accepted = ", ".join(name for name in units if name)
        raise InputError(
            f"{place}{part!r}: {quantity} has no unit {unit!r}; accepted: none, {accepted}, x (of the dense model)"
        )
    return Bound(quantity, number * units[unit])
