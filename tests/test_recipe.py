"""Recipes: what is wrong is said in one line with its place and what is accepted."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tfprune.errors import InputError
from tfprune.recipe import (
    RECIPES_FOLDER,
    find_recipe,
    load_recipe,
    recipe_difference,
    recipe_schema,
    recipe_text,
)

GOOD = """\
name: small
data:
  size: [64, 64]
architecture: {name: plain_unet, width: 8}
training:
  epochs: 3
pruning:
  epochs: 2
  final_sparsity: 0.5
"""


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return path

    return write


def message(path, *overrides):
    with pytest.raises(InputError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_a_recipe_resolves_to_text_that_resolves_to_itself(recipe_file):
    recipe = load_recipe(recipe_file(GOOD))
    assert recipe.pruning.schedule == "polynomial" and recipe.architecture.options == {"width": 8}
    again = load_recipe(recipe_file(recipe_text(recipe)))
    assert again == recipe


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "epochs: 3",
            "epoch: 3",
            "r.yaml:6: training.epoch: unknown key; did you mean 'epochs'? Accepted: epochs, opt",
        ),
        ("epochs: 3", "epochs: many", 'r.yaml:6: training.epochs is "many": input should be a valid integer'),
        ("epochs: 3", "epochs: 0", "r.yaml:6: training.epochs is 0: input should be greater than or equal to 1"),
        ("sparsity: 0.5", "sparsity: 90", "is 90: input should be less than 1 (a fraction of zeros: .9 means 90 %)"),
        ("plain_unet", "plan_unet", "unknown architecture 'plan_unet'; did you mean 'plain_unet'? Accepted: "),
        ("[64, 64]", "[64]", "r.yaml:3: data.size is [64]: list should have at least 2 items"),
        ("  size: [64, 64]", "  batch_size: 4", "r.yaml:2: data.size: missing"),
        ("  epochs: 2", "  epochs: 2\n  begin_epoch: 2", "cannot reach final_sparsity 0.5: it ramps from epoch 2 to"),
        (
            "  epochs: 2",
            "  epochs: 2\n  schedule: polynomal",
            "unknown schedule 'polynomal'; did you mean 'polynomial'",
        ),
        ("name: small", "name: a/b", 'name is "a/b"'),
        ("name: small", "name: ..", 'name is ".."'),
        ("name: small", "name: größe", 'name is "größe": names the run\'s folder: letters A-Z and a-z, digits'),
        ("name: small", "name: small\nseed: -1", "seed is -1: input should be greater than or equal to 0"),
        (
            "  size: [64, 64]",
            "  size: [64, 64]\n  load_size: [96, 32]",
            "load_size [96, 32] cannot hold a crop of size",
        ),
        ("training:", "name: twice\ntraining:", "'name' is given twice"),
        ("pruning:", "fine_tuning:\n  epochs: 1\nprunin:", "prunin: unknown key; did you mean 'pruning'?"),
        ("training:", "training: [", "not valid YAML"),
        ("architecture: {name: plain_unet, width: 8}\n", "", "there is training and no architecture; give both"),
        ("  epochs: 2", "  epochs: 2\n  granularity: filters", "unknown granularity 'filters'; did you mean 'filter'"),
    ],
)
def test_one_readable_message_with_the_place(recipe_file, old, new, expected):
    assert old in GOOD
    text = message(recipe_file(GOOD.replace(old, new)))
    assert expected in text and "pydantic" not in text and "http" not in text


def test_fine_tuning_without_pruning_is_refused(recipe_file):
    text = GOOD[: GOOD.index("pruning:")] + "fine_tuning: {epochs: 1}\n"
    assert "fine_tuning follows pruning" in message(recipe_file(text))


def test_channels_take_a_ratio_or_a_budget(recipe_file):
    path = recipe_file(GOOD)
    budget = 'channels.budget="file_bytes<=200KiB, macs<=0.5x"'
    assert load_recipe(path, ["channels.epochs=9", budget]).channels.ratio is None
    assert "give either a ratio, such as 0.5, or a budget" in message(path, "channels.epochs=9")
    assert "give either a ratio" in message(path, "channels.epochs=9", "channels.ratio=0.5", budget)
    text = message(path, "channels.epochs=9", 'channels.budget="mac<=1M"')
    assert "channels.budget" in text and "unknown quantity 'mac'; did you mean 'macs'" in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["channels.way=one_shot", "channels.rounds=3"], "rounds belong to the way iterative, and this is one_shot"),
        (["channels.rounds=3", "channels.epochs=5"], "3 rounds need at least two epochs"),
        (["channels.way=one_shoot"], "unknown way 'one_shoot'; did you mean 'one_shot'? Accepted: one_shot, iter"),
        (["channels.way=gradual", "channels.epochs=1"], "the way gradual needs at least 2 epochs"),
        (["channels.way=one_shot", "controls=[one_shot]"], "one_shot is what channels.way says already"),
        (["controls=[wide]"], "unknown control 'wide'"),
        (["channels=null", "controls=[random]"], "this recipe has no channels section"),
        (["channels=null", "pruning=null", "controls=[dense_longer]"], "this recipe prunes nothing"),
        (["channels.distillation.temperature=0"], "channels.distillation.temperature is 0"),
        (
            ["channels.way=from_scratch", "channels.distillation.strength=2"],
            "a net trained from_scratch follows no other",
        ),
        (["channels.scope=layer", "channels.per_cost=macs"], "per_cost weighs layers against each other"),
    ],
)
def test_ways_and_controls_that_do_not_fit(recipe_file, overrides, said):
    path = recipe_file(GOOD + "channels: {epochs: 12, ratio: 0.5}\n")
    assert said in message(path, *overrides)


def test_options_that_would_change_nothing_are_refused_and_defaults_are_silent(recipe_file):
    path = recipe_file(GOOD + "channels: {epochs: 12, ratio: 0.5, way: from_scratch}\n")
    assert load_recipe(recipe_file(recipe_text(load_recipe(path)))) == load_recipe(path)
    taught = ["channels.distillation.strength=2", "controls=[random]"]
    assert load_recipe(path, taught).channels.distillation.strength == 2
    assert load_recipe(path, ["channels=null", "controls=[dense_longer]"]).controls == ["dense_longer"]
    cost = ["channels.scope=layer", "channels.per_cost=macs", "channels.ratio=null"]
    assert load_recipe(path, [*cost, "channels.budget=activation_bytes<=0.5x"]).channels.per_cost == "macs"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["plateau_epochs=2"], "plateau_epochs belongs to learning_rate_schedule on_plateau, and this is cosine"),
        (["half_cycle_steps=9"], "half_cycle_steps belongs to learning_rate_schedule triangular or triangular2, and"),
        (
            ["low_learning_rate=1e-4", "learning_rate_schedule=constant"],
            "cosine or triangular or triangular2, and",
        ),
        (["low_learning_rate=1e-2"], "low_learning_rate is 0.01, above learning_rate 0.001; give at most that"),
    ],
)
def test_what_a_learning_rate_does_not_use_is_refused(recipe_file, overrides, said):
    path = recipe_file(GOOD)
    for stage in ("training", "pruning"):
        assert said in message(path, *(f"{stage}.{setting}" for setting in overrides))


def test_all_wrong_names_are_told_at_once_each_with_what_gave_it(recipe_file):
    settings = ["pruning.scope=globl", "export.schemes=[int8, int9]", "data.generate.set=stel"]
    text = message(recipe_file(GOOD), *settings)
    assert {line.split(": ")[0] for line in text.splitlines()} == {f"--set {setting}" for setting in settings}
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "data.generate.set",
        "pruning.scope",
        "export.schemes.1",
    ]
    assert all("unknown" in line and "Accepted: " in line for line in text.splitlines())


def test_overrides_fill_a_section_that_is_null(recipe_file):
    resolved = recipe_text(load_recipe(recipe_file(GOOD)))
    assert "\nquantization: null\n" in resolved
    assert load_recipe(recipe_file(resolved), ["quantization.epochs=4"]).quantization.epochs == 4


def test_overrides_are_checked_like_the_file(recipe_file):
    path = recipe_file(GOOD)
    assert load_recipe(path, ["training.epochs=7", "data.augment=[HorizontalFlip]"]).training.epochs == 7
    assert "write it as section.key=value" in message(path, "training.epochs")
    assert "unknown key; did you mean 'epochs'" in message(path, "training.epocs=7")
    assert "'name' is not a section" in message(path, "name.x=7")


def test_numbers_and_losses_are_read_as_people_write_them(recipe_file):
    recipe = load_recipe(
        recipe_file(GOOD.replace("  epochs: 3", "  epochs: 3\n  learning_rate: 1e-3") + "loss: [dice, focal]\n"),
        ["pruning.learning_rate=5E-4"],
    )
    assert (recipe.training.learning_rate, recipe.pruning.learning_rate) == (0.001, 0.0005)
    assert recipe.loss == ["dice", "focal"]


def test_a_picture_is_no_recipe(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert message(tmp_path / "a.png").endswith("a.png is not a text file; give a YAML file")


def test_recipes_are_found_by_path_and_by_name(tmp_path):
    assert find_recipe("demo") == RECIPES_FOLDER / "demo.yaml"
    with pytest.raises(InputError, match="did you mean 'demo'"):
        find_recipe("dmo")
    with pytest.raises(InputError, match="does not exist"):
        find_recipe(tmp_path / "none.yaml")


def test_every_shipped_recipe_is_valid_and_says_what_it_is():
    for path in RECIPES_FOLDER.glob("*.yaml"):
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        assert recipe.about.purpose and recipe.about.cost and recipe.about.command and recipe.about.source


@pytest.mark.parametrize("path", sorted(RECIPES_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_the_header_of_a_recipe_says_can_be_set(path):
    comments = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    for quoted, bare in re.findall(r'--set (?:"([^"]+)"|(\S+))', " ".join(comments)):
        setting = quoted or bare.rstrip(".,;")
        changed, given = load_recipe(path, [setting]), load_recipe(path)
        assert changed != given, setting


def test_only_words_may_differ(recipe_file):
    old = recipe_text(load_recipe(recipe_file(GOOD)))
    new = recipe_text(load_recipe(recipe_file(GOOD + "about: {purpose: other words}\n")))
    assert recipe_difference(old, new) == ""
    other = recipe_text(load_recipe(recipe_file(GOOD), ["training.epochs=4"]))
    assert recipe_difference(old, other) == "-  epochs: 3\n+  epochs: 4"


def test_a_search_may_get_more_trials_and_not_fewer(recipe_file):
    search = "search: {{trials: {}, ranges: {{training.epochs: {{low: 2, high: 9}}}}}}\n"
    few, many = (recipe_text(load_recipe(recipe_file(GOOD + search.format(trials)))) for trials in (4, 7))
    assert recipe_difference(few, many) == ""
    assert recipe_difference(many, few) == "-  trials: 7\n+  trials: 4"


def test_a_run_goes_on_when_a_later_version_knows_more_fields(recipe_file):
    text = recipe_text(load_recipe(recipe_file(GOOD)))
    assert "  split_file: null\n" in text
    assert recipe_difference(text.replace("  split_file: null\n", ""), text) == ""


def test_the_schema_names_every_section():
    schema = json.loads(recipe_schema())
    assert set(yaml.safe_load(GOOD)) <= set(schema["properties"])


def test_quantization_needs_a_format_that_it_trains_for(recipe_file):
    text = GOOD + "quantization: {epochs: 1}\nexport: {schemes: [float32, int16x8]}\n"
    assert "quantization trains for int8 and int8_float_io, and export.schemes is ['float32', 'int16x8']" in message(
        recipe_file(text)
    )
