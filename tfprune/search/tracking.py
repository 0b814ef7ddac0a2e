"""Trials as runs of an MLflow experiment. MLflow is an extra, and only this module knows it."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.search.searching import Task
from tfprune.search.trials import FAILED, FINISHED, REJECTED, TrialRecord, load_trials

_STATUS = {FINISHED: "FINISHED", REJECTED: "KILLED", FAILED: "FAILED"}
_ENDED = "tfprune.ended"
_MOST_METRICS = 1000
"""As many as MLflow takes in one call."""


def log_trials(uri: str, folder: str | Path, records: Iterable[TrialRecord] | None = None) -> int:
    """Log trials as runs of the MLflow experiment that has the name of their search; return how many were new.

    A run has the trial's values as parameters, its figures as metrics, the curves of its stages as metrics by epoch
    (`train/val_loss`), and says in tags where its folder is. What has been logged before is left as it is.

    Args:
        uri: of MLflow's tracking server, such as http://localhost:5000, or another that MLflow knows.
        folder: of the search.
        records: default: all trials that have ended.

    Raises:
        InputError: when MLflow is not installed, or cannot be reached there.
    """
    folder = Path(folder).resolve()
    with _client(uri) as client:
        found = client.get_experiment_by_name(folder.name)
        experiment = found.experiment_id if found else client.create_experiment(folder.name)
        runs = dict(_runs(client, experiment))
        given = load_trials(folder) if records is None else records
        new = [record for record in given if not _is_logged(client, runs.get((record.trial, record.ended)))]
        for record in new:
            _log(client, experiment, record, folder / "trials" / record.trial)
    return len(new)


def log_as_they_end(task: Task, uri: str) -> Task:
    """Return a search that logs each trial as it ends; those that have ended already are logged now.

    Raises:
        InputError: see `log_trials`. Later, when trials run, a server that is away is only told of.
    """
    log_trials(uri, task.folder)
    return replace(task, ended=partial(_log_ended, task, uri))


def _log_ended(task: Task, uri: str, record: TrialRecord) -> None:
    try:
        log_trials(uri, task.folder, [record])
    except InputError as error:
        task.say(f"{record.trial}: not logged; the same command does it later. {error}")


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7, with pauses of minutes, hold up a search
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a trial
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise InputError('MLflow is not installed: pip install "tfprune[mlflow]"') from None
    try:
        yield MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        raise InputError(
            f"MLflow at {uri}: {str(error).splitlines()[0]}\nGive the address of a running tracking server, such as "
            "http://localhost:5000 (`mlflow server`, of the whole mlflow package, starts one)"
        ) from None


def _runs(client: Any, experiment: str) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield the runs of an experiment, each by name and end of its trial."""
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        for run in page:
            yield (run.info.run_name, run.data.tags.get(_ENDED, "")), run
        token = page.token
        if not token:
            return


def _is_logged(client: Any, run: Any) -> bool:
    """Return whether a trial has a run; one that a kill left unfinished is deleted, to be logged anew."""
    if run is not None and run.info.status not in _STATUS.values():
        client.delete_run(run.info.run_id)
        return False
    return run is not None


def _log(client: Any, experiment: str, record: TrialRecord, folder: Path) -> None:
    from mlflow.entities import Metric, Param

    end = round(1000 * time.mktime(time.strptime(record.ended, "%Y-%m-%d %H:%M:%S")))
    begin = end - round(1000 * record.seconds)
    tags = {_ENDED: record.ended, "tfprune.status": record.status, "tfprune.folder": str(folder)}
    said = {"tfprune.worker": record.worker, "tfprune.broken": ", ".join(record.broken)}
    tags |= {name: text for name, text in said.items() if text}
    if record.reason:
        tags["mlflow.note.content"] = record.reason
    run = client.create_run(experiment, start_time=begin, run_name=record.trial, tags=tags).info.run_id
    metrics = [Metric(name, value, end, 0) for name, value in record.figures.items() if _is_number(value)]
    metrics += [Metric(name, value, end, epoch) for name, value, epoch in _curves(folder)]
    client.log_batch(run, params=[Param(path, str(value)) for path, value in _flat(record.values)])
    for first in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run, metrics=metrics[first : first + _MOST_METRICS])
    client.set_terminated(run, _STATUS[record.status], end_time=end)


def _curves(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Return name, value and epoch of all that the stages of a run noted."""
    for path in sorted(folder.glob("stages/*/history.csv")):
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                epoch = int(row.pop("epoch"))
                for name, text in row.items():
                    if text and _is_number(float(text)):
                        yield f"{path.parent.name}/{name}", float(text), epoch


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of a trial under the whole paths of the recipe's fields."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
