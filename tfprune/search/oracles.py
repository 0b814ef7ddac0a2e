"""Keras-tuner's oracles, made to go on after a kill: they are deterministic, so replaying their journal restores them.

What keras-tuner itself writes to the disk is neither atomic nor all of an oracle's state (a grid's queue and the
random generator of the Bayesian one are left out), so it goes to a temporary folder and is never read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import tfprune.keras  # noqa: F401  chooses tf_keras before keras-tuner loads TensorFlow and Keras 3
from tfprune.errors import InputError
from tfprune.recipe.ranges import accepted_values
from tfprune.recipe.search import Search
from tfprune.search.journal import Journal

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.engine import conditions

SCORE = "score"
"""The one number that an oracle is told of a trial; higher is better."""

conditions.print = lambda *_: None
"""keras-tuner 1.4 prints a number for every range with a condition that goes to another process."""


class _Grid(keras_tuner.oracles.GridSearchOracle):
    """A grid whose next combination follows from a trial that still runs.

    Keras-tuner's waits for the end of the trial before, lest that brings new ranges: of several workers one would
    work. The ranges of a search are all known.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        found = super().populate_space(trial_id)
        if found["status"] == TrialStatus.RUNNING:
            self._populate_next.append(trial_id)
        return found


_KINDS = {
    "grid": _Grid,
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
_EPOCHS = "tuner/epochs"
_WITHOUT_END = 10**9


def build_oracle(settings: Search, journal: Journal, *, seed: int = 0, most_epochs: int | None = None) -> Any:
    """Return the oracle of a search; what it is asked and told is written to the journal.

    Every range is an integer to the oracle, the position in its list of values: the network service of
    keras-tuner rounds floats to 32 bits, and knows numbers and words alone.

    Args:
        settings: the search.
        journal: where its events go.
        seed: of the oracle.
        most_epochs: hyperband: the epochs of a trial that gets all of the resource.
    """
    space = keras_tuner.HyperParameters()
    for path, given in settings.ranges.items():
        with contextlib.ExitStack() as conditions:
            for parent, accepted in given.when.items():
                options = settings.ranges[parent].options
                positions = [options.index(value) for value in accepted_values(accepted)]
                conditions.enter_context(space.conditional_scope(parent, positions))
            space.Int(path, 0, len(given.options) - 1)
    arguments: dict[str, Any] = {"hyperparameters": space, "seed": seed + 1}  # 0 would mean: any
    if settings.oracle == "hyperband":
        arguments |= {"max_epochs": most_epochs, "factor": settings.factor or 3}
    else:
        arguments["max_trials"] = settings.trials
    oracle = _journaled(_KINDS[settings.oracle])(
        objective=keras_tuner.Objective(SCORE, "max"),
        max_retries_per_trial=_WITHOUT_END,
        max_consecutive_failed_trials=_WITHOUT_END,
        **arguments,
    )
    oracle.journal, oracle.verbose = journal, 0
    return oracle


def values_of(settings: Search, positions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that an oracle proposes, by path; those whose condition does not hold are absent."""
    values = {path: given.options[positions[path]] for path, given in settings.ranges.items() if path in positions}
    if settings.resource is not None:
        values[settings.resource] = positions[_EPOCHS]
    return values


def replay(oracle: Any) -> None:
    """Bring a new oracle to where its journal ends; trials that were running there are to be run again.

    Raises:
        InputError: when the oracle proposes something else now.
    """
    journal = oracle.journal
    events, journal.events = journal.events, []
    oracle.is_replaying = True
    with contextlib.redirect_stdout(io.StringIO()):  # it prints when a trial is to run again
        for event in events:
            if event["event"] == "end":
                _end(oracle, event["trial"], event["status"], event["score"])
                continue
            trial = oracle.create_trial(event["worker"])
            if (trial.trial_id, trial.hyperparameters.values) != (event["trial"], event["values"]):
                raise InputError(
                    f"{journal.path}: trial {event['trial']} had the values {event['values']}, and keras-tuner "
                    f"{keras_tuner.__version__} proposes {trial.hyperparameters.values} now. Go on with the version "
                    "that started the search (environment.json), or start another one with --out"
                )
        oracle.is_replaying, journal.events = False, events
        for trial in list(oracle.ongoing_trials.values()):
            _end(oracle, trial.trial_id, TrialStatus.INVALID, None)
    oracle.tuner_ids.clear()


def _end(oracle: Any, trial_id: str, status: str, score: float | None) -> None:
    if score is not None:
        oracle.update_trial(trial_id, {SCORE: score})
    known = oracle.get_trial(trial_id)
    oracle.end_trial(Trial(known.hyperparameters, trial_id, status))


def _journaled(kind: type) -> type:
    """Return a kind of oracle that writes to its journal what it proposes and learns."""

    class Journaled(kind):
        journal: Journal
        is_replaying = False

        def save(self) -> None:
            """Leave it to the journal."""

        @keras_tuner.synchronized
        def create_trial(self, tuner_id: str) -> Any:
            is_known = tuner_id in self.ongoing_trials
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.RUNNING and not is_known and not self.is_replaying:
                values = dict(trial.hyperparameters.values)
                self.journal.append(event="start", worker=tuner_id, trial=trial.trial_id, values=values)
            return trial

        @keras_tuner.synchronized
        def end_trial(self, trial: Any) -> None:
            if not self.is_replaying:
                metrics = self.trials[trial.trial_id].metrics
                score = metrics.get_best_value(SCORE) if metrics.exists(SCORE) else None
                self.journal.append(event="end", trial=trial.trial_id, status=trial.status, score=score)
            super().end_trial(trial)

    return Journaled
