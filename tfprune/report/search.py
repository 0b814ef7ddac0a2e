"""A search as one self-contained page, and as what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfprune.errors import InputError
from tfprune.records import read_json, write_text
from tfprune.report.page import render
from tfprune.report.search_figures import draw_cost_front, draw_hypervolume, draw_parallel
from tfprune.report.tables import Cell
from tfprune.report.wording import COSTS, as_cost, as_duration, as_score, describe_values

PAGE_NAME = "search.html"
_ON_FRONT = "◆"


def read_search(folder: str | Path) -> dict[str, Any]:
    """Return the record of a search, `records/search.json`.

    Raises:
        InputError: when the folder has none.
    """
    path = Path(folder) / "records" / "search.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no record of a search; it is written when the search stops: give its command again"
        )
    return read_json(path)


def write_search_page(folder: str | Path) -> Path:
    """Write `search.html` into the folder of a search from its record, atomically, and return its path."""
    search = read_search(folder)
    path = Path(folder) / PAGE_NAME
    write_text(path, render("search.html", **describe_search_page(search)))
    return path


def describe_search_page(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the page shows, as plain values for the template."""
    costs, quality = search["costs"], search["quality"]
    fronts = [(COSTS[cost].label, draw_cost_front(search, cost)) for cost in costs]
    return {
        "name": search["name"],
        "subtitle": search["purpose"],
        "facts": list_facts(search),
        "lead": describe_search(search),
        "quality": quality,
        "fronts": [(label, figure) for label, figure in fronts if figure],
        "hypervolume": draw_hypervolume(search),
        "parallel": draw_parallel(search),
        "heads": [(f"{quality}", "validation"), (f"{quality}", "test")]
        + [(COSTS[cost].label, COSTS[cost].unit) for cost in costs],
        "trials": [(trial, _cells(search, trial), describe_values(trial["values"])) for trial in _ranked(search)],
        "command": search["command"],
    }


def list_facts(search: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the few facts that stand under the title."""
    trials = search["trials"]
    planned = f" of {search['planned']}" if search["planned"] else ""
    facts = [
        ("oracle", search["oracle"]),
        ("trials", f"{len(trials)}{planned}"),
        ("judged file", search["scheme"]),
        ("constraints", search["constraints"]),
        ("work", as_duration(sum(trial["seconds"] for trial in trials))),
    ]
    return [(name, str(value)) for name, value in facts if value]


def describe_search(search: Mapping[str, Any]) -> str:
    """Return what came of a search in a few sentences."""
    trials, quality = search["trials"], search["quality"]
    feasible = [trial for trial in trials if trial["status"] == "finished" and not trial["broken"]]
    counts = {
        "rejected by shape before training": sum(trial["status"] == "rejected" for trial in trials),
        "failed": sum(trial["status"] == "failed" for trial in trials),
        "trained and over a constraint": sum(
            trial["status"] == "finished" and bool(trial["broken"]) for trial in trials
        ),
    }
    told = "".join(f", {count} {text}" for text, count in counts.items() if count)
    text = f"{len(trials)} trials have ended, {len(feasible)} of them within the constraints{told}."
    scored = [trial for trial in feasible if trial["figures"].get(quality) is not None]
    if not scored:
        return text
    best = max(scored, key=lambda trial: trial["figures"][quality])
    costs = [f"{COSTS[cost].label} {as_cost(cost, best['figures'].get(cost), unit=True)}" for cost in search["costs"]]
    return f"{text} Best: {best['trial']}, {quality} {as_score(best['figures'][quality])}, {', '.join(costs)}."


def summarise_search(folder: str | Path) -> RenderableType:
    """Return what the terminal shows of a search: the trials on a front, for 80 columns and more."""
    search = read_search(folder)
    quality, costs = search["quality"], search["costs"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("trial")
    for head in (
        f"{quality}\nval",
        f"{quality}\ntest",
        *(f"{COSTS[cost].short}\n{COSTS[cost].unit}" for cost in costs),
    ):
        table.add_column(Text(head, justify="right"), justify="right", no_wrap=True)
    on_front = [trial for trial in _ranked(search) if _is_on_front(search, trial)]
    for trial in on_front:
        table.add_row(
            trial["trial"].removeprefix("trial_"), *(cell.text + cell.remark for cell in _cells(search, trial))
        )
    parts: list[RenderableType] = [Text(search["name"], style="bold"), Text(describe_search(search))]
    if on_front:
        parts.append(Padding(table, (1, 0)))
        parts.append(Text(f"{_ON_FRONT} no other trial is better in {quality} on validation at that cost or less\n"))
        for trial in on_front:
            number = trial["trial"].removeprefix("trial_")
            parts.append(Text(f"{number}  {describe_values(trial['values'])}", overflow="fold"))
    page = Path(folder) / PAGE_NAME
    if page.is_file():
        parts.append(Text(f"\nReport: {page}", overflow="fold"))
    return Group(*parts)


def _is_on_front(search: Mapping[str, Any], trial: Mapping[str, Any]) -> bool:
    return any(trial["trial"] in names for names in search["fronts"].values())


def _ranked(search: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trials, those within the constraints first, the best first."""
    quality = search["quality"]
    return sorted(
        search["trials"],
        key=lambda t: (t["status"] != "finished", bool(t["broken"]), -(t["figures"].get(quality) or 0.0), t["trial"]),
    )


def _cells(search: Mapping[str, Any], trial: Mapping[str, Any]) -> list[Cell]:
    figures, quality = trial["figures"], search["quality"]
    scores = [figures.get(quality), figures.get(f"test_{quality}")]
    cells = [Cell(as_score(score), score) for score in scores]
    for cost in search["costs"]:
        mark = f" {_ON_FRONT}" if trial["trial"] in search["fronts"][cost] else ""
        cells.append(Cell(as_cost(cost, figures.get(cost)), figures.get(cost), mark))
    return cells
