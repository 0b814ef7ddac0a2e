"""The trade-off that a search found: what no other trial beats, and how much of the room it covers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfprune.errors import InputError
from tfprune.recipe import load_recipe
from tfprune.recipe.search import Search
from tfprune.recipe.sections import Recipe
from tfprune.records import write_json
from tfprune.search.trials import TrialRecord, load_trials


def find_front(records: Sequence[TrialRecord], quality: str, cost: str) -> list[TrialRecord]:
    """Return the feasible trials that no other one beats in both quality and a cost, by growing cost."""
    front: list[TrialRecord] = []
    for record in sorted(_told(records, quality, cost), key=lambda one: (one.figures[cost], -one.figures[quality])):
        if not front or record.figures[quality] > front[-1].figures[quality]:
            front.append(record)
    return front


def measure_hypervolume(records: Sequence[TrialRecord], quality: str, cost: str, *, most: float) -> float:
    """Return the area under a front, as a share of the room between cost 0 and `most` and quality 0 and 1.

    It is the quality that one gets on average for a bound drawn evenly between 0 and `most` (0 where no trial is
    within the bound). Zitzler and Thiele, "Multiobjective evolutionary algorithms", 1999.

    >>> trials = [TrialRecord(name, "finished", {}, {"iou": iou, "macs": macs}) for name, iou, macs in
    ...           [("a", .5, 50.), ("b", .6, 75.), ("c", .4, 60.)]]
    >>> measure_hypervolume(trials, "iou", "macs", most=100.)  # .5 from 50 to 75, .6 from 75 on
    0.275
    """
    front = find_front(records, quality, cost)
    ends = [record.figures[cost] for record in front[1:]] + [most]
    areas = (one.figures[quality] * (end - one.figures[cost]) for one, end in zip(front, ends, strict=True))
    return sum(areas) / most if front else 0.0


def follow_hypervolume(records: Sequence[TrialRecord], quality: str, cost: str) -> list[float]:
    """Return the hypervolume after each trial, in the order in which they ended."""
    told = _told(records, quality, cost)
    if not told:
        return [0.0] * len(records)
    most = max(record.figures[cost] for record in told)
    ordered = in_order(records)
    return [measure_hypervolume(ordered[:count], quality, cost, most=most) for count in range(1, len(ordered) + 1)]


def in_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return trials in the order in which they ended."""
    return sorted(records, key=lambda record: (record.ended, record.trial))


def write_search_record(
    folder: str | Path, settings: Search, *, name: str, purpose: str = "", command: str = ""
) -> None:
    """Write `records/search.json`, all that a page on the search shows, from its trials.

    Args:
        folder: of the search.
        settings: of the search.
        name, purpose, command: what the page says of it.
    """
    records = in_order(load_trials(folder))
    fronts = {cost: [one.trial for one in find_front(records, settings.quality, cost)] for cost in settings.costs}
    record = {
        "name": name,
        "purpose": purpose,
        "command": command,
        **settings.model_dump(mode="json", include={"oracle", "quality", "constraints", "scheme"}),
        "planned": settings.trials,
        "costs": list(settings.costs),
        "ranges": {path: given.options for path, given in settings.ranges.items()},
        "trials": records,
        "fronts": fronts,
        "hypervolume": {cost: follow_hypervolume(records, settings.quality, cost) for cost in settings.costs},
    }
    write_json(Path(folder) / "records" / "search.json", record)


def load_searched(folder: str | Path) -> Recipe:
    """Return the recipe of a search from its folder.

    Raises:
        InputError: when the folder is none of a search.
    """
    path = Path(folder) / "recipe.yaml"
    recipe = load_recipe(path) if path.exists() else None
    if recipe is None or recipe.search is None:
        raise InputError(f"{folder} is not the folder of a recipe's search; `tfprune search run` writes one")
    return recipe


def _told(records: Sequence[TrialRecord], quality: str, cost: str) -> list[TrialRecord]:
    """Return the feasible trials that have both figures."""
    return [one for one in records if one.is_feasible and None not in (one.figures.get(quality), one.figures.get(cost))]
