"""The records of the trials of a search: what was tried, what came of it, and what the oracle is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from tfprune.budget import Bound, parse_budget, write_amount
from tfprune.errors import InputError, TfpruneError
from tfprune.recipe.search import Search
from tfprune.records import read_json, write_json

FINISHED, REJECTED, FAILED = "finished", "rejected", "failed"
_WORST = -1.0
"""What an oracle is told of a trial that is of no use: below every quality."""


class RejectedTrial(TfpruneError):
    """A trial that breaks a constraint by its shape alone, with the figures that say so."""

    def __init__(self, text: str, figures: Mapping[str, float]) -> None:
        super().__init__(text)
        self.figures = dict(figures)


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        trial: its name, and that of its folder.
        status: `finished`, `rejected` (breaks a constraint by shape alone, not trained) or `failed`.
        values: path -> value.
        figures: name -> number: qualities (`test_` of them on the test split), costs in their units.
        broken: the constraints that its figures break.
        reason: why it was rejected, or failed.
        seconds: of work, in the start that finished it.
        ended: when, by the clock of the machine.
        worker: who ran it.
    """

    trial: str
    status: str
    values: dict[str, Any]
    figures: dict[str, float | None] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    reason: str | None = None
    seconds: float = 0.0
    ended: str = ""
    worker: str = ""

    @property
    def is_feasible(self) -> bool:
        """Whether it is finished and breaks no constraint."""
        return self.status == FINISHED and not self.broken

    def save(self, folder: Path) -> None:
        """Write `trial.json` into the trial's folder."""
        write_json(folder / "trial.json", self)


def load_trial(folder: Path) -> TrialRecord | None:
    """Return the record in a trial's folder, None where the trial has not ended."""
    path = folder / "trial.json"
    if not path.exists():
        return None
    content = read_json(path)
    return TrialRecord(**{**content, "broken": tuple(content["broken"])})


def load_trials(folder: str | Path) -> list[TrialRecord]:
    """Return the records of all trials of a search that have ended, by name."""
    loaded = (load_trial(place) for place in sorted(Path(folder, "trials").glob("trial_*")))
    return [record for record in loaded if record is not None]


def bounded_costs(settings: Search) -> tuple[str, ...]:
    """Return the costs that the constraints of a search bound."""
    return tuple(bound.quantity for bound in _bounds(settings))


def find_limits(settings: Search, reference: Mapping[str, float] | None = None) -> dict[str, tuple[str, float]]:
    """Return the constraints of a search: quantity -> the bound as it was written, and its limit.

    Args:
        settings: the search.
        reference: the costs that bounds with `x` are shares of, as far as they are known.

    Raises:
        InputError: for a share of something that is not known before the search.
    """
    costs, limits = reference or {}, {}
    for bound in _bounds(settings):
        if bound.is_share and bound.quantity not in costs:
            raise InputError(
                f"constraints {settings.constraints!r}: x is a share of the recipe as it is written, and its "
                f"{bound.quantity} is not known before the search; give a number"
            )
        limits[bound.quantity] = (str(bound), bound.limit(costs.get(bound.quantity, 0.0)))
    return limits


def _bounds(settings: Search) -> tuple[Bound, ...]:
    return parse_budget(settings.constraints) if settings.constraints else ()


def find_broken(limits: Mapping[str, tuple[str, float]], figures: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return the bounds that figures break, as they were written."""
    return tuple(text for name, (text, limit) in limits.items() if (figures.get(name) or 0.0) > limit)


def explain_broken(limits: Mapping[str, tuple[str, float]], figures: Mapping[str, float]) -> str:
    """Return in words which limits figures exceed."""
    return ", ".join(
        f"{name} is {write_amount(name, figures[name])}, at most {write_amount(name, limit)}"
        for name, (_, limit) in limits.items()
        if figures.get(name, 0.0) > limit
    )


def check_figures(settings: Search, limits: Mapping[str, Any], figures: Any) -> dict[str, Any]:
    """Return the figures of a trial, when they tell all that the search asks for.

    Raises:
        InputError: when a name is absent, or its figure is neither None nor a finite number; an oracle that is told
            of a NaN asks for the trial again, without end.
    """
    if not isinstance(figures, Mapping):
        raise InputError(f"the trial gave {figures!r}; it has to give its figures by name, a dict")
    asked = dict.fromkeys((settings.quality, *settings.costs, *limits))
    absent = [name for name in asked if name not in figures]
    if absent:
        raise InputError(f"the trial's figures lack {', '.join(absent)}; it gave {', '.join(figures) or 'none'}")
    wrong = [f"{name} is {figures[name]!r}" for name in asked if not _is_figure(name, figures[name], settings)]
    if wrong:
        raise InputError(f"{', '.join(wrong)}; accepted are finite numbers (costs from 0), or None")
    return dict(figures)


def _is_figure(name: str, value: Any, settings: Search) -> bool:
    if value is None:
        return True
    return isinstance(value, Real) and math.isfinite(value) and (name == settings.quality or value >= 0)


def score_trial(settings: Search, record: TrialRecord) -> float:
    """Return what an oracle is told: quality, less what costs are worth; -1 for what is of no use.

    A cost counts by its logarithm: `costs: {file_bytes: 0.02}` says that halving the file is worth .02.
    """
    quality = record.figures.get(settings.quality)
    if not record.is_feasible or quality is None:
        return _WORST
    worth = sum(
        weight * math.log2(record.figures[name]) for name, weight in settings.costs.items() if record.figures.get(name)
    )
    return quality - worth
