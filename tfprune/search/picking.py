"""`best iou with file_bytes<=500KiB`: the trial that a person asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfprune.budget import QUANTITIES, parse_budget, write_amount
from tfprune.errors import InputError, unknown_name
from tfprune.recipe.search import QUALITIES
from tfprune.search.trials import TrialRecord

_FORM = 'ask like "best iou with file_bytes<=500KiB, macs<=20M", or "best file_bytes with iou>=0.6"'
_ASKED = re.compile(r"\s*best\s+(?P<name>\w+)(?:\s+with\s+(?P<bounds>.+))?\s*")
_FLOOR = re.compile(r"(?P<name>\w+)\s*>=\s*(?P<number>\d*\.?\d+)")


def pick_trial(records: Sequence[TrialRecord], asked: str) -> TrialRecord:
    """Return the feasible trial that is asked for: the best in one figure, within bounds on others.

    Best is the highest for a quality and the lowest for a cost. Costs are bounded as in a budget, qualities from
    below.

    Raises:
        InputError: when it cannot be understood, or no trial is within the bounds.
    """
    found = _ASKED.fullmatch(asked)
    if found is None:
        raise InputError(f"{asked!r} is not understood; {_FORM}")
    name = found["name"]
    _check_name(name, asked)
    parts = [part.strip() for part in (found["bounds"] or "").split(",") if part.strip()]
    floors = [_read_floor(part, asked) for part in parts if ">=" in part]
    limits = [part for part in parts if ">=" not in part]
    bounds = parse_budget(", ".join(limits)) if limits else ()
    if any(bound.is_share for bound in bounds):
        raise InputError(f"{asked!r}: x is a share of a dense model, and there are many here; give a number")
    within = [record for record in records if record.is_feasible and record.figures.get(name) is not None]
    for bound in bounds:
        within = _keep(within, bound.quantity, asked, lambda value, most=bound.most: value <= most)
    for quality, least in floors:
        within = _keep(within, quality, asked, lambda value, least=least: value >= least)
    if not within:
        raise InputError(f"{asked!r}: no trial that keeps the search's constraints tells its {name}")
    sign = 1.0 if name in QUALITIES else -1.0
    return max(within, key=lambda record: (sign * record.figures[name], record.trial))


def _keep(records: list[TrialRecord], name: str, asked: str, is_within: object) -> list[TrialRecord]:
    told = [record for record in records if record.figures.get(name) is not None]
    kept = [record for record in told if is_within(record.figures[name])]
    if records and not kept:
        values = sorted(record.figures[name] for record in told)
        shown = (
            " to ".join(
                write_amount(name, value) if name in QUANTITIES else f"{value:.3f}" for value in (values[0], values[-1])
            )
            if values
            else "not known"
        )
        raise InputError(f"{asked!r}: no trial is within the bound on {name}; it is {shown} in those left")
    return kept


def _read_floor(part: str, asked: str) -> tuple[str, float]:
    found = _FLOOR.fullmatch(part)
    if found is None or found["name"] not in QUALITIES:
        raise InputError(f"{asked!r}: {part!r} is not QUALITY>=NUMBER, with one of {', '.join(QUALITIES)}; {_FORM}")
    return found["name"], float(found["number"])


def _check_name(name: str, asked: str) -> None:
    if name not in QUALITIES and name not in QUANTITIES:
        raise unknown_name("figure", name, [*QUALITIES, *QUANTITIES], repr(asked))
