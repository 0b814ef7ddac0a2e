"""Several workers on one machine: keras-tuner's chief and its workers, as processes that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tfprune.errors import InputError, TfpruneError
from tfprune.search.searching import Task, search
from tfprune.search.trials import TrialRecord, load_trials

_POLL_SECONDS = 0.2


def search_with_workers(task: Task, workers: int) -> list[TrialRecord]:
    """Run a search with several trials at a time.

    Each worker gets its share of the processor's cores.

    Raises:
        InputError: when a worker gives up, when time is measured, when this process is itself a worker, or when the
            task holds a function that another process cannot import.
    """
    if "KERASTUNER_ORACLE_IP" in os.environ:
        raise InputError("workers share this machine, and KERASTUNER_ORACLE_IP says that others do; use one of both")
    if "latency_ms" in {*task.settings.costs, *task.limits}:
        raise InputError("latency_ms is measured while other trials run: use one worker, or another cost")
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"workers are other processes, and this search cannot be sent to them: {error}. Give functions that are "
            "defined at the top of a module (no lambda, none inside another function), or use one worker"
        ) from None
    environment = {
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(_free_port()),
        "TF_NUM_INTRAOP_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
    }
    chief = _start(task, {**environment, "KERASTUNER_TUNER_ID": "chief"})
    running = [_start(task, {**environment, "KERASTUNER_TUNER_ID": f"worker{n}"}) for n in range(1, workers + 1)]
    try:
        while any(process.is_alive() for process in running):
            time.sleep(_POLL_SECONDS)
            for process in [*running, chief]:
                if process.exitcode not in (None, 0):
                    raise InputError(
                        f"{process.name} of the search stopped (see above); the same command goes on with the trials "
                        "that have not ended"
                    )
    finally:
        for process in [*running, chief]:  # what the chief knows is on the disk
            process.terminate()
            process.join()
    return load_trials(task.folder)


def _start(task: Task, environment: Mapping[str, str]) -> Any:
    name = environment["KERASTUNER_TUNER_ID"]
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(task, os.getpid()), name=name)
    with _environment(environment):
        process.start()
    return process


def _run(task: Task, parent: int) -> None:
    """Be the chief or a worker, as the environment says, for as long as the process that asked for it lives."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        search(task)
    except TfpruneError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes that are started in the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
