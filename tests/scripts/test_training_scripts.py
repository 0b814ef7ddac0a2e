"""The training scripts that people copy run from beginning to end, on a few tiny pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tfprune.architectures.files import load_model
from tfprune.data import generate_steel

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = ("--size", "32", "--pictures", "16", "--epochs", "2", "--sparsity", "0.5")


def run_script(name, *options):
    command = [sys.executable, str(SCRIPTS / name), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def zeros(path):
    weights = [weight for weight in load_model(path).get_weights() if weight.ndim == 4]
    return sum(int(np.sum(weight == 0)) for weight in weights) / sum(weight.size for weight in weights)


def test_own_model_in_fit(tmp_path):
    said = run_script("train_with_fit.py", *TINY, "--pruning-epochs", "2", "--out", tmp_path)
    assert "50.0% zeros in the masked layers" in said and "pruned: {'loss'" in said
    assert (tmp_path / "pruned_int8.tflite").exists() and 0.4 < zeros(tmp_path / "pruned.keras") <= 0.5


def test_own_loop(tmp_path):
    said = run_script("train_with_own_loop.py", *TINY, "--epochs", "4", "--out", tmp_path)
    assert "50.0% zeros in the masked layers" in said and said.count("zeros") >= 3
    assert 0.4 < zeros(tmp_path / "pruned.keras") <= 0.5


def test_regularizer_to_the_device(tmp_path):
    data = tmp_path / "set"
    generate_steel(data, classes=3, counts={"train": 16, "val": 2, "test": 4}, size=(32, 32))
    options = ("--data", data, "--pruning-epochs", "2", "--sparse-gradients", "0.5", "--out", tmp_path / "out")
    said = run_script("train_with_regularizer.py", *TINY, *options)
    assert "orthogonality:" in said and "pruned_int8.tflite: test mean IoU 0." in said
    assert 0.4 < zeros(tmp_path / "out" / "pruned.keras") <= 0.5


def test_a_search_over_a_training_function(tmp_path):
    options = ("--size", "32", "--pictures", "16", "--epochs", "1", "--trials", "3", "--out", tmp_path)
    said = run_script("search_own_training.py", *options)
    assert "3 trials have ended" in said and "trial_0: width" in said and (tmp_path / "search.html").exists()
    assert len(list(tmp_path.glob("trials/*/trial.json"))) == 3
