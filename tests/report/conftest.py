"""Run folders made up for these tests: the numbers are round on purpose and were never measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfprune.records import write_json, write_text

RECIPE = """name: made_up
about:
  purpose: tell rust from paint
  command: tfprune run made_up.yaml --data DIR
seed: 0
"""
SIZES = {"float32": (8_192_000, 7_168_000, 2_048_000), "int8": (2_048_000, 1_536_000, 768_000)}
TIMES = {"float32": 4.0, "int8": 2.0}


def make_row(variant: str, scheme: str, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one row of verification.json; pruning changes gzip, non-zeros and scores, nothing else."""
    pruned = variant == "pruned"
    file_bytes, gzip_dense, gzip_pruned = SIZES[scheme]
    foreground = 0.5625 if pruned else 0.6125
    iou = {name: 0.9375 if index == 0 else foreground - 0.05 * (index - 1) for index, name in enumerate(class_names)}
    mean = sum(iou.values()) / len(iou)
    ratio = TIMES["float32"] / TIMES[scheme]
    spread = 0.0 if (variant, scheme) == ("dense", "float32") else 0.05
    return {
        "variant": variant,
        "scheme": scheme,
        "file": f"models/{variant}_{scheme}.tflite",
        "footprint": {
            "file_bytes": file_bytes,
            "gzip_bytes": gzip_pruned if pruned else gzip_dense,
            "parameters": 2_000_000,
            "nonzero_parameters": 400_000 if pruned else 2_000_000,
            "macs": 431_000_000,
            "ops": {"CONV_2D": 18},
            "float_ops": [],
        },
        "scores": {
            "mean_iou": mean,
            "iou": iou,
            "dice": {name: 2 * value / (1 + value) for name, value in iou.items()},
            "mean_dice": 0.8,
            "sensitivity": dict.fromkeys(class_names, 0.7),
            "specificity": dict.fromkeys(class_names, 0.95),
            "pixel_accuracy": 0.93,
            "balanced_accuracy": 0.825,
        },
        "keras_scores": {"mean_iou": mean + 0.002},
        "agreement": {"pixels": 10_000, "equal_ratio": 0.9987, "worst_image_ratio": 0.991},
        "latency": {
            "median_ms": TIMES[scheme],
            "p95_ms": TIMES[scheme] * 1.25,
            "runs": 50,
            "ratio_to_first": ratio,
            "ratio_low": ratio - spread,
            "ratio_high": ratio + spread,
        },
    }


def make_samples(rows: Sequence[dict[str, Any]], classes: int, count: int = 2) -> dict[str, np.ndarray]:
    """Return the arrays of samples.npz: discs of every class, moved a little in each prediction."""
    size = 48
    y, x = np.mgrid[:size, :size]
    truth = np.zeros((count, size, size), np.uint8)
    for index in range(1, classes):
        truth[:, (y - 10 * index) ** 2 + (x - 10 * index) ** 2 < 36] = index
    image = np.repeat((60 + 2 * y + x)[None, ..., None], count, 0).astype(np.uint8) * np.ones(3, np.uint8)
    predicted = {f"{row['variant']}_{row['scheme']}": np.roll(truth, 2, axis=2) for row in rows}
    return {"image": image, "truth": truth, "stems": np.array([f"plate_{n}" for n in range(count)]), **predicted}


def write_histories(folder: Path) -> None:
    """Write three stages of two to four epochs."""
    for stage, epochs in (("train", 4), ("prune", 3), ("fine_tune", 2)):
        lines = ["epoch,loss,mean_iou,val_loss,val_mean_iou,learning_rate,seconds"]
        lines += [
            f"{n},{1 / (n + 1)},{0.1 * n + 0.4},{1.2 / (n + 1)},{0.1 * n + 0.35},0.001,3.5" for n in range(epochs)
        ]
        write_text(folder / "stages" / stage / "history.csv", "\n".join(lines) + "\n")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a whole made-up run folder and returns it."""

    def write(name: str = "made_up", class_names: Sequence[str] = ("background", "corrosion")) -> Path:
        return write_run(tmp_path / name, name, class_names)

    return write


def write_run(folder: Path, name: str, class_names: Sequence[str]) -> Path:
    """Write every record that a finished run has."""
    rows = [make_row(v, s, class_names) for v in ("dense", "pruned") for s in ("float32", "int8")]
    dataset = {"name": "plates", "class_names": class_names, "test_images": 196, "input_size": [96, 96], "channels": 3}
    records = folder / "records"
    write_json(
        records / "verification.json",
        {"dataset": dataset, "runtime": "ai-edge-litert 0.0, XNNPACK, 1 thread", "rows": rows},
    )
    layers = [{"layer": f"conv_{n}", "weights": 9216, "nonzero": 1843, "sparsity": 1 - 1843 / 9216} for n in range(3)]
    write_json(
        records / "sparsity.json",
        {
            "target": 0.8,
            "layers": layers,
            "dense": [{"layer": "logits", "weights": 34, "reason": "output head stays dense"}],
            "wrapped_sparsity": 0.8,
            "total_sparsity": 0.79,
            "history": [{"stage": "prune", "epoch": n, "sparsity": z} for n, z in enumerate((0.5, 0.8, 0.8))],
        },
    )
    stages = [
        {"name": stage, "epochs": epochs, "seconds": 30.0, "best_epoch": epochs - 1, "best_val_mean_iou": 0.7}
        for stage, epochs in (("train", 4), ("prune", 3), ("fine_tune", 2))
    ]
    write_json(
        records / "run.json",
        {"name": name, "finished": "2020-01-01 00:00:00", "seconds": 90, "recipe": "recipe.yaml", "stages": stages},
    )
    write_json(folder / "environment.json", {"tfprune": "0.0", "python": "3.11.0", "cpu": "made-up", "cores": 2})
    write_json(folder / "data.json", {"name": "plates", "splits": {"train": 729, "test": 196}})
    write_text(folder / "recipe.yaml", RECIPE)
    write_histories(folder)
    np.savez_compressed(records / "samples.npz", **make_samples(rows, len(class_names)))
    return folder
