"""The recipes at full scale: each net at its full size takes one step of training, on drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.data.pipeline import steps_per_epoch, training_batches
from tfprune.recipe import RECIPES_FOLDER, load_recipe
from tfprune.run.inputs import (
    build_dense,
    build_recipe_augmentation,
    build_recipe_loss,
    check_stages,
    load_inputs,
    stage_optimizer,
)

NO_DOWNLOAD = "architecture.encoder_weights=none"
FULL = {
    "s1_nea_full": (("steel", 2, 4), (NO_DOWNLOAD,), 45_957_323),
    "s2_cat_full": (("wells", 2, 128), (NO_DOWNLOAD,), 71_911_626),
    "s3_severstal_full": (("strips", 5, 8), (), 1_944_781),
    "s4_camvid_full": (("steel", 3, 8), (NO_DOWNLOAD, "data.merge_classes=null"), 17_868_123),
    "s4_drive_full": (("branches", 2, 4), (), 466_324),
    "s5_steel_full": (("steel", 2, 48), (), 123_178),
}
"""Recipe -> (generator, classes, train pictures) of what is drawn in place of its data, settings, parameters."""


def test_every_full_recipe_is_here():
    assert set(FULL) == {path.stem for path in RECIPES_FOLDER.glob("*_full.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_recipe_trains(name, tmp_path):
    (kind, classes, train), settings, parameters = FULL[name]
    counts = f"{{train: {train}, val: 2, test: 1}}"
    drawn = f"data.generate={{set: {kind}, classes: {classes}, counts: {counts}}}"
    recipe = load_recipe(RECIPES_FOLDER / f"{name}.yaml", [drawn, *settings])
    inputs = load_inputs(recipe, None, None, tmp_path)
    dense = build_dense(recipe, inputs, None)
    assert dense.count_params() == parameters
    plans = check_stages(recipe, inputs, dense)
    model = dense if plans.regularize is None else plans.regularize(dense, first=True)
    arrays = inputs.arrays["train"]
    optimizer = stage_optimizer(recipe.training, steps_per_epoch(len(arrays), recipe.data.batch_size))
    model.compile(optimizer, build_recipe_loss(recipe, inputs))
    augment = build_recipe_augmentation(recipe, inputs)
    batches = training_batches(arrays, batch_size=recipe.data.batch_size, epochs=1, seed=0, augment=augment)
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(batches, verbose=0).history
    assert np.isfinite(history["loss"][0])
    moved = [not np.array_equal(old, new) for old, new in zip(before, model.trainable_variables, strict=True)]
    assert np.mean(moved) > 0.9
