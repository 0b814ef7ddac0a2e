"""The published reference model scores what its record says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfprune.data import generate_steel
from tfprune.records import read_json
from tfprune.verification.proof import prove_folder

MODELS = Path(__file__).parents[1] / "models"


def test_the_reference_model_is_what_its_record_says(tmp_path):
    record = read_json(MODELS / "steel_corrosion_96_int8.json")
    counts = {"train": 1, "val": 1, "test": record["dataset"]["test_images"]}
    generate_steel(tmp_path / "steel", classes=2, counts=counts, size=(96, 96), seed=1)
    (row,) = prove_folder([MODELS / record["row"]["file"]], tmp_path / "steel")["rows"]
    assert row["footprint"] == record["row"]["footprint"] and row["footprint"]["float_ops"] == []
    # Integer kernels may round differently on another processor.
    assert row["scores"]["mean_iou"] == pytest.approx(record["row"]["scores"]["mean_iou"], abs=0.002)


def test_every_model_has_a_record_and_a_card():
    for file in MODELS.glob("*.tflite"):
        assert file.with_suffix(".json").exists() and f"## {file.name}" in (MODELS / "README.md").read_text()
