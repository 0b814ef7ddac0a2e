"""Plans: ratios, guards, multiples, files, and who refuses them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES, conv, finish, image, randomize
from tests.tiny import tiny_net
from tfprune.channels import Plan, Selection, apply_plan, measure_cost, plan_channels, remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras, tf

layers = keras.layers


def widths(plan):
    return {layer.layer: layer.channels_after for layer in plan.layers}


def stack(*numbers, seed=0, size=(16, 16)):
    keras.utils.set_random_seed(seed)
    inputs = layers.Input((*size, 3))
    x = inputs
    for index, width in enumerate(numbers):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"c{index}")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(x), name="stack")


def test_ratio_per_layer_and_what_it_costs():
    model = stack(8, 16, 10)
    plan = plan_channels(model, 0.5)
    assert widths(plan) == {"c0": 4, "c1": 8, "c2": 5, "logits": 2}
    smaller = apply_plan(model, plan).model
    assert plan.macs == measure_cost(model).macs
    assert plan.macs_after == measure_cost(smaller).macs
    assert "c1      16 -> 8" in str(plan)
    assert "'logits': model output" in str(plan)


def test_a_model_for_pictures_of_any_size_is_counted_for_the_size_asked():
    model = stack(8, 16, 10, size=(None, None))
    known, unknown = plan_channels(model, 0.5, input_size=(16, 16)), plan_channels(model, 0.5)
    assert known.layers == plan_channels(stack(8, 16, 10), 0.5).layers
    assert unknown.remove == known.remove and unknown.macs == 0
    assert "MACs not counted: it takes pictures of any size" in str(unknown) and "0 -> 0" not in str(unknown)


def test_the_smallest_go_first():
    model = stack(8, 8)
    kernel, bias = model.get_layer("c0").get_weights()
    kernel[..., [1, 4, 6, 7]] *= 1e-3
    model.get_layer("c0").set_weights([kernel, bias])
    assert plan_channels(model).remove["c0"] == (1, 4, 6, 7)


@pytest.mark.parametrize(
    ("width", "ratio", "kept"), [(24, 0.5, 16), (32, 0.5, 16), (16, 0.5, 8), (10, 0.5, 8), (64, 0.9, 8), (6, 0.5, 6)]
)
def test_multiples_of_eight(width, ratio, kept):
    assert widths(plan_channels(stack(width, 64), Selection(ratio=ratio, multiple_of=8)))["c0"] == kept


def test_multiples_hold_at_a_concat():
    inputs = image()
    branches = [conv(inputs, width) for width in (24, 48, 16)]
    model = finish(inputs, conv(layers.Concatenate()(branches), 40), name="joined")
    smaller = remove_channels(model, Selection(ratio=0.5, multiple_of=8)).model
    read = [layer.kernel.shape for layer in smaller.layers if isinstance(layer, layers.Conv2D)]
    assert [shape[3] for shape in read[:3]] == [16, 24, 8]
    assert read[3][2:] == (48, 24)


def test_multiples_hold_where_a_slice_keeps_a_channel():
    model = stack(16, 8)
    low, high = tf.split(model.get_layer("c0").output, [4, 12], axis=-1)
    read = [layers.Conv2D(8, 1, name=name)(side) for name, side in (("low", low), ("high", high))]
    model = keras.Model(model.input, layers.Conv2D(2, 1, name="logits")(layers.Add()(read)))
    for weight in (model.get_layer("c0").kernel, model.get_layer("low").kernel):
        weight.assign(weight * np.where(np.arange(16) < 4, 1e-3, 1)[: weight.shape[-1]])
    smaller = remove_channels(model, Selection(0.5, multiple_of=8)).model
    assert smaller.get_layer("c0").filters == 8 and smaller.get_layer("low").kernel.shape[2] == 1


def test_minimum_maximum_include_exclude():
    model = stack(8, 16, 32)
    assert widths(plan_channels(model, Selection(ratio=0.9, min_channels=6))) == {
        "c0": 6,
        "c1": 6,
        "c2": 6,
        "logits": 2,
    }
    assert widths(plan_channels(model, Selection(ratio=0.9, max_ratio=0.25)))["c2"] == 24
    assert widths(plan_channels(model, Selection(include=["c1"]))) == {"c0": 8, "c1": 8, "c2": 32, "logits": 2}
    assert widths(plan_channels(model, Selection(exclude=["c[12]"]))) == {"c0": 4, "c1": 16, "c2": 32, "logits": 2}
    assert widths(plan_channels(model, Selection(ratio={"c0": 0.25, "c2": 0.75}))) == {
        "c0": 6,
        "c1": 16,
        "c2": 8,
        "logits": 2,
    }
    with pytest.raises(InputError, match="did you mean 'c1'"):
        plan_channels(model, Selection(exclude=["c11"]))


@pytest.mark.parametrize(("width", "kept"), [(40, 2), (20, 1), (41, 3)])
def test_the_largest_ratio_is_met_exactly(width, kept):
    assert widths(plan_channels(stack(width, 8), Selection({"c0": 0.99})))["c0"] == kept


@pytest.mark.parametrize(
    ("selection", "guards"),
    [
        (Selection(0.5, multiple_of=64), "multiple_of 64, max_ratio 0.95"),
        (Selection(0.5, exclude=["*"]), r"exclude \[\*\], max_ratio 0.95"),
        (Selection({"c0": 0.5}, min_channels=9), "min_channels 9, max_ratio 0.95"),
    ],
)
def test_a_ratio_that_takes_nothing_is_refused(selection, guards):
    with pytest.raises(InputError, match=f"takes no channel .*from going: {guards}. Give a larger ratio"):
        plan_channels(stack(8, 16), selection)
    assert plan_channels(stack(8, 16), 0.0).remove == {}


def test_global_ranking_takes_more_from_weak_layers():
    model = stack(16, 16)
    kernel, bias = model.get_layer("c0").get_weights()
    kernel[..., 4:] *= 1e-2
    model.get_layer("c0").set_weights([kernel, bias])
    after = widths(plan_channels(model, Selection(ratio=0.4, scope="global")))
    assert after["c0"] < after["c1"]
    assert after["c0"] + after["c1"] == 32 - int(32 * 0.4)


def test_a_global_ratio_takes_its_share_of_equal_scores():
    model = stack(16, 16)
    for name in ("c0", "c1", "logits"):
        layer = model.get_layer(name)
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    after = widths(plan_channels(model, Selection(ratio=0.25, scope="global")))
    assert after["c0"] + after["c1"] == 24


def test_what_is_left_of_one_is_a_whole_share():
    for scope in ("layer", "global"):
        plan = plan_channels(stack(40, 80), Selection(1.0 - 0.8, scope=scope))
        assert sum(map(len, plan.remove.values())) == 24, scope


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ratio": 1.0}, "ratio must be a number from 0 to below 1"),
        ({"ratio": {"c0": -1}}, "ratio must be"),
        ({"multiple_of": 0}, "multiple_of must be a whole number"),
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"ratio": {"c0": 0.5}, "scope": "global"}, "contradict"),
        ({"exclude": "c0"}, "a list of patterns"),
    ],
)
def test_bad_settings(options, text):
    with pytest.raises(InputError, match=text):
        Selection(**options)


def test_a_plan_is_saved_edited_and_replayed(tmp_path):
    model, other = stack(8, 16), stack(8, 16, seed=1)
    plan = plan_channels(model)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    record = json.loads((tmp_path / "plan.json").read_text())
    record["remove"] = {"c0": [0, 5]}
    (tmp_path / "plan.json").write_text(json.dumps(record))
    removal = apply_plan(other, Plan.load(tmp_path / "plan.json"))
    kernel = removal.model.get_layer("c0").get_weights()[0]
    np.testing.assert_array_equal(kernel, np.delete(other.get_layer("c0").get_weights()[0], [0, 5], axis=-1))
    assert removal.model.get_layer("c1").filters == 16


def test_what_is_coupled_goes_too(tmp_path):
    model = TOPOLOGIES["residual"]()
    plan = plan_channels(model)
    row = next(layer for layer in plan.layers if layer.coupled)
    edited = Plan(plan.model, plan.fingerprint, {row.layer: (2, 3)})
    smaller = apply_plan(model, edited).model
    for name in (row.layer, *row.coupled):
        assert smaller.get_layer(name).filters == 14


def test_another_architecture_refuses_a_plan():
    plan = plan_channels(stack(8, 16))
    for other in (stack(8, 12), stack(8, 16, 16), tiny_net()):
        with pytest.raises(InputError, match="another architecture"):
            apply_plan(other, plan)


@pytest.mark.parametrize(
    ("remove", "text"),
    [
        ({"c9": (0,)}, "did you mean"),
        ({"c0": (8,)}, "there is no channel 8"),
        ({"logits": (0,)}, "may not go: 'logits': model output"),
        ({"c0": tuple(range(8))}, "at least one must stay"),
    ],
)
def test_plans_that_cannot_be_followed(remove, text):
    model = stack(8, 16)
    plan = plan_channels(model)
    with pytest.raises(InputError, match=text):
        apply_plan(model, Plan(plan.model, plan.fingerprint, remove))


def test_broken_plan_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Plan.load(tmp_path / "none.json")
    for text in ("[]", "{}", "no json", '{"format": 2}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError, match="not a plan"):
            Plan.load(tmp_path / "plan.json")


def test_nothing_can_go():
    inputs = layers.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="logits")(inputs))
    with pytest.raises(InputError, match=r"no channel that may go: .*model output"):
        remove_channels(model)

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InputError, match="functional or built sequential"):
        remove_channels(Subclassed())


def test_almost_everything_can_go():
    for name in ("slices_and_split", "siamese", "heads_by_hand"):
        keras.utils.set_random_seed(0)
        removal = remove_channels(
            randomize(TOPOLOGIES[name]()), Selection(ratio=0.99, max_ratio=0.99), criterion="random"
        )
        assert removal.equality.holds
