"""Running a search: trials that keras-tuner proposes, here or on several workers, resumable at any moment."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.recipe.search import Search
from tfprune.report.wording import as_cost, as_score, describe_values
from tfprune.search.journal import Journal
from tfprune.search.oracles import SCORE, build_oracle, replay, values_of
from tfprune.search.trials import (
    FAILED,
    FINISHED,
    REJECTED,
    RejectedTrial,
    TrialRecord,
    check_figures,
    find_broken,
    load_trial,
    load_trials,
    score_trial,
)

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.errors import FatalError

RunTrial = Callable[[dict[str, Any], Path], Mapping[str, float | None]]
"""`run(values, folder)` -> figures: the quality, and all costs that the search asks for."""

_HOPELESS = 3
"""A worker whose first trials all fail, this many, stops the search."""
_PAUSE_SECONDS = 0.05


def say_nothing(said: Any) -> None:
    """Stand for a listener that is not there, also in another process."""


@dataclass(frozen=True)
class Task:
    """A search as each of its workers knows it; it can be sent to another process.

    Attributes:
        settings: the search.
        run: runs one trial.
        folder: of the search; all workers see it under this path.
        limits: see `tfprune.search.trials.find_limits`.
        seed: of the oracle.
        most_epochs: hyperband: the epochs of a trial that gets all of the resource.
        say: called with one line of text as a trial starts and ends.
        ended: called with the record of a trial that has ended.
    """

    settings: Search
    run: RunTrial
    folder: Path
    limits: Mapping[str, tuple[str, float]]
    seed: int = 0
    most_epochs: int | None = None
    say: Callable[[str], None] = say_nothing
    ended: Callable[[TrialRecord], None] = say_nothing


def search(task: Task) -> list[TrialRecord]:
    """Run all trials of a search that have not ended yet, one after the other; return the records of all.

    Where keras-tuner's variables KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are set, this
    process is one of several: the chief (an id with `chief` in it) keeps the oracle and runs nothing, the workers ask
    it for trials. A worker that died and starts again under its id runs its trial again.

    Raises:
        InputError: when the first trials all fail, or another process runs this search.
    """
    journal = Journal(task.folder / "journal.jsonl")
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if is_worker() else journal.opened():
        oracle = build_oracle(task.settings, journal, seed=task.seed, most_epochs=task.most_epochs)
        tuner = _Tuner(task, oracle, scratch)
        if not is_worker():
            replay(oracle)
        try:
            tuner.search()
        except _Stopped as stop:
            raise stop.__cause__ from None
    return load_trials(task.folder)


def is_worker() -> bool:
    """Return whether this process takes its trials from a chief elsewhere."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "")


def run_trial(task: Task, name: str, positions: Mapping[str, Any], worker: str) -> TrialRecord:
    """Run a trial, or read its record where it has ended; a wrong combination of values is a failed trial."""
    folder = task.folder / "trials" / name
    record = load_trial(folder)
    if record is not None:
        return record
    values, started = values_of(task.settings, positions), time.perf_counter()
    task.say(f"{name}: {describe_values(values)}")
    ending: dict[str, Any]
    try:
        figures = check_figures(task.settings, task.limits, task.run(copy.deepcopy(values), folder))
        ending = {"status": FINISHED, "figures": figures, "broken": find_broken(task.limits, figures)}
    except RejectedTrial as rejection:
        broken = find_broken(task.limits, rejection.figures)
        ending = {"status": REJECTED, "figures": rejection.figures, "broken": broken, "reason": str(rejection)}
    except InputError as error:
        ending = {"status": FAILED, "reason": str(error)}
    seconds, ended = round(time.perf_counter() - started, 3), time.strftime("%Y-%m-%d %H:%M:%S")
    record = TrialRecord(trial=name, values=values, seconds=seconds, ended=ended, worker=worker, **ending)
    record.save(folder)
    task.say(f"{name}: {describe_ending(task.settings, record)}")
    task.ended(record)
    return record


def describe_ending(settings: Search, record: TrialRecord) -> str:
    """Return in one line what came of a trial."""
    if record.status != FINISHED:
        return f"{record.status}: {record.reason}"
    costs = [f"{name} {as_cost(name, record.figures[name], unit=True)}" for name in settings.costs]
    broken = f"; breaks {', '.join(record.broken)}" if record.broken else ""
    scored = f"{settings.quality} {as_score(record.figures[settings.quality])}"
    return f"{scored}, {', '.join(costs)}, {record.seconds:,.0f} s{broken}"


class _Stopped(FatalError):
    """Carries an error out of keras-tuner, which swallows all others; what went wrong is its cause."""


class _Tuner(BaseTuner):
    """Keras-tuner's loop around our trials."""

    def __init__(self, task: Task, oracle: Any, scratch: str) -> None:
        super().__init__(oracle, directory=scratch, project_name="tuner")
        self.task = task
        self.hopeless = 0

    def pre_create_trial(self) -> None:
        """Give an oracle that waits for other workers the time to do so."""
        time.sleep(_PAUSE_SECONDS)

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Run a trial and return its score."""
        try:
            name = f"trial_{trial.trial_id}"
            record = run_trial(self.task, name, trial.hyperparameters.values, self.tuner_id)
            self._stop_when_hopeless(record)
        except Exception as error:
            raise _Stopped() from error
        return {SCORE: score_trial(self.task.settings, record)}

    def on_trial_end(self, trial: Any) -> None:
        """End a trial; what went wrong outside of `run_trial` is keras-tuner's own fault, and is not tried again."""
        if trial.status != TrialStatus.COMPLETED:
            raise RuntimeError(trial.message)
        super().on_trial_end(trial)

    def _stop_when_hopeless(self, record: TrialRecord) -> None:
        self.hopeless = self.hopeless + 1 if record.status == FAILED else -sys.maxsize
        if self.hopeless == _HOPELESS:
            raise InputError(f"the first {_HOPELESS} trials failed; {record.trial}: {record.reason}")
