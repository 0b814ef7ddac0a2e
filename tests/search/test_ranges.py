"""Ranges: the values they have, and what is wrong with them, told all at once with the line."""

from __future__ import annotations

import pytest

from tfprune.errors import InputError
from tfprune.recipe import load_recipe
from tfprune.recipe.ranges import put_values
from tfprune.recipe.search import Range, Search
from tfprune.search.recipes import trial_recipe

GOOD = """\
name: small
data: {size: [64, 64]}
architecture: {name: plain_unet, width: 8}
training: {epochs: 3}
pruning:
  epochs: 2
  final_sparsity: 0.5
search:
  oracle: random
  trials: 4
  ranges:
    architecture.width: {choice: [8, 12]}
    pruning.final_sparsity: {low: 0.5, high: 0.9}
"""


@pytest.fixture
def message(tmp_path):
    def read(old, new, *overrides):
        assert old in GOOD
        path = tmp_path / "r.yaml"
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(InputError) as caught:
            load_recipe(path, overrides)
        return str(caught.value)

    return read


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"choice": ["a", None, [1, 2]]}, ["a", None, [1, 2]]),
        ({"low": 2, "high": 6}, [2, 3, 4, 5, 6]),
        ({"low": 2, "high": 6, "steps": 3}, [2, 4, 6]),
        ({"low": 1, "high": 64, "steps": 7, "log": True}, [1, 2, 4, 8, 16, 32, 64]),
        ({"low": 1, "high": 4, "steps": 7, "log": True}, [1, 2, 3, 4]),
        ({"low": 0.0, "high": 1.0, "steps": 5}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"low": 0.0001, "high": 0.01, "steps": 3, "log": True}, [0.0001, 0.001, 0.01]),
    ],
)
def test_the_values_of_a_range(given, options):
    found = Range.model_validate(given).options
    assert found == options and [type(value) for value in found] == [type(value) for value in options]


def test_a_range_without_steps_is_fine_and_ends_exactly():
    options = Range(low=0.00012345, high=0.1, log=True).options
    assert len(options) > 900 and options == sorted(set(options))
    assert options[0] == 0.00012345 and options[-1] == 0.1
    assert all(len(f"{value:.4e}".split("e")[0].rstrip("0")) <= 5 for value in options[1:-1])


def test_values_go_to_their_paths_and_mappings_are_merged():
    content = {"a": {"x": 1, "y": {"z": 2}}, "b": None}
    assert put_values(content, {"a.y.z": 3, "b.c": 4, "a": {"x": None}}) == {
        "a": {"x": None, "y": {"z": 3}},
        "b": {"c": 4},
    }
    assert content == {"a": {"x": 1, "y": {"z": 2}}, "b": None}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "final_sparsity: {low",
            "final_sparsty: {low",
            "r.yaml:13: search.ranges.pruning.final_sparsty: pruning",
        ),
        ("0.9}", "1.5}", "pruning.final_sparsity is 1.5: input should be less than 1 (a fraction of zeros"),
        ("high: 0.9}", "high: 0.4}", "low is 0.5 and high is 0.4; low must be below high"),
        ("{low: 0.5, high", "{lowest: 0.5, high", "lowest: unknown key; did you mean 'low'? Accepted: choice, low"),
        ("{low: 0.5, high: 0.9}", "{low: 0.5}", "give either a choice, such as {choice: [8, 16]}, or both ends"),
        ("{low: 0.5, high: 0.9}", "{low: 0.0, high: 0.9, log: true}", "a range by factors (log) starts above 0"),
        ("oracle: random", "oracle: grid", "the grid oracle needs to know how many numbers to try; add steps"),
        ("  trials: 4\n", "", "the random oracle does not end by itself; give trials"),
        ("oracle: random", "oracle: randm", "unknown oracle 'randm'; did you mean 'random'"),
        ("oracle: random", "oracle: hyperband", "the oracle hyperband and a resource, such as fine_tuning.epochs, go"),
        ("oracle: random", "factor: 4", "factor belongs to the oracle hyperband, and this is random"),
        ("  trials: 4", "  trials: 4\n  costs: {flash_bytes: 0.0}", "unknown cost 'flash_bytes'"),
        ("  trials: 4", "  trials: 4\n  scheme: int16x8", "export.schemes has float32, int8; add it there"),
        ("  trials: 4", "  trials: 4\n  constraints: file_byte<=1k", "did you mean 'file_bytes'"),
        ("[8, 12]}", "[8, 12], when: {pruning.epochs: 2}}", "pruning.epochs is not a range above this one"),
        ("0.9}", "0.9, when: {architecture.width: 9}}", "when: architecture.width is never 9; its values are 8, 12"),
        ("architecture.width: {", "name: {", "name, about and search do not belong to that"),
        ("architecture.width: {", "loss.dice: {", "'loss' is not a section of the recipe"),
    ],
)
def test_what_is_wrong_with_a_search(message, old, new, said):
    assert said in message(old, new)


def test_all_wrong_names_are_told_at_once(message):
    ranges = "    pruning.criterion: {choice: [taylor, magnitud]}\n    pruning.schedul: {choice: [linear]}\n"
    text = message("    architecture.width: {choice: [8, 12]}\n", ranges)
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "search.ranges.pruning.criterion",
        "search.ranges.pruning.schedul",
    ]
    assert "did you mean 'magnitude'" in text and "did you mean 'schedule'" in text and "r.yaml:13: " in text


def test_a_condition_is_checked_where_it_holds(tmp_path):
    path = tmp_path / "r.yaml"
    ranges = "    channels: {choice: [null, {epochs: 2, ratio: 0.5}]}\n"
    ranges += "    channels.multiple_of: {choice: [1, 8], when: {channels: {epochs: 2, ratio: 0.5}}}\n"
    path.write_text(GOOD + ranges)
    assert load_recipe(path).search.ranges["channels.multiple_of"].options == [1, 8]


def test_ranges_within_a_section_that_another_range_gives(tmp_path):
    path = tmp_path / "r.yaml"
    rates = "    quantization.learning_rate: {low: 1e-5, high: 1e-3}\n"
    path.write_text(GOOD + "    quantization: {choice: [{epochs: 2}, {epochs: 4}]}\n" + rates)
    assert load_recipe(path).search.ranges["quantization.learning_rate"].low == 1e-5
    path.write_text(GOOD + "    quantization: {choice: [null, {epochs: 4}]}\n" + rates)
    with pytest.raises(InputError, match=r"quantization.learning_rate: quantization.epochs: missing"):
        load_recipe(path)


def test_a_search_is_what_its_text_says():
    chosen = Search(oracle="random", trials=3, ranges={"pruning.epochs": Range(choice=[1, 2])})
    assert Search.model_validate(chosen.model_dump()) == chosen


PAPER = """
name: paper_grid
data: {size: [320, 320], batch_size: 4}
architecture: {name: unet, encoder: resnet101}
loss: tversky
training: {epochs: 100, optimizer: sgd, optimizer_options: {momentum: 0.5}}
pruning: {epochs: 50, prunes: 5, final_sparsity: 0.9}
fine_tuning: {epochs: 100}
search:
  oracle: grid
  quality: micro_imagewise_iou
  ranges:
    architecture.name: {choice: [fpn, unet, unet_plus_plus, linknet, manet]}
    architecture.decoder_block_type: {choice: [transpose], when: {architecture.name: linknet}}
    pruning:
      choice:
      - {schedule: linear, criterion: taylor}
      - {schedule: polynomial, criterion: taylor}
      - {schedule: movement, criterion: movement}
    pruning.final_sparsity: {choice: [0.2, 0.5, 0.9]}
"""


def test_the_grid_of_a_paper_is_one_recipe(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text(PAPER)
    recipe = load_recipe(path)
    values = {"architecture.name": "linknet", "architecture.decoder_block_type": "transpose"}
    values |= {"pruning": {"schedule": "linear", "criterion": "taylor"}, "pruning.final_sparsity": 0.2}
    trial = trial_recipe(recipe, "trial_00", values)
    assert trial.architecture.options == {"encoder": "resnet101", "decoder_block_type": "transpose"}
    assert (trial.pruning.schedule, trial.pruning.final_sparsity, trial.pruning.prunes) == ("linear", 0.2, 5)
    assert trial.search is None and trial.name == "trial_00"
