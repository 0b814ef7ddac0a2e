"""A whole run: what it leaves, that it resumes to the same result, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tfprune.architectures.files import load_model
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.recipe import check_recipe
from tfprune.records import read_json
from tfprune.run import calibrate, export_variants, run_recipe, tell_absent_classes
from tfprune.run.inputs import build_dense, check_stages, load_inputs, train_at_net_size
from tfprune.run.stages import prune_stages
from tfprune.verification.engines import RUNTIMES
from tfprune.verification.footprint import measure_footprint


def test_a_run_leaves_what_the_design_says(finished):
    for name in (
        *("recipe.yaml", "environment.json", "data.json", "report.html", "data/dataset.json"),
        *("models/dense.keras", "models/pruned.keras", "models/pruned_int8.tflite", "models/dense_float32.tflite"),
        *("records/verification.json", "records/sparsity.json", "records/run.json", "records/samples.npz"),
        *("stages/train/history.csv", "stages/prune/state.npz", "stages/fine_tune/best.npz"),
    ):
        assert (finished / name).is_file(), name
    assert list((finished / "stages" / "train" / "tensorboard").rglob("events*"))


def test_the_record_judges_every_file_on_the_whole_test_split(finished):
    record = read_json(finished / "records" / "verification.json")
    assert record["dataset"]["test_images"] == 9
    assert [(row["variant"], row["scheme"]) for row in record["rows"]] == [
        ("dense", "float32"),
        ("dense", "int8"),
        ("pruned", "float32"),
        ("pruned", "int8"),
        ("shrunk", "float32"),
        ("shrunk", "int8"),
        ("quantized", "int8"),
    ]
    for row in record["rows"]:
        assert row["footprint"]["file_bytes"] == (finished / row["file"]).stat().st_size
        # A net of two epochs has hardly a margin between its classes for int8 to keep.
        assert row["agreement"]["equal_ratio"] > (0.999 if row["scheme"] == "float32" else 0.8)
        assert 0 <= row["scores"]["mean_iou"] <= 1 and row["latency"]["median_ms"] > 0
    dense, pruned, shrunk = (record["rows"][index]["footprint"] for index in (0, 2, 4))
    assert shrunk["macs"] < 0.4 * dense["macs"] and shrunk["file_bytes"] < 0.5 * dense["file_bytes"]
    assert pruned["parameters"] == dense["parameters"] and pruned["macs"] == dense["macs"]
    assert pruned["nonzero_parameters"] < 0.6 * dense["nonzero_parameters"]
    assert pruned["gzip_bytes"] < dense["gzip_bytes"]


def test_the_files_are_held_against_the_target_of_the_recipe(finished):
    record = read_json(finished / "records" / "target.json")
    variants = ["dense", "pruned", "shrunk", "quantized"]
    assert record["target"] == "coral" and [row["variant"] for row in record["rows"]] == variants
    for row in record["rows"]:
        assert {found["operator"] for found in row["findings"]} == {"RESIZE_NEAREST_NEIGHBOR", "SOFTMAX"}
        assert 0 < row["unmapped"] < row["operators"] and row["scheme"] == "int8"
    page = (finished / "report.html").read_text()
    assert "<h2>On coral</h2>" in page and "no softmax over one row" in page


def test_the_sparsity_is_what_was_asked_over_all_masked_layers(finished):
    record = read_json(finished / "records" / "sparsity.json")
    kept, weights = (sum(row[name] for row in record["layers"]) for name in ("nonzero", "weights"))
    assert kept == weights / 2 and len({row["sparsity"] for row in record["layers"]}) > 1
    assert record["wrapped_sparsity"] == 0.5 and record["total_sparsity"] < 0.5
    assert {"logits"} <= {row["layer"] for row in record["dense"]}
    assert [row["sparsity"] for row in record["history"] if row["stage"] == "prune"] == pytest.approx([0.4375, 0.5])


def test_the_quantized_net_is_made_of_the_last_one_and_exported_with_what_it_learnt(finished):
    record = read_json(finished / "records" / "quantization.json")
    shrunk, quantized = (load_model(finished / "models" / f"{name}.keras") for name in ("shrunk", "quantized"))
    assert record["origin"] == "shrunk" and record["float_layers"] == [] and record["ranges"]["image"] == [0, 255]
    for name in record["layers"]:
        assert quantized.get_layer(name).kernel.shape == shrunk.get_layer(name).weights[0].shape
    stage = read_json(finished / "records" / "run.json")["stages"][-1]
    assert (stage["name"], stage["epochs"]) == ("quantize", 1)
    (row,) = (
        row for row in read_json(finished / "records" / "verification.json")["rows"] if row["variant"] == "quantized"
    )
    assert row["footprint"]["float_ops"] == []
    assert "trained with the rounding of its file" in (finished / "report.html").read_text(encoding="utf-8")


def test_a_quantized_net_is_no_start(finished, tmp_path, tiny_recipe):
    recipe = {key: tiny_recipe[key] for key in ("name", "data", "loss", "pruning")}
    with pytest.raises(InputError, match="give the model that it was made of"):
        run_recipe(check_recipe(recipe), model=finished / "models" / "quantized.keras", out=tmp_path)


def test_a_second_start_says_done_and_changes_nothing(finished):
    before = (finished / "report.html").stat().st_mtime_ns
    recipe = check_recipe({**_content(finished), "about": {"purpose": "other words"}})
    assert run_recipe(recipe, out=finished.parent) == finished
    assert (finished / "report.html").stat().st_mtime_ns == before


def _content(folder):
    import yaml

    return yaml.safe_load((folder / "recipe.yaml").read_text())


def test_another_recipe_in_the_same_folder_is_refused(finished):
    content = _content(finished)
    content["training"]["epochs"] = 5
    with pytest.raises(InputError, match=r"(?s)another recipe.*-  epochs: 2\n\+  epochs: 5"):
        run_recipe(check_recipe(content), out=finished.parent)


@pytest.mark.parametrize(
    "stage",
    ["prune", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train", "fine_tune", "channels", "quantize"))],
)
def test_a_run_killed_in_a_stage_ends_with_the_same_files(finished, recipe_path, tmp_path, stage):
    command = [sys.executable, "-m", "tfprune", "run", str(recipe_path), "--out", str(tmp_path / "runs")]
    folder = tmp_path / "runs" / "tiny"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state, deadline = folder / "stages" / stage / "state.npz", time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.exists() and not (folder / "report.html").exists()
    subprocess.run(command, check=True, capture_output=True)
    files = [*("dense_float32", "dense_int8", "pruned_float32", "pruned_int8"), "shrunk_int8", "quantized_int8"]
    for name in files:
        ours, theirs = (place / "models" / f"{name}.tflite" for place in (folder, finished))
        assert ours.read_bytes() == theirs.read_bytes(), name
    ours, theirs = (read_json(place / "records" / "verification.json")["rows"] for place in (folder, finished))
    assert [row["scores"] for row in ours] == [row["scores"] for row in theirs]


def test_a_folder_of_something_else_is_refused(tmp_path, tiny_recipe):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"not a run folder \(it holds thesis\.txt\)"):
        run_recipe(check_recipe(tiny_recipe), out=tmp_path)


def test_other_pictures_under_the_same_run_are_refused(tmp_path, tiny_recipe):
    from tfprune.data import generate_steel
    from tfprune.run.folder import claim_folder
    from tfprune.run.inputs import load_inputs

    del tiny_recipe["data"]["generate"]
    recipe = check_recipe(tiny_recipe)
    for seed in (0, 1):
        generate_steel(
            tmp_path / str(seed), classes=2, counts={"train": 4, "val": 2, "test": 2}, size=(32, 32), seed=seed
        )
    run = tmp_path / "run"
    claim_folder(run, recipe, load_inputs(recipe, tmp_path / "0", None, run))
    claim_folder(run, recipe, load_inputs(recipe, tmp_path / "0", None, run))
    with pytest.raises(InputError, match="started on other data"):
        claim_folder(run, recipe, load_inputs(recipe, tmp_path / "1", None, run))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architecture": {"name": "unet", "encoder": "resnet18"}, "data.size": [40, 32]}, "architecture: .*40"),
        ({"architecture": {"name": "plain_unet", "widht": 8}}, "architecture: .*widht.*did you mean 'width'"),
        ({"verification.target": "corall"}, "verification.target is .*did you mean 'coral'"),
        (
            {"export": {"schemes": ["float32"]}, "quantization": None},
            "target coral takes files of scheme int8, and",
        ),
        ({"architecture": {"name": "plain_unet", "head": "sigmoid"}, "data.generate.classes": 3}, "softmax"),
        ({"loss": "tverski"}, "loss: unknown loss 'tverski'; did you mean 'tversky'"),
        ({"class_weights": [1.0]}, "class_weights has 1 numbers, and the set has 2 classes"),
        ({"data.augment": ["HorizontlFlip"]}, "data.augment.*did you mean 'HorizontalFlip'"),
        ({"pruning.prunes": 50}, "pruning: .*50 prunes do not fit into the 4 training steps"),
        ({"training.optimizer_options": {"momentun": 0.5}}, "training: .*momentun"),
        ({"pruning.min_weights": 10**7}, "pruning: .*no layer to mask"),
        ({"channels.include": ["nothing*"]}, "channels: .*nothing"),
        ({"channels.exclude": ["*"]}, r"channels: ratio 0.5 takes no channel .* exclude \[\*\]"),
        ({"pruning.layer_sparsity": {"(": 0.5}}, r"pruning: layer_sparsity: '\(' is not a regular expression"),
        ({"training.learning_rate": float("inf")}, "training.learning_rate is Infinity: .*finite"),
        ({"verification.random_walker": [0.9, 0.1]}, "random_walker is .*give .low, high. with low below high"),
        ({"verification.random_walker": [0.1, 0.9], "export": {"head": "class_map"}}, "export.head is class_map"),
        ({"verification": {"runtime": "micro", "threads": 2}}, "threads is 2, and TFLite Micro has one"),
        ({"verification": {"runtime": "micro"}, "export": {"schemes": ["float16", "int8"]}}, "verification: .*float16"),
        ({"data.generate.counts": {"train": 7, "val": 2, "test": 2}}, "int8 takes its ranges from at least 8 train"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_written(tmp_path, tiny_recipe, change, text):
    for key, value in change.items():
        section = tiny_recipe
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    with pytest.raises(InputError, match=text):
        run_recipe(check_recipe(tiny_recipe), out=tmp_path / "runs")
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_runtime_that_is_not_there_is_missed_before_training(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "tflite-runtime", replace(RUNTIMES["tflite-runtime"], module="nowhere"))
    tiny_recipe["verification"]["runtime"] = "tflite-runtime"
    with pytest.raises(InputError, match=r"verification: no runtime .* is installed .*pip install tflite-runtime"):
        run_recipe(check_recipe(tiny_recipe), out=tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_classes_that_a_part_does_not_show_are_told(tmp_path, tiny_recipe):
    recipe, said = check_recipe(tiny_recipe), []
    inputs = load_inputs(recipe, None, None, tmp_path)
    tell_absent_classes(inputs, said.append)
    assert said == []
    inputs.arrays["test"].masks[:] = 0
    tell_absent_classes(inputs, said.append)
    (line,) = said
    assert line.startswith(f"test holds no pixel of: {inputs.dataset.classes.names[1]} (at this size")


def test_a_refused_run_leaves_the_runs_beside_it(tmp_path, tiny_recipe, monkeypatch):
    def stop_while_another_begins(*arguments):
        (tmp_path / "runs" / "other" / "models").mkdir(parents=True)
        raise InputError("no")

    monkeypatch.setattr("tfprune.run.load_inputs", stop_while_another_begins)
    with pytest.raises(InputError, match="no"):
        run_recipe(check_recipe(tiny_recipe), out=tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_statistics_and_ranges_are_those_of_pictures_at_the_nets_size(tmp_path, tiny_recipe):
    tiny_recipe["data"]["load_size"] = [40, 48]
    recipe = check_recipe({**tiny_recipe, "fine_tuning": None})
    inputs = load_inputs(recipe, None, None, tmp_path)
    train, loaded = train_at_net_size(recipe, inputs), inputs.arrays["train"]
    assert loaded.images.shape == (16, 40, 48, 3) and train.images.shape == (16, 32, 32, 3)
    assert np.array_equal(train.masks, loaded.masks[:, 4:36, 8:40])
    dense = build_dense(recipe, inputs, None)
    controller = check_stages(recipe, inputs, dense).controller(dense)
    statistics = [weight for weight in controller.model.weights if "moving_variance" in weight.name]
    prune_stages(recipe, controller, inputs, lambda *stage, **options: None)
    assert statistics and not any(np.all(weight.numpy() == 1) for weight in statistics)
    assert calibrate(recipe, dense, inputs, tmp_path).shape == (16, 32, 32, 3)


def test_a_model_for_pictures_of_any_size_is_shrunk_and_exported_at_the_recipes(tmp_path, tiny_recipe):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    keras.Model(image, keras.layers.Conv2D(2, 1)(x)).save(tmp_path / "any.keras")
    channels = {"epochs": 1, "budget": "macs<=0.6x, file_bytes<=0.9x", "scheme": "float32", "multiple_of": 1}
    recipe = {"name": "any", "data": tiny_recipe["data"], "channels": channels, "export": {"schemes": ["float32"]}}
    recipe = check_recipe(recipe)
    inputs = load_inputs(recipe, None, tmp_path / "any.keras", tmp_path)
    dense = build_dense(recipe, inputs, tmp_path / "any.keras")
    shrunk = check_stages(recipe, inputs, dense).remove(dense).model
    files = export_variants(recipe, {"dense": dense, "shrunk": shrunk}, inputs, None, tmp_path)
    costs = [measure_footprint(file.path) for file in files]
    assert costs[0].macs == 32 * 32 * 16 * (27 + 2) and costs[1].macs <= 0.6 * costs[0].macs
    assert costs[1].file_bytes <= 0.9 * costs[0].file_bytes


def test_samples_line_up_with_the_rows(finished):
    with np.load(finished / "records" / "samples.npz") as samples:
        assert samples["image"].shape == (6, 32, 32, 3) and samples["truth"].shape == (6, 32, 32)
        assert samples["pruned_int8"].shape == samples["truth"].shape
