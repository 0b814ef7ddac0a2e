"""Training on several workers: the same masks on all, and those of one process with the same batches."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml

from tests.conftest import TINY
from tfprune.errors import InputError
from tfprune.recipe import check_recipe
from tfprune.run import run_recipe
from tfprune.training.distribution import is_chief

WORKER = """
import sys
from pathlib import Path
import numpy as np
import tfprune.run.stages as stages
from tfprune.recipe import load_recipe
from tfprune.run import run_recipe

before = stages.write_sparsity


def note(place, recipe, controller, done):
    masks = [np.packbits(layer.mask.numpy().astype(bool)) for layer in controller.layers]
    weights = [weight.ravel() for weight in controller.model.get_weights()]
    np.savez(sys.argv[3], masks=np.concatenate(masks), weights=np.concatenate(weights))
    before(place, recipe, controller, done)


stages.write_sparsity = note
print(run_recipe(load_recipe(sys.argv[1]), out=sys.argv[2]))
"""


def content(distribution=None):
    """Return the tiny recipe without batch norms, by an optimizer that does not magnify rounding."""
    names = ("name", "data", "architecture", "loss", "pruning", "fine_tuning")
    found = {name: copy.deepcopy(TINY[name]) for name in names} | {"training": {"epochs": 2}}
    found["architecture"]["batch_norm"] = False
    for stage in ("training", "pruning", "fine_tuning"):
        found[stage] |= {"optimizer": "sgd", "learning_rate": 0.01}
    found["pruning"]["criterion"] = "movement"
    found["training"]["distribution"] = distribution
    found["export"] = {"schemes": ["float32"]}
    found["verification"] = {"latency_runs": 3}
    return found


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def start(path, out, noted, **environment):
    command = [sys.executable, "-c", WORKER, str(path), str(out), str(noted)]
    settings = {**os.environ, **environment}
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_workers_train_as_one_process_does(tmp_path):
    paths = {}
    for name, distribution in (("alone", None), ("two", "multi_worker")):
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(content(distribution)))
    processes = {"alone": start(paths["alone"], tmp_path / "alone", tmp_path / "alone.npz")}
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        processes[index] = start(paths["two"], tmp_path / "two", tmp_path / f"{index}.npz", TF_CONFIG=config)
    for process in processes.values():
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said[-3000:]
    noted = {name: np.load(tmp_path / f"{name}.npz") for name in processes}
    np.testing.assert_array_equal(noted[0]["masks"], noted[1]["masks"])
    np.testing.assert_array_equal(noted[0]["weights"], noted[1]["weights"])
    np.testing.assert_array_equal(noted[0]["masks"], noted["alone"]["masks"])
    np.testing.assert_allclose(noted[0]["weights"], noted["alone"]["weights"], atol=1e-4)
    histories = [
        (tmp_path / name / "tiny" / "stages" / "train" / "history.csv").read_text() for name in ("alone", "two")
    ]
    alone, two = ([float(line.split(",")[1]) for line in text.splitlines()[1:]] for text in histories)
    np.testing.assert_allclose(alone, two, rtol=1e-4)
    assert (tmp_path / "two" / "tiny" / "report.html").exists()


def test_who_keeps_the_results(monkeypatch):
    assert is_chief(None) and is_chief("mirrored")
    cluster = {"worker": ["a:1", "b:1"]}
    for index, expected in ((0, True), (1, False)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        assert is_chief("multi_worker") is expected
    chief = {"cluster": {"chief": ["a:1"], **cluster}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert not is_chief("multi_worker")


@pytest.mark.parametrize("given", ["", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}'])
def test_a_cluster_that_is_not_described_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(
        InputError, match=r"the variable TF_CONFIG is .*\"task\": \{\"type\": \"worker\", \"index\": 0\}"
    ):
        run_recipe(check_recipe(content("multi_worker")), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_distribution_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="unknown distribution 'multiworker'; did you mean 'multi_worker'"):
        check_recipe(content("multiworker"))
