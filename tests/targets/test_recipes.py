"""The recipes that end on a target: lint finds nothing in their nets, exported as they say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import class_names
from tfprune.architectures import build_model
from tfprune.channels import Selection, remove_channels
from tfprune.export.conversion import export_tflite
from tfprune.recipe import RECIPES_FOLDER, load_recipe
from tfprune.targets import find_target
from tfprune.targets.advice import masked
from tfprune.targets.lint import lint_file

TARGETED = {recipe.name: recipe for recipe in map(load_recipe, sorted(RECIPES_FOLDER.glob("*.yaml")))}
TARGETED = {name: recipe for name, recipe in TARGETED.items() if recipe.verification.target}


def test_there_is_a_recipe_for_each_kind_of_device():
    targets = {recipe.verification.target for recipe in TARGETED.values()}
    assert targets == {"android-cpu", "android-sparse", "coral", "ethos-u55", "tflm"}


@pytest.mark.parametrize("name", TARGETED)
def test_lint_finds_nothing_in_the_model_of_a_recipe(name, tmp_path):
    recipe = TARGETED[name]
    size = tuple(recipe.data.size)
    name, options = "plain_unet", {"width": 8, "depth": 4}
    if recipe.architecture:
        name, options = recipe.architecture.name, recipe.architecture.options
    net = build_model(name, input_size=size, outputs=2, seed=0, **options)
    if recipe.pruning:
        net = masked(net, recipe.pruning.final_sparsity)
    if recipe.channels and recipe.channels.ratio:
        net = remove_channels(net, Selection(ratio=recipe.channels.ratio, multiple_of=8), check=False).model
    pictures = np.random.default_rng(0).integers(0, 256, (8, *size, 3), np.uint8)
    path = export_tflite(
        net,
        tmp_path / "net.tflite",
        scheme=find_target(recipe.verification.target).scheme,
        head=recipe.export.head,
        resize_v2=recipe.export.resize_v2,
        class_names=class_names(2),
        calibration=pictures,
    )
    assert not lint_file(path, recipe.verification.target).findings
