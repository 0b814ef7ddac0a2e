"""Searches in several processes, and processes that are killed with no time to say goodbye."""

from __future__ import annotations

import inspect
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.search.processes import build_task
from tfprune.errors import InputError
from tfprune.recipe import check_search
from tfprune.recipe.search import Search
from tfprune.search.journal import Journal
from tfprune.search.oracles import build_oracle
from tfprune.search.recipes import search_recipe
from tfprune.search.searching import Task
from tfprune.search.trials import load_trials
from tfprune.search.workers import search_with_workers

from keras_tuner.engine.trial import Trial

DEADLINE_SECONDS = 240


def start(folder, **environment):
    command = [sys.executable, "-m", "tests.search.processes", str(folder)]
    return subprocess.Popen(command, env={**os.environ, **environment})


def events(folder, event):
    path = folder / "ran.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split() for line in lines if line.split()[1] == event]


def wait_until(is_true):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "nothing happened for long"
        time.sleep(0.02)


def outcomes(folder):
    return [(record.trial, record.status, record.values, record.figures) for record in load_trials(folder)]


@pytest.mark.slow
def test_a_search_killed_three_times_at_random_ends_with_the_same_trials(tmp_path):
    undisturbed = start(tmp_path / "whole")
    rng, killed = random.Random(0), tmp_path / "killed"
    for _ in range(3):
        before = len(events(killed, "starts"))
        process = start(killed)
        wait_until(lambda seen=before: len(events(killed, "starts")) > seen)
        time.sleep(rng.uniform(0, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed).wait(DEADLINE_SECONDS) == 0 and undisturbed.wait(DEADLINE_SECONDS) == 0
    assert len(outcomes(killed)) == 12 and outcomes(killed) == outcomes(tmp_path / "whole")
    ended = Counter(name for name, *_ in events(killed, "ends"))
    # A trial may have been killed between its end and its record: at most once per kill.
    assert set(ended) == {name for name, *_ in outcomes(killed)} and sum(ended.values()) <= 12 + 3


@pytest.mark.slow
def test_a_worker_killed_in_mid_trial_runs_it_again(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    processes = {name: start(tmp_path, KERASTUNER_TUNER_ID=name, **address) for name in ("chief", "worker1", "worker2")}
    wait_until(lambda: any(who == "worker1" for *_, who in events(tmp_path, "starts")))
    processes["worker1"].send_signal(signal.SIGKILL)
    processes["worker1"].wait()
    interrupted = [name for name, _, who in events(tmp_path, "starts") if who == "worker1"][-1]
    finished = [name for name, *_ in events(tmp_path, "ends")]
    processes["worker1"] = start(tmp_path, KERASTUNER_TUNER_ID="worker1", **address)
    for process in processes.values():
        assert process.wait(DEADLINE_SECONDS) == 0
    assert len(outcomes(tmp_path)) == 12 and all(status == "finished" for _, status, *_ in outcomes(tmp_path))
    starts = Counter(name for name, *_ in events(tmp_path, "starts"))
    assert interrupted not in finished and starts.pop(interrupted) == 2 and set(starts.values()) == {1}
    assert {who for *_, who in events(tmp_path, "ends")} == {"worker1", "worker2"}


@pytest.mark.slow
def test_two_workers_on_one_machine(tmp_path):
    records = search_with_workers(build_task(tmp_path), 2)
    assert len(records) == 12 and {record.worker for record in records} == {"worker1", "worker2"}
    assert Counter(name for name, *_ in events(tmp_path, "starts")).most_common(1)[0][1] == 1
    assert not {"KERASTUNER_ORACLE_IP", "KERASTUNER_TUNER_ID"} & set(os.environ)


TWO_WORKERS = """
import sys
from tests.search.processes import build_task
from tfprune.search.workers import search_with_workers

if __name__ == "__main__":
    search_with_workers(build_task(sys.argv[1]), 2)
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path / "two_workers.py"
    script.write_text(TWO_WORKERS)
    command = [sys.executable, str(script), str(tmp_path / "found")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, env=environment)
    wait_until(lambda: len(events(tmp_path / "found", "ends")) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)
    settled = len(events(tmp_path / "found", "starts"))
    time.sleep(2)
    assert len(events(tmp_path / "found", "starts")) == settled < 12
    assert subprocess.Popen(command, env=environment).wait(DEADLINE_SECONDS) == 0
    assert len(outcomes(tmp_path / "found")) == 12
    starts = Counter(name for name, *_ in events(tmp_path / "found", "starts"))
    assert sum(starts.values()) <= 12 + 2 and set(starts) == {name for name, *_ in outcomes(tmp_path / "found")}


def test_time_is_not_measured_while_other_trials_run(tmp_path):
    with pytest.raises(InputError, match="latency_ms is measured while other trials run"):
        search_with_workers(build_task(tmp_path, costs={"latency_ms": 0.0}), 2)


def test_a_search_runs_in_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("tfprune.search.journal._PATIENCE_SECONDS", 0.2)
    path = tmp_path / "journal.jsonl"
    with Journal(path).opened(), pytest.raises(InputError, match="searched by another process"), Journal(path).opened():
        pass
    with Journal(path).opened():
        pass


def test_a_task_can_be_sent_to_another_process(tmp_path):
    import pickle

    task = build_task(tmp_path)
    again = pickle.loads(pickle.dumps(task))
    assert isinstance(again, Task) and again.settings == task.settings and isinstance(again.settings, Search)


def test_all_workers_of_a_grid_have_a_trial_at_once(tmp_path, capsys):
    ranges = {"a": {"choice": [1, 2]}, "b": {"choice": [1, 2, 3], "when": {"a": 2}}}
    oracle = build_oracle(check_search({"oracle": "grid", "ranges": ranges}), Journal(tmp_path / "journal.jsonl"))
    oracle._set_project_dir(str(tmp_path), "oracle")
    trials = [oracle.create_trial(f"worker{number}") for number in range(5)]
    assert [trial.status for trial in trials] == ["RUNNING"] * 4 + ["IDLE"]
    found = [trial.hyperparameters.values for trial in trials[:4]]
    assert found == [{"a": 0}, {"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 1, "b": 2}]
    for trial in trials[3::-1]:
        trial.to_proto()
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        oracle.end_trial(Trial(trial.hyperparameters, trial.trial_id, "COMPLETED"))
    assert oracle.create_trial("worker0").status == "STOPPED"
    assert capsys.readouterr().out == ""


def test_functions_that_no_worker_can_import_are_told_before_one_starts(tmp_path):
    task = replace(build_task(tmp_path), say=lambda text: None)
    with pytest.raises(InputError, match="defined at the top of a module"):
        search_with_workers(task, 2)


def test_a_recipe_is_searched_by_workers_with_nobody_listening():
    import pickle

    listener = inspect.signature(search_recipe).parameters["say"].default
    assert pickle.loads(pickle.dumps(listener)) is listener
