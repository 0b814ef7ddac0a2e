"""An installation as the README describes it for a board: `--no-deps`, numpy < 2, tflite-runtime, no TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.export.nets import exported
from tfprune.data import generate_steel
from tfprune.verification.runtimes import open_runtime

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A Python of its own with what the README names."""
    folder = tmp_path_factory.mktemp("board")
    old = next((path for path in map(shutil.which, ("python3.11", "python3.10")) if path), None)
    if sys.version_info < (3, 12):
        old = sys.executable
    if old is None:
        pytest.skip("tflite-runtime has wheels for Python 3.10 and 3.11 only, and there is none")
    made = subprocess.run([old, "-m", "venv", folder / "venv"], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".git", ".venv", "runs"))
    subprocess.run([*pip, "--no-deps", source], check=True, capture_output=True)
    subprocess.run([*pip, "numpy<2", "pillow", "click", "rich", "tflite-runtime"], check=True, capture_output=True)
    return python


@pytest.mark.slow
def test_every_command_for_files_runs_there(board, tmp_path):
    model = MODELS / "steel_corrosion_96_int8.tflite"
    data = generate_steel(tmp_path / "data", classes=2, counts={"train": 1, "val": 1, "test": 3}, size=(96, 96))
    picture = next((data / "test" / "images").iterdir())
    for arguments in (
        ("predict", model, picture, "--out", tmp_path / "out"),
        ("verify", model, "--data", data),
        ("bench", model),
    ):
        done = subprocess.run([board, "-m", "tfprune", *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "corrosion" in done.stdout.replace("\n", "")
    done = subprocess.run([board, "-m", "pip", "list"], capture_output=True, text=True)
    assert not {"tensorflow", "scipy", "pydantic"} & {line.split()[0].lower() for line in done.stdout.splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic_int8", "int8", "int8_float_io", "int16x8"])
def test_it_serves_as_another_python(board, scheme):
    path = exported("plain", 3, scheme, "logits")
    there, here = open_runtime(path, runtime="tflite-runtime", python=board), open_runtime(path)
    assert there.description.startswith("tflite-runtime 2.14")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    scale = here.quantization[0] or 1
    difference = np.abs(there.predict(image).astype(float) - here.predict(image)) * scale
    assert difference.max() < 0.3
