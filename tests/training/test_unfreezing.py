"""Progressive unfreezing: which layers train when, and that a run does it in stages."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.recipe import check_recipe
from tfprune.run import run_recipe
from tfprune.training.unfreezing import encoder_groups, only_open


def test_the_deepest_group_joins_first_and_the_decoder_always_trains():
    model = tiny_net()
    groups = encoder_groups(model, 2)
    assert [[layer.name for layer in group] for group in groups] == [
        ["middle_conv", "middle_norm"],
        ["down_conv", "down_norm"],
    ]
    for opened, frozen in ((0, {"down", "middle"}), (1, {"down"}), (2, set())):
        with only_open(groups, opened):
            training = {weight.name.split("_")[0] for weight in model.trainable_weights}
            assert not training & frozen and {"last", "logits/kernel:0"} & training
    assert all(layer.trainable for layer in model.layers)


def test_frozen_layers_and_their_norms_keep_their_values():
    model = tiny_net()
    groups = encoder_groups(model, 2)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    with only_open(groups, 1):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(images, rng.integers(0, 2, (8, 32, 32)), epochs=1, verbose=0)
    moved = {
        name
        for name, weights in before.items()
        if any(not np.array_equal(a, b) for a, b in zip(weights, model.get_layer(name).get_weights(), strict=True))
    }
    assert moved == {"middle_conv", "middle_norm", "last_conv", "last_norm", "logits"}


def test_a_net_without_a_decoder_is_refused():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(keras.layers.Conv2D(4, 3, padding="same")(image)))
    with pytest.raises(InputError, match="needs an encoder of at least 1 layers with weights and a decoder behind it"):
        encoder_groups(model, 1)


def test_a_recipe_unfreezes_in_stages(tiny_recipe, tmp_path):
    kept = ("name", "data", "architecture", "loss")
    tiny_recipe = {section: tiny_recipe[section] for section in kept}
    tiny_recipe["export"] = {"schemes": ["float32"]}
    tiny_recipe["data"]["copies"] = ["horizontal", "roll"]
    tiny_recipe["data"]["drop_empty"] = True
    tiny_recipe["verification"] = {"latency_runs": 3, "min_pixels": 4}
    tiny_recipe["training"] = {"epochs": 3, "unfreeze_every_epochs": 1, "unfreeze_groups": 2}
    folder = run_recipe(check_recipe(tiny_recipe), out=tmp_path)
    assert {path.name for path in (folder / "stages").iterdir()} == {"frozen_0", "frozen_1", "train"}
    assert (folder / "report.html").exists()
    with pytest.raises(InputError, match="wholly trained after 3 groups of 1 epochs, and there are 3"):
        check_recipe({**tiny_recipe, "training": {"epochs": 3, "unfreeze_every_epochs": 1, "unfreeze_groups": 3}})
