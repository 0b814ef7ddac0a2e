"""A search over a function of one's own: any training, any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.recipe import check_search
from tfprune.recipe.search import Search
from tfprune.records import plain, read_json, write_json
from tfprune.report.search import write_search_page
from tfprune.search.fronts import write_search_record
from tfprune.search.searching import RunTrial, Task, search
from tfprune.search.tracking import log_as_they_end
from tfprune.search.trials import TrialRecord, find_limits
from tfprune.search.workers import search_with_workers


def search_function(
    run: RunTrial,
    settings: dict[str, Any],
    folder: str | Path,
    *,
    seed: int = 0,
    workers: int = 1,
    most_epochs: int | None = None,
    mlflow: str | None = None,
    say: Callable[[str], None] = print,
) -> list[TrialRecord]:
    """Search the arguments of a function, resumably; return the records of all trials and write a page on them.

    Args:
        run: `run(values, folder)` -> figures, with the quality and every cost that the settings name; `values` has
            those of the ranges, `folder` is the trial's own. An `InputError` says that the values do not go
            together; `tfprune.search.trials.RejectedTrial` that a constraint is broken before any training.
        settings: what the section `search` of a recipe holds; paths are names of your own.
        folder: of the search. A second start with the same settings, or with more `trials`, goes on there.
        seed: of the oracle.
        workers: trials at a time, in processes of their own; `run` and `say` must then be importable, and the script
            guarded by `if __name__ == "__main__"`.
        most_epochs: hyperband: the epochs of a trial that gets all of the resource.
        mlflow: address of an MLflow server that gets every trial as it ends; see `tfprune.search.tracking.log_trials`.
        say: called with one line of text as a trial starts and ends.

    Raises:
        InputError: when the settings are wrong or not those of the search in the folder, the first trials all fail,
            or MLflow cannot be reached.
    """
    chosen, folder = check_search(settings), Path(folder)
    if chosen.resource is not None and most_epochs is None:
        raise InputError("hyperband needs most_epochs, the epochs of a trial that gets all of the resource")
    _claim(folder, chosen, seed=seed, most_epochs=most_epochs)
    task = Task(chosen, run, folder, find_limits(chosen), seed, most_epochs, say)
    if mlflow is not None:
        task = log_as_they_end(task, mlflow)
    try:
        return search_with_workers(task, workers) if workers > 1 else search(task)
    finally:  # also of a search that was stopped
        write_search_record(folder, chosen, name=folder.name)
        write_search_page(folder)


def _claim(folder: Path, chosen: Search, **rest: Any) -> None:
    """Note the settings of a new search; refuse others than those noted, as their trials would mix.

    Raises:
        InputError: with the names of what differs.
    """
    path = folder / "settings.json"
    asked = plain({**chosen.model_dump(mode="json", exclude={"trials"}), **rest})
    noted = read_json(path) if path.exists() else asked
    others = [name for name in asked if asked[name] != noted.get(name)]
    if others:
        raise InputError(
            f"{folder} holds a search with other settings ({', '.join(others)}); give those it was started with, "
            "or another folder"
        )
    write_json(path, asked)
