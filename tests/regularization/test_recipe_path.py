"""The regularizer from a recipe to the report, and what a recipe may say of it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.test_commands import tfprune
from tests.report.parsed_page import Page
from tfprune.architectures.files import load_model
from tfprune.errors import InputError
from tfprune.recipe import check_recipe, load_recipe, recipe_text
from tfprune.records import read_json
from tfprune.regularization import GRADIENT_READINGS, REGULARIZERS
from tfprune.run import run_recipe

SECTION = {
    "weights": {"orthogonality": {"strength": 5.0}, "gamma_l1": {"strength": 1e-4}},
    "gradients": {"threshold": {"sparsity": 0.5}},
    "ramp_epochs": 1,
    "min_weights": 500,
}


def with_section(tiny_recipe, **changes):
    del tiny_recipe["channels"], tiny_recipe["quantization"], tiny_recipe["verification"]["target"]
    tiny_recipe["data"]["generate"] = {"set": "branches", "classes": 2, "counts": {"train": 24, "val": 4, "test": 4}}
    tiny_recipe["export"] = {"schemes": ["float32"]}
    return {**tiny_recipe, "regularization": {**SECTION, **changes}}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    from tests.conftest import TINY

    recipe = with_section(yaml.safe_load(yaml.safe_dump(TINY)))
    return run_recipe(check_recipe(recipe), out=tmp_path_factory.mktemp("runs"))


def column(folder, stage, name):
    rows = csv.DictReader((folder / "stages" / stage / "history.csv").read_text().splitlines())
    return [float(row[name]) for row in rows]


def test_all_stages_are_regularized_and_the_files_are_plain(run_folder):
    r = [value for stage in ("train", "prune", "fine_tune") for value in column(run_folder, stage, "orthogonality")]
    assert len(r) == 6 and r[3] < r[0]
    # A net this small has kernels whose gradient is zero in places anyway.
    assert column(run_folder, "train", "h_share")[1] == pytest.approx(0.5, abs=0.05)
    assert column(run_folder, "fine_tune", "h_share")[0] == pytest.approx(0.25, abs=0.05)  # of which half are masked
    assert column(run_folder, "prune", "gamma_l1")[0] > 0
    for name in ("dense", "pruned"):
        model = load_model(run_folder / "models" / f"{name}.keras")
        assert not hasattr(model, "composite") and not model.losses


def test_the_record_and_the_report_tell_strengths_layers_and_curves(run_folder):
    record = read_json(run_folder / "records" / "regularization.json")
    assert record["weights"] == SECTION["weights"] and record["gradients"] == SECTION["gradients"]
    assert record["layers"] and {"layer", "weights", "reason"} == set(record["left_alone"][0])
    page = Page((run_folder / "report.html").read_text(encoding="utf-8"))
    assert page.row("orthogonality") == ["strength 5.0"] and page.row("gradients: threshold") == ["sparsity 0.5"]
    assert page.row("ramp") == ["strengths rise from 0 over 1 epochs"]
    assert page.row("left alone, output head stays dense") == ["logits"]
    curves = [alt for alt, _ in page.pictures if alt.endswith("by epoch in each stage")]
    assert len(curves) == 3 and curves[0].startswith("R, distance") and curves[2].startswith("H / size")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weights": {"ortogonality": {"strength": 1.0}}}, "unknown regularizer 'ortogonality'; did you mean"),
        ({"gradients": {"treshold": {}}}, "unknown reading of the gradients 'treshold'; did you mean 'threshold'"),
        ({"weights": {"l2": {"strength": "big"}}}, 'regularization.weights.l2.strength is "big"'),
        ({"weight": {}}, "regularization.weight: unknown key; did you mean 'weights'"),
        ({"weights": {}, "gradients": None}, "it does nothing: give weights"),
        ({"ramp_epochs": 3}, "ramp_epochs is 3, and the first stage has 2 epochs"),
    ],
)
def test_a_recipe_is_told_what_is_wrong(tiny_recipe, changes, text):
    with pytest.raises(InputError) as caught:
        check_recipe(with_section(tiny_recipe, **changes))
    assert text in str(caught.value)


def test_a_recipe_without_training_has_nothing_to_regularize(tiny_recipe):
    content = {"name": "x", "data": {"size": [32, 32]}, "channels": tiny_recipe["channels"], "regularization": SECTION}
    with pytest.raises(InputError, match="this recipe has none of them"):
        check_recipe(content)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weights": {"l2": {}}}, "regularization: regularizer l2: strength must be given"),
        ({"weights": {"l2": {"strenght": 1.0}}}, "regularization: unknown parameter .*did you mean 'strength'"),
        ({"gradients": {"threshold": {"sparsity": 2.0}}}, "regularization: threshold: sparsity is 2.0"),
        ({"include": ["^nowhere"]}, "regularization: include: '\\^nowhere' fits no layer"),
    ],
)
def test_what_cannot_be_attached_is_said_before_anything_is_written(tmp_path, tiny_recipe, changes, text):
    with pytest.raises(InputError, match=text):
        run_recipe(check_recipe(with_section(tiny_recipe, **changes)), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_section_resolves_to_itself(tmp_path, tiny_recipe):
    recipe = check_recipe(with_section(tiny_recipe))
    (tmp_path / "again.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_the_readme_shows_a_section_that_is_accepted(tiny_recipe):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"```yaml\n(regularization:.*?)```", text, re.S)
    tiny_recipe["training"]["epochs"] = 5
    recipe = check_recipe({**tiny_recipe, **yaml.safe_load(section)})
    assert recipe.regularization.weights and recipe.regularization.gradients


@pytest.mark.parametrize(("kind", "names"), [("regularizers", REGULARIZERS), ("gradient-readings", GRADIENT_READINGS)])
def test_the_command_line_lists_them(kind, names):
    assert tfprune("list", kind).stdout.split() == list(names)
