"""The command line as a person meets it: text, files and exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image

from tests.export.nets import without_card
from tfprune.cli import main
from tfprune.cli.given import picture_size
from tfprune.errors import InputError


def tfprune(*arguments, cwd="."):
    """Run the command line, in this process: a new one would spend its time on importing TensorFlow."""
    said, complained, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(complained):
        patch.setattr("sys.argv", ["tfprune", *map(str, arguments)])
        patch.chdir(cwd)
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), complained.getvalue())


@pytest.fixture(scope="module")
def model_file(finished):
    return finished / "models" / "pruned_int8.tflite"


def test_verify_judges_files_and_bounds_them(finished, model_file, tmp_path):
    dense = finished / "models" / "dense_float32.tflite"
    result = tfprune("verify", dense, model_file, "--data", finished / "data", "--json", tmp_path / "v.json")
    assert result.returncode == 0, result.stderr
    assert "mean" in result.stdout and "KiB" in result.stdout
    rows = json.loads((tmp_path / "v.json").read_text())["rows"]
    recorded = json.loads((finished / "records" / "verification.json").read_text())["rows"]
    assert rows[1]["scores"] == recorded[3]["scores"]
    below = tfprune("verify", model_file, "--data", finished / "data", "--min-iou", "0.999")
    assert below.returncode == 1 and "mean IoU below 0.999" in below.stderr


def test_files_of_other_tools_are_told_what_they_take(finished, tmp_path):
    ours = finished / "models" / "dense_float32.tflite"
    foreign = without_card(ours, tmp_path / "foreign.tflite")
    data, said = ("--data", finished / "data"), ("--scale", "255/255", "--offset", "0,0,0", "--head", "probabilities")
    unsaid = tfprune("verify", foreign, *data)
    assert unsaid.returncode == 2 and "--scale 1/127.5 --offset -1" in unsaid.stderr
    told = tfprune("verify", ours, foreign, *data, *said, "--json", tmp_path / "v.json")
    assert told.returncode == 0, told.stderr
    rows = json.loads((tmp_path / "v.json").read_text())["rows"]
    assert rows[0]["scores"] == rows[1]["scores"] and rows[1]["agreement_with_first"]["equal_ratio"] == 1
    picture = next((finished / "data" / "test" / "images").iterdir())
    drawn = [
        tfprune("predict", *which, picture, "--out", tmp_path / which[0].stem) for which in ([ours], [foreign, *said])
    ]
    assert [done.returncode for done in drawn] == [0, 0], drawn[1].stderr
    one, other = (
        np.asarray(Image.open(tmp_path / name.stem / "masks" / f"{picture.stem}.png")) for name in (ours, foreign)
    )
    np.testing.assert_array_equal(one, other)
    assert "say it themselves" in tfprune("verify", ours, *data, *said).stderr
    assert "not a number" in tfprune("verify", foreign, *data, "--scale", "1/0").stderr


def test_lint_takes_files_and_models_and_leaves_with_1_when_something_falls_back(finished, model_file):
    fine = tfprune("lint", finished / "models" / "dense.keras", "--target", "tflm")
    assert fine.returncode == 0, fine.stderr
    assert "operators run on TFLite Micro" in fine.stdout and "falls back" not in fine.stdout
    found = tfprune("lint", model_file, "--target", "coral")
    assert found.returncode == 1 and "not all of it maps to coral" in found.stderr
    assert "way out  export with --head logits" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 100
    ignored = tfprune("lint", model_file, "--target", "coral", "--scheme", "float32")
    assert ignored.returncode == 2 and "exported already" in ignored.stderr


def test_verify_holds_files_against_another(finished, model_file, tmp_path):
    dense, options = finished / "models" / "dense.keras", ("--data", finished / "data", "--against")
    same = tfprune("verify", finished / "models" / "dense_float32.tflite", *options, dense, "--min-agreement", "0.999")
    assert same.returncode == 0, same.stderr
    other = tfprune("verify", model_file, *options, dense, "--max-drop", "-1", "--min-agreement", "1")
    assert other.returncode == 1, other.stderr
    assert "pruned_int8.tflite: mean IoU" in other.stderr and "of the pixels are as DENSE has them" in other.stderr
    lonely = tfprune("verify", model_file, "--data", finished / "data", "--max-drop", "0.1")
    assert lonely.returncode == 2 and "give --against DENSE" in lonely.stderr


def test_files_answer_together_and_their_answers_are_cleaned(finished, model_file, tmp_path):
    files = (finished / "models" / "dense_float32.tflite", model_file)
    cleaned = ("--min-pixels", "5", "--random-walker", "0.4", "0.6", "--blank-is-empty")
    options = (*cleaned, "--data", finished / "data", "--json", tmp_path / "v.json")
    result = tfprune("verify", *files, "--together", "--scores", *options)
    assert result.returncode == 0, result.stderr
    shown = result.stdout.splitlines()
    assert any(line.startswith("together ") for line in shown) and any(line.startswith("all empty ") for line in shown)
    assert max(map(len, shown)) <= 80
    record = json.loads((tmp_path / "v.json").read_text())
    assert record["processing"] == {"min_pixels": 5, "random_walker": [0.4, 0.6], "blank_is_empty": True}
    assert record["together"]["files"] == ["dense_float32.tflite", "pruned_int8.tflite"]
    picture = next((finished / "data" / "test" / "images").iterdir())
    done = tfprune("predict", model_file, picture, "--with", files[0], *cleaned, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "masks" / picture.name).exists()


def test_bench_times_files_against_the_first(finished, model_file, tmp_path):
    dense, record = finished / "models" / "dense_float32.tflite", tmp_path / "bench.json"
    result = tfprune("bench", dense, model_file, "--runs", "5", "--json", record)
    assert result.returncode == 0 and "10-90 %" in result.stdout and "5 rounds" in result.stdout, result.stderr
    assert [row["file"] for row in json.loads(record.read_text())["rows"]] == [str(dense), str(model_file)]


def test_predict_writes_masks_of_the_pictures_own_size(model_file, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wall.png")
    result = tfprune("predict", model_file, tmp_path / "wall.png", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out" / "masks" / "wall.png") as mask:
        assert mask.mode == "P" and mask.size == (70, 50) and set(np.unique(mask)) <= {0, 1}
    with Image.open(tmp_path / "out" / "overlays" / "wall.png") as overlay:
        assert overlay.size == (70, 50)
    assert "background" in result.stdout and "%" in result.stdout


def test_predict_leaves_out_what_it_cannot_read_and_says_so(model_file, tmp_path):
    folder = tmp_path / "walls"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "._a.png").write_bytes(b"what macOS leaves beside a.png")
    (folder / "empty.png").write_bytes(b"")
    result = tfprune("predict", model_file, folder, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "broken.jpg: is not an image" in result.stderr and "empty.png: is empty" in result.stderr
    assert result.stderr.splitlines()[-1] == "2 of 4 files could not be read; each is named above"
    assert "2 masks in" in result.stdout
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {"a.png", "z.png"}


def test_predict_tells_of_pictures_that_lie(model_file, tmp_path):
    picture = Image.fromarray(np.zeros((40, 30, 3), np.uint8))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "phone.jpg", exif=exif)
    result = tfprune("predict", model_file, tmp_path / "phone.jpg", "--out", tmp_path / "out")
    assert result.returncode == 0
    assert "phone.jpg: carries an EXIF rotation, which is not applied (1 such picture(s))" in result.stderr


def test_export_writes_the_file_the_run_wrote(finished, tmp_path):
    out = tmp_path / "again.tflite"
    options = ("--data", finished / "data", "--out", out, "--c-array")
    result = tfprune("export", finished / "models" / "pruned.keras", *options)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        *("model_data.cc", "model_data.h", "model_operators.h", "README.md")
    }
    assert out.read_bytes() == (finished / "models" / "pruned_int8.tflite").read_bytes()


def test_operators_kept_float_are_named_and_judged_one_by_one(finished, tmp_path):
    given = (finished / "models" / "dense.keras", "--data", finished / "data")
    result = tfprune("export", *given, "--keep-float", 1, "--out", tmp_path / "kept.tflite")
    assert result.returncode == 0, result.stderr
    assert "calibrated on 16 train pictures, chosen by class, the rarest first" in result.stderr
    said = r"float: CONV_2D \S+\n  its signal in int8 -?[\d.]+ dB; that of the answers -?[\d.]+ -> -?[\d.]+ dB"
    assert len(re.findall(said, result.stdout)) == 1
    result = tfprune("verify", *given, "--keep-float", 2, "--json", tmp_path / "record.json")
    assert result.returncode == 0, result.stderr
    assert len(re.findall(said, result.stdout)) == 2
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["dense", "dense_float0", "dense_float1", "dense_float2"]
    floats = [len(row["footprint"]["float_ops"]) for row in rows[1:]]
    assert floats[0] == 0 < floats[1] < floats[2]
    sizes = [row["footprint"]["file_bytes"] for row in rows]
    assert sizes[1] < sizes[2] < sizes[3] < sizes[0]


def test_prune_starts_from_a_trained_model(finished, tmp_path):
    options = ("--data", finished / "data", "--epochs", "1", "--fine-tune-epochs", "1", "--prunes", "2")
    options += ("--sparsity", "0.5", "--granularity", "filter", "--out", tmp_path, "--set", "export.schemes=[float32]")
    result = tfprune("prune", finished / "models" / "dense.keras", *options, "--set", "verification.latency_runs=3")
    assert result.returncode == 0, result.stderr
    run = tmp_path / "dense_pruned"
    sparsity = json.loads((run / "records" / "sparsity.json").read_text())
    assert sparsity["wrapped_sparsity"] == 0.5
    dense, pruned = json.loads((run / "records" / "verification.json").read_text())["rows"]
    assert dense["footprint"]["file_bytes"] == (finished / "models" / "dense_float32.tflite").stat().st_size
    assert pruned["footprint"]["nonzero_parameters"] < 0.6 * dense["footprint"]["nonzero_parameters"]


def test_a_finished_run_is_shown_again_and_not_for_another_recipe(finished):
    again = ("run", finished / "recipe.yaml", "--out", finished.parent)
    result = tfprune(*again)
    assert result.returncode == 0 and "already done" in result.stdout and "Report: " in result.stdout
    result = tfprune(*again, "--set", "training.epochs=5")
    assert result.returncode == 2 and "another recipe" in result.stderr and "already done" not in result.stdout


def test_shrink_plans_removes_and_replays(finished, tmp_path):
    model = finished / "models" / "dense.keras"
    dry = tfprune("shrink", model, "--ratio", "0.5", "--dry-run")
    assert dry.returncode == 0 and "MACs" in dry.stdout and "removed" in dry.stdout, dry.stderr
    first = tfprune("shrink", model, "--ratio", "0.5", "--out", tmp_path / "small.keras", "--multiple-of", "1")
    assert first.returncode == 0 and "parameters" in first.stdout, first.stderr
    again = tfprune("shrink", model, "--plan", tmp_path / "small.plan.json", "--out", tmp_path / "again.keras")
    assert again.returncode == 0, again.stderr
    from tfprune.architectures.files import load_model

    small, same = load_model(tmp_path / "small.keras"), load_model(tmp_path / "again.keras")
    assert small.count_params() < 0.5 * load_model(model).count_params()
    for ours, theirs in zip(small.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shrink_to_a_budget_of_the_file_that_would_be_deployed(finished, tmp_path):
    model, out = finished / "models" / "dense.keras", tmp_path / "small.keras"
    result = tfprune("shrink", model, "--budget", "file_bytes<=24KiB, macs<=.5x", "--multiple-of", "1", "--out", out)
    assert result.returncode == 0 and "KiB, at most 24.0 KiB" in result.stdout, result.stderr
    exported = tfprune("export", out, "--scheme", "int8", "--data", finished / "data", "--out", tmp_path / "s.tflite")
    assert exported.returncode == 0, exported.stderr
    assert 20 * 1024 < (tmp_path / "s.tflite").stat().st_size <= 24 * 1024
    refused = tfprune("shrink", model, "--budget", "file_bytes<=1KiB")
    assert refused.returncode == 2 and "with all gone that may go" in refused.stderr
    both = tfprune("shrink", model, "--budget", "macs<=.5x", "--ratio", "0.5")
    assert both.returncode == 2 and "give one of --ratio" in both.stderr


def test_a_keras_model_is_judged_and_shown_as_its_float32_file(finished, tmp_path):
    dense = finished / "models" / "dense.keras"
    result = tfprune("verify", dense, "--data", finished / "data", "--json", tmp_path / "v.json")
    assert result.returncode == 0 and "judged as its float32 .tflite" in result.stderr, result.stderr
    (row,) = json.loads((tmp_path / "v.json").read_text())["rows"]
    recorded = json.loads((finished / "records" / "verification.json").read_text())["rows"][0]
    assert row["scores"] == recorded["scores"] and row["footprint"] == recorded["footprint"]
    picture = next((finished / "data" / "test" / "images").iterdir())
    result = tfprune("predict", dense, picture, "--out", tmp_path / "out", "--classes", "sound,rust")
    assert result.returncode == 0 and "rust" in result.stdout, result.stderr


def test_a_model_for_pictures_of_any_size_needs_to_be_told_one():
    from tfprune.keras import keras

    net = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(InputError, match=r"^m.keras takes pictures of any size; .*--size H W$"):
        picture_size("m.keras", net, None)
    assert picture_size("m.keras", net, (32, 48)) == (32, 48)
    fixed = keras.Sequential([keras.Input((32, 48, 3)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(InputError, match=r"^m.keras takes pictures of 32 x 48, not 48 x 32; leave --size out$"):
        picture_size("m.keras", fixed, (48, 32))


def test_code_in_a_model_file_runs_with_trust_only(tmp_path):
    from tfprune.keras import keras

    image = keras.Input((16, 16, 3))
    x = keras.layers.Lambda(lambda x: x / 255, name="shrink_values")(image)
    keras.Model(image, keras.layers.Conv2D(2, 1)(x)).save(tmp_path / "m.keras")
    command = ("export", tmp_path / "m.keras", "--scheme", "float32", "--classes", "a,b")
    refused = tfprune(*command)
    assert refused.returncode == 2 and "Lambda layers (shrink_values)" in refused.stderr
    assert "--trust" in refused.stderr and "Traceback" not in refused.stderr
    assert tfprune(*command, "--trust").returncode == 0 and (tmp_path / "m_float32.tflite").exists()


def test_data_check_tells_and_leaves_with_1_on_a_finding(finished, tmp_path):
    clean = tfprune("data", "check", finished / "data")
    assert clean.returncode == 0 and "no findings" in clean.stdout and "corrosion" in clean.stdout
    import shutil

    shutil.copytree(finished / "data", tmp_path / "data")
    next((tmp_path / "data" / "test" / "masks").iterdir()).unlink()
    kinds = ",".join(f"kind of defect {number}" for number in range(12))
    broken = tfprune("data", "check", tmp_path / "data", "--classes", f"steel, [red]rust[/red],{kinds}")
    assert broken.returncode == 1 and "missing_mask" in broken.stdout and "1 finding" in broken.stderr
    assert "\n[red]rust[/red] " in broken.stdout and "\nkind of defect 11 " in broken.stdout


def test_report_is_written_again_and_runs_are_compared(finished, tmp_path):
    assert tfprune("report", finished).returncode == 0
    result = tfprune("report", finished, finished, "--out", tmp_path / "both.html")
    assert result.returncode == 0 and (tmp_path / "both.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "dmo"), "did you mean 'demo'"),
        (("run", "none.yaml"), "none.yaml does not exist"),
        (("run", "corrosion_field"), "give it with --data DIR"),
        (("run", "corrosion_field", "--data", "nowhere"), "'nowhere' does not exist"),
        (("run", "demo", "--set", "pruning.final_sparsity=90"), "a fraction of zeros: .9 means 90 %"),
        (("list", "architecture"), "did you mean 'architectures'"),
        (("export", "none.keras"), "none.keras does not exist"),
        (("verify", "none.tflite", "--data", "."), "none.tflite"),
        (("verify", "none.keras", "--data", "."), "none.keras does not exist"),
        (("predict", "none.tflite", "none.png"), "none.tflite"),
        (("shrink", "none.keras"), "give one of --ratio FRACTION, --budget"),
        (("shrink", "none.keras", "--plan", "p.json", "--criterion", "taylor"), "--criterion: the plan already says"),
        (("shrink", "none.keras", "--ratio", ".5", "--scheme", "int8"), "--scheme: it says in which number format"),
        (("predict", "none.tflite", "a.png", "--size", "32", "32", "--trust"), "--size and --trust: for Keras models"),
        (("export", "none.keras", "--scheme", "float16", "--calibration-images", "20"), "--calibration-images: they"),
        (("run", "demo", "--model", "m.keras"), "drop one of them"),
        (("data", "check", "nowhere"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("run", "demo", "--out", f"{__file__}/runs"), "Not a directory"),
    ],
)
def test_a_mistake_gives_one_message_and_exit_code_2(tmp_path, arguments, text):
    result = tfprune(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert text in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_lists_and_schema_need_no_tensorflow():
    script = (
        "import sys; sys.argv = ['tfprune', *sys.argv[1:]]\n"
        "from tfprune.cli import commands\n"
        "commands(standalone_mode=False)\n"
        "assert not {'tensorflow', 'tf_keras'} & set(sys.modules)"
    )
    for arguments in (["list", "recipes"], ["list", "encoders"], ["recipe", "schema"], ["recipe", "check", "demo"]):
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert result.returncode == 0 and result.stdout, result.stderr


BOARD = """
import sys

class OnlyTheBoards:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ImportError(name + " is not on this board")

sys.meta_path.insert(0, OnlyTheBoards())
from tfprune.cli import main
main()
"""
ABSENT = (
    *("tensorflow", "tf_keras", "keras", "scipy", "h5py", "pydantic", "yaml", "matplotlib", "jinja2", "skimage"),
    *("albumentations", "tensorflow_model_optimization", "segmentation_models", "keras_tuner", "cv2"),
)


@pytest.mark.parametrize("command", ["predict", "verify", "bench"])
def test_a_board_without_tensorflow_predicts_verifies_and_times(command, finished, model_file, tmp_path):
    data = finished / "data"
    picture = next((data / "test" / "images").iterdir())
    arguments = {
        "predict": ("predict", model_file, picture, "--out", tmp_path / "out"),
        "verify": ("verify", model_file, "--data", data),
        "bench": ("bench", model_file, "--runs", "3"),
    }
    line = [sys.executable, "-c", BOARD.format(absent=ABSENT), *map(str, arguments[command])]
    result = subprocess.run(line, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout, result.stderr
    assert "ai-edge-litert" in result.stdout or "overlays" in result.stdout


def test_another_python_runs_the_inference(finished, model_file):
    options = ("--data", finished / "data", "--runtime-python", sys.executable)
    result = tfprune("verify", model_file, *options)
    assert result.returncode == 0, result.stderr
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in " ".join(result.stdout.split())
