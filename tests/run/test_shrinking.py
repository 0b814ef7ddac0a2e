"""The channel stage: rounds, from scratch, the teacher, controls, and going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tfprune.channels import Plan, Selection, measure_cost
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import sparsity_by_step
from tfprune.recipe import check_recipe
from tfprune.run import train_stage
from tfprune.run.inputs import build_dense, check_stages, load_inputs
from tfprune.run.shrinking import Shrinker, total_epochs
from tfprune.run.stages import train_longer
from tfprune.training.stage import set_determinism


class StopError(Exception):
    """A power cut."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A recipe without its stages, its inputs and its net."""
    content = {
        "name": "tiny",
        "data": {
            "generate": {"set": "steel", "classes": 2, "counts": {"train": 16, "val": 8, "test": 8}},
            "size": [32, 32],
        },
        "architecture": {"name": "plain_unet", "width": 8, "depth": 2},
        "loss": [{"cross_entropy": {}}, {"dice": {}}],
        "training": {"epochs": 2},
    }
    recipe = check_recipe(content)
    return content, load_inputs(recipe, None, None, tmp_path_factory.mktemp("set"))


def shrinker_for(prepared, folder, *, progress=None, controls=(), **channels):
    content, inputs = prepared
    content = {**content, "channels": {"multiple_of": 1, **channels}, "controls": list(controls)}
    recipe = check_recipe(content)
    set_determinism(0)
    dense = build_dense(recipe, inputs, None)
    remove = check_stages(recipe, inputs, dense).remove
    run_stage = partial(train_stage, recipe, inputs=inputs, folder=folder, progress=progress)
    return Shrinker(recipe, inputs, dense, remove, run_stage, folder)


def test_rounds_end_within_the_budget_and_go_on_after_a_stop(prepared, tmp_path):
    settings = {"rounds": 2, "epochs": 4, "budget": "macs<=0.3x, activation_bytes<=0.8x"}
    whole = shrinker_for(prepared, tmp_path / "whole", **settings)
    model, stages = whole.shrink(whole.dense)
    assert [(stage.name, stage.epochs) for stage in stages] == [("channels_1", 2), ("channels_2", 2)]
    dense, first, last = (
        measure_cost(whole.dense),
        *(Plan.load(tmp_path / "whole" / "records" / f"channels_{number}.json") for number in (1, 2)),
    )
    assert 0.45 * dense.macs < first.macs_after == last.macs <= 0.56 * dense.macs
    assert measure_cost(model).macs == last.macs_after <= 0.3 * dense.macs
    assert measure_cost(model).peak_activation_bytes_int8 <= 0.8 * dense.peak_activation_bytes_int8

    def stop(stage, epochs, rows):
        if stage == "channels_2" and len(rows) == 1:
            raise StopError

    cut = shrinker_for(prepared, tmp_path / "cut", progress=stop, **settings)
    with pytest.raises(StopError):
        cut.shrink(cut.dense)
    resumed = shrinker_for(prepared, tmp_path / "cut", **settings)
    again, _ = resumed.shrink(resumed.dense)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_round_halves_the_work_where_the_recipe_names_none(prepared, tmp_path):
    def epochs_of_rounds(epochs, budget):
        settings = {"epochs": epochs, "budget": budget, "criterion": "magnitude"}
        shrinker = shrinker_for(prepared, tmp_path / budget, **settings)
        object.__setattr__(shrinker, "run_stage", lambda name, section, model: (name, section.epochs))
        return shrinker.shrink(shrinker.dense)[1]

    assert epochs_of_rounds(9, "macs<=0.55x") == [("channels", 9)]
    assert epochs_of_rounds(9, "macs<=0.25x") == [("channels_1", 4), ("channels_2", 5)]
    assert epochs_of_rounds(12, "macs<=0.12x") == [("channels_1", 3), ("channels_2", 3), ("channels_3", 6)]
    assert epochs_of_rounds(6, "macs<=0.12x") == [("channels_1", 2), ("channels_2", 2), ("channels_3", 2)]
    assert epochs_of_rounds(3, "macs<=0.12x") == [("channels", 3)]


def test_a_start_over_follows_the_recorded_plan_and_makes_no_other(prepared, tmp_path):
    shrinker = shrinker_for(prepared, tmp_path, way="one_shot", epochs=2, ratio=0.5, criterion="magnitude")
    first = replace(shrinker, run_stage=lambda name, section, model: name)
    net, _ = first.shrink(shrinker.dense)
    # A clock that measures something else at the second start would plan something else.
    second = replace(first, remove=partial(shrinker.remove, selection=Selection(0.25)))
    again, _ = second.shrink(shrinker.dense)
    for ours, theirs in zip(again.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match=r"records/channels.json: the plan was made for .*another architecture"):
        second.shrink(net)


def test_controls_cost_as_much_and_are_trained_as_long(prepared, tmp_path):
    names = ["random", "width_scaled", "one_shot"]
    settings = {"rounds": 2, "epochs": 4, "ratio": 0.5, "distillation": None}
    shrinker = shrinker_for(prepared, tmp_path, controls=names, **settings)
    shrunk, stages = shrinker.shrink(shrinker.dense)
    controls = shrinker.controls(shrinker.dense, shrunk)
    macs = measure_cost(shrunk).macs
    assert list(controls) == names
    for name, (net, stage) in controls.items():
        assert 0.8 * macs < measure_cost(net).macs <= (1.1 * macs if name == "one_shot" else macs)
        assert stage.name == name and (tmp_path / "records" / f"control_{name}.json").is_file()
    assert sum(stage.epochs for stage in stages) == controls["random"][1].epochs == controls["one_shot"][1].epochs == 4
    assert controls["width_scaled"][1].epochs == total_epochs(shrinker.recipe) == 6


def test_the_dense_net_is_trained_on_for_all_later_epochs_as_the_last_stage_says(prepared):
    content, inputs = prepared
    later = {"pruning": {"epochs": 2, "final_sparsity": 0.5}, "fine_tuning": {"epochs": 3, "learning_rate": 0.01}}
    recipe = check_recipe({**content, **later, "controls": ["dense_longer"]})
    dense = build_dense(recipe, inputs, None)
    net, (name, section, trained) = train_longer(recipe, dense, lambda *stage: stage)
    assert (name, section.epochs, section.learning_rate) == ("dense_longer", 5, 0.01)
    assert trained is net is not dense
    for ours, theirs in zip(net.weights, dense.weights, strict=True):
        assert ours is not theirs
        np.testing.assert_array_equal(ours, theirs)


def test_a_net_without_maps_to_follow_is_refused_before_training(prepared):
    content, inputs = prepared
    channels = {"epochs": 2, "ratio": 0.5, "multiple_of": 1, "distillation": {"features": 1}}
    recipe = check_recipe({**content, "channels": channels})
    dense = build_dense(recipe, inputs, None)
    image = keras.Input(dense.input_shape[1:])
    nested = keras.Model(image, dense(image))
    with pytest.raises(InputError, match="the two nets share none"):
        check_stages(recipe, inputs, nested)


def test_random_channels_are_drawn_by_the_seed_of_the_recipe(prepared, tmp_path):
    settings = {"epochs": 2, "ratio": 0.5, "criterion": "magnitude", "distillation": None}
    shrinker = shrinker_for(prepared, tmp_path, controls=["random"], **settings)
    shrunk, plans = shrinker.remove(shrinker.dense).model, []
    for seed in (0, 1):
        folder, recipe = tmp_path / str(seed), shrinker.recipe.model_copy(update={"seed": seed})
        drawn = replace(shrinker, recipe=recipe, folder=folder, run_stage=lambda name, section, model: name)
        drawn.controls(shrinker.dense, shrunk)
        plans.append(Plan.load(folder / "records" / "control_random.json").remove)
    assert plans[0] != plans[1]


def test_from_scratch_keeps_the_shape_and_no_weights(prepared, tmp_path):
    shrinker = shrinker_for(prepared, tmp_path, way="from_scratch", epochs=1, ratio=0.5)
    model, (stage,) = shrinker.shrink(shrinker.dense)
    assert stage.epochs == 3
    removal = shrinker.remove(shrinker.dense)
    assert [w.shape for w in model.get_weights()] == [w.shape for w in removal.model.get_weights()]
    kernels = model.get_layer("encoder0a_conv").kernel, removal.model.get_layer("encoder0a_conv").kernel
    assert not np.allclose(*(kernel.numpy() for kernel in kernels))


def test_masks_close_to_the_shape_of_the_plan_and_removing_them_changes_nothing(prepared, tmp_path):
    shrinker = shrinker_for(prepared, tmp_path, way="gradual", epochs=4, budget="macs<=0.4x", criterion="magnitude")
    target = shrinker.remove(shrinker.dense).plan
    model, stages = shrinker.shrink(shrinker.dense)
    assert [(stage.name, stage.epochs) for stage in stages] == [("channels_masked", 2), ("channels", 2)]
    followed = Plan.load(tmp_path / "records" / "channels_masked.json")
    assert [row.channels_after for row in followed.layers] == [row.channels_after for row in target.layers]
    assert measure_cost(model).macs == target.macs_after <= 0.4 * target.macs


def test_another_criterion_and_schedule_may_close_the_masks(prepared, tmp_path, monkeypatch):
    made = []

    def record(model, schedule, **settings):
        made.append((schedule, settings["criterion"]))
        return MaskController(model, schedule, **settings)

    monkeypatch.setattr("tfprune.pruning.channels.MaskController", record)
    settings = {"way": "gradual", "epochs": 4, "ramp_epochs": 3, "ratio": 0.5, "distillation": None}
    settings |= {"schedule": "movement", "masked_by": "movement"}
    shrinker = shrinker_for(prepared, tmp_path, **settings)
    target = shrinker.remove(shrinker.dense).plan
    _, (masked, recovered) = shrinker.shrink(shrinker.dense)
    _, (schedule, criterion) = made  # the first proves before training that masks can be made
    assert criterion == "movement" and min(sparsity_by_step(schedule)) > 0.4 * 6  # it waits for 40 % of the steps
    followed = Plan.load(tmp_path / "records" / "channels_masked.json")
    assert [row.channels_after for row in followed.layers] == [row.channels_after for row in target.layers]
    assert (masked.epochs, recovered.epochs) == (3, 1)
    rates = [row["learning_rate"] for row in masked.history]
    assert rates == pytest.approx([0.002] * 3) and recovered.history[-1]["learning_rate"] < 0.0015


def test_what_cannot_be_masked_is_said_before_training(prepared, tmp_path):
    content, inputs = prepared
    prepared = {**content, "architecture": {**content["architecture"], "upsampling": "transpose"}}, inputs
    norms = {"criterion": "norm_scale", "epochs": 2, "ratio": 0.5}
    assert shrinker_for(prepared, tmp_path, **norms)  # removal judges layers without a norm by their kernels
    with pytest.raises(InputError, match="channels: criterion 'NormScale' needs a batch norm with a scale"):
        shrinker_for(prepared, tmp_path, way="gradual", **norms)


def test_what_belongs_to_the_way_gradual_is_refused_elsewhere(prepared):
    content, _ = prepared
    with pytest.raises(InputError, match="masked_by belong to the way gradual, and this is iterative"):
        check_recipe({**content, "channels": {"epochs": 2, "ratio": 0.5, "masked_by": "movement"}})


def test_a_narrower_net_has_a_share_of_every_layers_channels(prepared):
    content, inputs = prepared
    nets = []
    for seed in (0, 0, 1):
        recipe = check_recipe(
            {**content, "seed": seed, "architecture": {**content["architecture"], "width_ratio": 0.5}}
        )
        nets.append(build_dense(recipe, inputs, None))
    whole = build_dense(check_recipe(content), inputs, None)
    for ours, theirs in zip(nets[0].layers, whole.layers, strict=True):
        assert ours.name == theirs.name
        if hasattr(ours, "filters"):
            assert ours.filters == (theirs.filters if ours.name == "logits" else theirs.filters // 2)
    kernels = [net.get_layer("encoder1a_conv").kernel.numpy() for net in nets]
    assert np.array_equal(kernels[0], kernels[1]) and not np.allclose(kernels[0], kernels[2])
    with pytest.raises(InputError, match="width_ratio draws all weights anew, and encoder_weights is imagenet"):
        architecture = {"name": "unet", "encoder_weights": "imagenet", "width_ratio": 0.5}
        check_recipe({**content, "architecture": architecture})
