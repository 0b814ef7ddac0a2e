"""Trials in MLflow: what a run says, and that each is there once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from mlflow import MlflowClient

from tests.search.processes import build_task
from tfprune.errors import InputError
from tfprune.search.functions import search_function
from tfprune.search.tracking import log_as_they_end, log_trials
from tfprune.search.trials import TrialRecord, load_trials

SETTINGS = {
    "oracle": "grid",
    "quality": "iou",
    "costs": {"file_bytes": 0.0},
    "ranges": {
        "architecture": {"choice": [{"name": "unet", "width": 8}, {"name": "fpn"}]},
        "rate": {"choice": [0.01, 0.1]},
    },
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Return the address of MLflow's store in files, which asks for leave."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return str(tmp_path / "mlflow")


def runs_of(store, name):
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(name)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def trained(values, folder):
    """Return figures, and leave the curve of a stage behind."""
    if values["rate"] == 0.1 and values["architecture"]["name"] == "fpn":
        raise InputError("fpn wants a smaller rate")
    place = folder / "stages" / "train"
    place.mkdir(parents=True)
    place.joinpath("history.csv").write_text("epoch,loss,val_iou,seconds\n0,0.9,0.4,1.5\n1,0.7,nan,1.4\n")
    return {"iou": 1 - values["rate"], "file_bytes": 2048.0, "latency_ms": None}


def test_a_run_says_what_its_trial_does(tmp_path, store):
    records = search_function(trained, SETTINGS, tmp_path / "walls", mlflow=store, say=lambda text: None)
    runs = runs_of(store, "walls")
    assert sorted(runs) == [record.trial for record in records] and len(runs) == 4
    first = records[0]
    run = runs[first.trial]
    assert run.data.params == {
        "architecture.name": "unet",
        "architecture.width": "8",
        "rate": str(first.values["rate"]),
    }
    assert run.data.metrics["iou"] == first.figures["iou"] and run.data.metrics["file_bytes"] == 2048.0
    assert "latency_ms" not in run.data.metrics
    client = MlflowClient(tracking_uri=store)
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(0, 0.9), (1, 0.7)]
    assert len(client.get_metric_history(run.info.run_id, "train/val_iou")) == 1  # the second is no number
    assert run.data.tags["tfprune.folder"] == str(tmp_path / "walls" / "trials" / first.trial)
    assert run.info.end_time - run.info.start_time == round(1000 * first.seconds)
    failed = [run for run in runs.values() if run.info.status == "FAILED"]
    assert [run.data.tags["mlflow.note.content"] for run in failed] == ["fpn wants a smaller rate"]


def test_each_trial_is_logged_once_and_a_half_logged_one_anew(tmp_path, store):
    folder = tmp_path / "walls"
    search_function(trained, SETTINGS, folder, say=lambda text: None)
    assert log_trials(store, folder) == 4 and log_trials(store, folder) == 0
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("walls").experiment_id
    ended = {record.trial: record.ended for record in load_trials(folder)}["trial_0001"]
    client.delete_run(runs_of(store, "walls")["trial_0001"].info.run_id)
    client.create_run(
        experiment, run_name="trial_0001", tags={"tfprune.ended": ended}
    )  # killed before its figures came
    assert log_trials(store, folder, []) == 0 and log_trials(store, folder) == 1
    assert runs_of(store, "walls")["trial_0001"].info.status in ("FINISHED", "FAILED")
    assert len(runs_of(store, "walls")) == 4


def test_what_another_worker_is_logging_is_left_alone(tmp_path, store):
    folder = tmp_path / "walls"
    search_function(trained, SETTINGS, folder, say=lambda text: None)
    first, second, *_ = load_trials(folder)
    log_trials(store, folder, [first])
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("walls").experiment_id
    client.create_run(experiment, run_name="trial_0003", tags={"tfprune.ended": "2026-11-21 10:00:00"})
    assert log_trials(store, folder, [second]) == 1
    assert runs_of(store, "walls")["trial_0003"].info.status == "RUNNING"


def test_another_search_of_the_same_name_is_logged_beside(tmp_path, store):
    for place, ended in (("a", "2026-11-21 10:00:00"), ("b", "2026-11-21 11:00:00")):
        folder = tmp_path / place / "walls" / "trials" / "trial_0000"
        folder.mkdir(parents=True)
        TrialRecord("trial_0000", "finished", {}, {"iou": 0.5}, seconds=2.0, ended=ended).save(folder)
        assert log_trials(store, folder.parents[1]) == 1


class Empty(BaseHTTPRequestHandler):
    """A tracking server that has an experiment and no runs."""

    def do_GET(self):
        self.answer({"experiment": {"experiment_id": "1", "name": "walls"}})

    def do_POST(self):
        self.answer({})

    def answer(self, content):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *args):
        pass


def test_a_server_that_goes_away_stops_no_search(tmp_path):
    said = []
    with HTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        task = log_as_they_end(replace(build_task(tmp_path / "walls"), say=said.append), uri)
        server.shutdown()
    task.ended(TrialRecord("trial_0000", "finished", {}, {"iou": 0.5}, seconds=2.0, ended="2026-11-21 10:00:00"))
    assert len(said) == 1 and said[0].startswith(
        f"trial_0000: not logged; the same command does it later. MLflow at {uri}"
    )


def test_where_no_server_is_the_search_does_not_start(tmp_path):
    started = []
    with pytest.raises(InputError, match=r"MLflow at http://127\.0\.0\.1:9: .*\n.*mlflow server"):
        search_function(
            lambda values, folder: started.append(values), SETTINGS, tmp_path / "s", mlflow="http://127.0.0.1:9"
        )
    assert not started and not load_trials(tmp_path / "s")
