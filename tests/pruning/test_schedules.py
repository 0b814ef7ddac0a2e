"""Schedules: the published numbers, exact ends, refusals, and what is saved."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.pruning import SCHEDULES, scope
from tfprune.pruning.saving import from_config, to_config
from tfprune.pruning.schedules import IterativeRounds, build_schedule, schedule_epochs, sparsity_by_step

from tensorflow_model_optimization.sparsity import keras as tfmot


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("begin", "end", "prunes"), [(0, 100, 5), (7, 60, 4), (3, 1003, 16), (1, 30, 7)])
def test_every_schedule_ends_exactly(name, begin, end, prunes):
    points = sparsity_by_step(build_schedule(name, 0.83, begin_step=begin, end_step=end, prunes=prunes))
    values = list(points.values())
    assert values[-1] == pytest.approx(0.83, abs=1e-6) and values == sorted(values)
    assert len(points) == (1 if name == "one_shot" else prunes)
    assert min(points) >= max(begin, 1) and max(points) <= end


def test_movement_waits_and_ends_early():
    points = sparsity_by_step(schedule_epochs("movement", 0.9, epochs=50, steps_per_epoch=10, prunes=20))
    assert min(points) > 20 * 10 and max(points) == 40 * 10


def test_iterative_rounds_compound_or_add():
    compound = IterativeRounds(0.1, rounds=3, begin_step=0, frequency=5)
    assert list(sparsity_by_step(compound).values()) == pytest.approx([0.1, 0.19, 0.271])
    added = IterativeRounds(0.1, rounds=3, begin_step=0, frequency=5, compounding=False)
    assert list(sparsity_by_step(added).values()) == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"end at sparsity 1\.5"):
        IterativeRounds(0.5, rounds=3, begin_step=0, frequency=5, compounding=False)


@pytest.mark.parametrize("final", [0.5, 0.8, 0.95])
def test_many_rounds_end_exactly(final):
    points = sparsity_by_step(build_schedule("iterative", final, begin_step=0, end_step=512, prunes=256))
    assert points[512] == final


def test_one_shot_prunes_once_at_its_begin():
    assert sparsity_by_step(build_schedule("one_shot", 0.5, begin_step=8, end_step=20, prunes=9)) == {8: 0.5}
    assert sparsity_by_step(build_schedule("one_shot", 0.5, begin_step=0, end_step=20, prunes=1)) == {1: 0.5}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_comes_back_from_its_config_in_tfmots_form(name):
    schedule = build_schedule(name, 0.6, begin_step=2, end_step=42, prunes=4)
    config = to_config(schedule)
    assert set(config) == {"class_name", "config"}
    with scope():
        theirs = keras.utils.deserialize_keras_object(config)
    for copy in (from_config(config), theirs):
        assert type(copy) is type(schedule)
        assert sparsity_by_step(copy) == sparsity_by_step(schedule)


def test_a_schedule_works_in_tfmots_own_wrapper():
    schedule = build_schedule("iterative", 0.75, begin_step=0, end_step=4, prunes=2)
    model = keras.Sequential([keras.layers.Dense(8, input_shape=(8,))])
    pruned = tfmot.prune_low_magnitude(model, pruning_schedule=schedule)
    pruned.compile("sgd", "mse")
    pruned.fit(
        np.ones((8, 8)), np.ones((8, 8)), batch_size=1, verbose=0, callbacks=[tfmot.UpdatePruningStep()], epochs=1
    )
    assert np.mean(tfmot.strip_pruning(pruned).layers[0].kernel.numpy() == 0) == pytest.approx(0.75, abs=0.02)


def steps(name, **settings):
    return build_schedule(name, 0.5, begin_step=0, end_step=9, **settings)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: schedule_epochs("linear", 0.5, epochs=5, steps_per_epoch=9, prunes=3, end_epoch=6),
            "epoch 0 to epoch 6",
        ),
        (
            lambda: build_schedule("constant", 0.5, begin_step=0, end_step=9, prunes=1, initial_sparsity=0.1),
            "no initial",
        ),
        (lambda: build_schedule("movement", 0.5, begin_step=0, end_step=9, prunes=8), "8 prunes do not fit into the 3"),
        (lambda: sparsity_by_step(tfmot.ConstantSparsity(0.5, 0)), "has no end"),
        (lambda: sparsity_by_step(tfmot.PolynomialDecay(0.0, 0.9, 0, 60)), "sparsity 0 instead of 0.9"),
        (lambda: from_config({"class_name": "Mine", "config": {}}), r"scope\(Mine\)"),
    ],
)
def test_what_cannot_end_right_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()
