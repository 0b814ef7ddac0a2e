"""Plans to a budget: every bound holds, no more goes than it asks for, and few models are measured."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.test_plan import stack, widths
from tests.channels.topologies import TOPOLOGIES
from tests.tiny import tiny_net
from tfprune.channels import Plan, Selection, apply_plan, measure_cost, plan_channels, remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras


def planned(model, budget, *, scope="global", measures=None, value_bytes=1, **options):
    selection = Selection(budget=budget, scope=scope, **options)
    return plan_channels(model, selection, measures=measures, value_bytes=value_bytes)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("share", [0.7, 0.3, 0.1])
def test_multiplications_come_just_below_the_bound(scope, share):
    plan = planned(stack(32, 64, 48), f"macs<={share}x", scope=scope)
    assert 0.9 * share < plan.macs_after / plan.macs <= share


@pytest.mark.parametrize("name", ["residual", "grouped", "nested", "unet_plus_plus", "flatten_dense"])
def test_the_bounds_hold_of_the_model_that_is_built(name):
    model = TOPOLOGIES[name]()
    before = measure_cost(model)
    removal = remove_channels(model, Selection(budget="parameters<=0.6x, macs<=0.7x", scope="layer"))
    after = measure_cost(removal.model)
    assert after.parameters <= 0.6 * before.parameters and after.macs <= 0.7 * before.macs
    met = {row.quantity: row for row in removal.plan.budget}
    assert (met["parameters"].before, met["parameters"].after) == (before.parameters, after.parameters)
    assert met["macs"].limit == pytest.approx(0.7 * before.macs)


def test_memory_is_freed_where_the_peak_is():
    # The peak is at `join`: up (16 channels) + skip (8) + join (24), at 32x32; `last` is not alive then.
    model = tiny_net()
    removal = remove_channels(model, Selection(budget="activation_bytes<=36KiB"))
    after = widths(removal.plan)
    assert after["last_conv"] == 8 and after["middle_conv"] + after["down_conv"] == 18
    assert measure_cost(removal.model).peak_activation_bytes_int8 == 36 * 1024
    assert widths(planned(model, "activation_bytes<=144KiB", value_bytes=4)) == after


def test_a_second_bound_takes_more_from_everywhere():
    plan = planned(tiny_net(), "macs<=0.3x, activation_bytes<=36KiB")
    assert widths(plan)["last_conv"] < 8 and plan.macs_after <= 0.3 * plan.macs
    assert {met.quantity: met.after <= met.limit for met in plan.budget} == {"macs": True, "activation_bytes": True}


def test_a_budget_that_holds_already_removes_nothing():
    assert planned(stack(8, 8), "macs<=1x, activation_bytes<=1MiB").remove == {}


@pytest.mark.parametrize(
    ("quantity", "cost"),
    [
        ("file_bytes", lambda model: 3000 + 1.07 * model.count_params()),
        ("file_bytes", lambda model: 16 * round(model.count_params() / 16) ** 0.9),
        ("latency_ms", lambda model: 0.2 + 1e-6 * measure_cost(model).macs ** 0.95),
        ("arena_bytes", lambda model: 4096 + 1.2 * measure_cost(model).peak_activation_bytes_int8),
    ],
)
@pytest.mark.parametrize("share", [0.8, 0.5, 0.25])
def test_a_handful_of_models_is_measured(quantity, cost, share):
    measured = []

    def measure(model):
        measured.append(cost(model))
        return measured[-1]

    model = stack(32, 64, 48, 32)
    plan = planned(model, f"{quantity}<={share}x", measures={quantity: measure})
    (met,) = plan.budget
    assert met.before == cost(model)
    assert 0.85 * met.limit < met.after <= met.limit == pytest.approx(share * met.before)
    assert len(measured) <= 6


def test_what_falls_in_a_step_is_met_by_the_mildest_plan_below_it():
    model, measured = stack(32, 64, 48), []

    def measure(smaller):
        measured.append(smaller.count_params())
        return 100.0 if measured[-1] > 0.3 * model.count_params() else 10.0

    plan = planned(model, "latency_ms<=95", measures={"latency_ms": measure})
    after = apply_plan(model, plan, check=False).model.count_params() / model.count_params()
    assert 0.2 < after <= 0.3 and len(measured) <= 14


def test_a_clock_that_lies_a_little_does_not_break_the_plan():
    noise = np.random.default_rng(0)
    measures = {"latency_ms": lambda model: measure_cost(model).macs * (1 + 0.03 * noise.standard_normal())}
    (met,) = planned(stack(32, 64, 48), "latency_ms<=0.5x", measures=measures).budget
    assert met.after <= met.limit


def test_multiples_hold_under_a_budget():
    plan = planned(stack(32, 64, 48), "macs<=0.4x", multiple_of=8)
    assert all(width % 8 == 0 for layer, width in widths(plan).items() if layer != "logits")
    assert plan.macs_after <= 0.4 * plan.macs


def test_scores_per_cost_take_what_is_dear():
    # The second layer's channels are read by a wide layer: each of them costs more than one of the last.
    model = stack(16, 64, 16)
    plain, per_cost = (planned(model, "macs<=0.6x", per_cost=per) for per in (None, "macs"))
    assert per_cost.macs_after <= 0.6 * per_cost.macs
    assert widths(per_cost)["c1"] > widths(plain)["c1"] and widths(per_cost)["c0"] < widths(plain)["c0"]


@pytest.mark.parametrize(
    ("budget", "options", "said"),
    [
        ("macs<=10", {}, "macs is 2,301,952 before and 50,432 with all gone that may go, and the limit is 10\\."),
        ("activation_bytes<=6KiB", {"multiple_of": 8}, r"Pictures of 12x12 in place of 32x32.*multiple_of 8"),
        ("activation_bytes<=10KiB", {"min_channels": 6}, r"peak is where '\w+' runs.*a net with \d+ there would do"),
        ("parameters<=20", {}, "fewer levels, or a narrower first level.*max_ratio 0.95"),
        ("file_bytes<=10KiB", {}, "nothing measures file_bytes here; accepted: macs, parameters, activation_bytes"),
    ],
)
def test_what_cannot_be_met_is_refused_with_a_way_out(budget, options, said):
    with pytest.raises(InputError, match=said):
        planned(tiny_net(), budget, **options)


def test_layers_that_keep_channels_are_named_where_a_bound_cannot_be_met():
    image = keras.Input((16, 16, 3))
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Conv2D(16, 3)(image))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(keras.layers.Conv2D(4, 1)(x)))
    with pytest.raises(InputError, match=r"max_ratio 0.95; 'norm': normalises over its channels"):
        planned(model, "macs<=0.5x")


def test_a_measured_bound_that_cannot_be_met_is_refused():
    with pytest.raises(InputError, match=r"file_bytes is 97\.7 KiB before and 97\.7 KiB with all gone"):
        planned(stack(8, 8), "file_bytes<=50kB", measures={"file_bytes": lambda model: 1e5})


def test_a_ratio_and_a_budget_contradict_each_other():
    with pytest.raises(InputError, match="ratio and a budget contradict"):
        Selection(ratio=0.5, budget="macs<=0.5x")


def test_a_plan_keeps_how_its_budget_was_met(tmp_path):
    plan = planned(stack(32, 64), "macs<=0.5x, activation_bytes<=24KiB")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert str(plan).splitlines()[-1].startswith("activation_bytes ")
    assert str(plan).splitlines()[-1].endswith("KiB, at most 24.0 KiB")
