"""Masks: exact, on schedule, not destructive, gone after strip."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.pruning.choice import keep_highest
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule, sparsity_by_step
from tfprune.pruning.selection import select_layers

from tensorflow_model_optimization.sparsity import keras as tfmot


@pytest.mark.parametrize(
    ("name", "expected"),
    [("polynomial", [0.439, 0.706, 0.842, 0.893, 0.9]), ("linear", [0.18, 0.36, 0.54, 0.72, 0.9])],
)
def test_five_prunes_reach_the_published_sparsities(name, expected):
    points = sparsity_by_step(build_schedule(name, 0.9, begin_step=3, end_step=60, prunes=5))
    assert list(points.values()) == pytest.approx(expected, abs=1e-3)
    assert max(points) == 60


@pytest.mark.parametrize(("ramp", "prunes"), [(7, 3), (100, 7), (5, 5), (91, 16)])
def test_the_last_prune_is_never_missed(ramp, prunes):
    points = sparsity_by_step(build_schedule("polynomial", 0.8, begin_step=10, end_step=10 + ramp, prunes=prunes))
    assert len(points) == prunes and points[10 + ramp] == pytest.approx(0.8, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"final_sparsity": 90}, "a fraction"),
        ({"end_step": 5, "prunes": 9}, "9 prunes do not fit into the 5 training steps"),
        ({"name": "polynomal"}, "did you mean 'polynomial'"),
    ],
)
def test_an_unreachable_schedule_is_refused(settings, text):
    given = {"name": "polynomial", "final_sparsity": 0.5, "begin_step": 0, "end_step": 100, "prunes": 5, **settings}
    with pytest.raises(InputError, match=text):
        build_schedule(given.pop("name"), given.pop("final_sparsity"), **given)


def test_tfmots_own_silent_miss_is_refused():
    with pytest.raises(InputError, match="misses its end"):
        sparsity_by_step(tfmot.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=95, frequency=10))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.999])
def test_the_mask_keeps_the_highest_scores_and_exactly_as_many(sparsity):
    scores = np.random.default_rng(0).permutation(1000).astype(np.float32).reshape(10, 100)
    mask = keep_highest(scores, sparsity)
    assert mask.sum() == round(1000 * (1 - sparsity)) and scores[mask == 1].min() == 1000 - mask.sum()


def test_equal_scores_do_not_keep_extra():
    assert keep_highest(np.ones((3, 4)), 0.5).sum() == 6


def test_heads_and_tiny_layers_stay_dense_with_the_reason():
    selection = select_layers(tiny_net(), min_weights=1000)
    assert selection.masked == ("middle_conv", "last_conv")
    assert {item.layer: item.reason for item in selection.dense} == {
        "down_conv": "tiny: fewer than 1000 weights in the kernel",
        "logits": "output head stays dense",
    }


def test_nothing_to_mask_is_an_error_with_the_reasons():
    with pytest.raises(InputError, match=r"no layer to mask \(down_conv, \d+ weights: tiny: fewer than 1000000"):
        select_layers(tiny_net(), min_weights=10**6)


@pytest.fixture(scope="module")
def trained(discs):
    """A controller after ten steps with prunes at 2, 4, ... 10, and a dense copy of its model."""
    images, masks = discs
    model = tiny_net()
    schedule = build_schedule("polynomial", 0.75, begin_step=0, end_step=10, prunes=5)
    controller = MaskController(model, schedule, selection=select_layers(model, min_weights=500), scope="layer")
    controller.model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    controller.model.fit(
        images[:40].astype(np.float32), masks[:40], batch_size=8, epochs=2, verbose=0, callbacks=[controller.callback()]
    )
    return controller, model


def test_the_final_sparsity_is_exact_in_every_layer(trained):
    controller, _ = trained
    for row in controller.sparsity():
        assert row.nonzero == row.weights - round(row.weights * 0.75)
    assert controller.total_sparsity() == pytest.approx(0.75, abs=1e-3)


def test_masked_weights_are_zero_and_keep_their_values(trained, discs):
    controller, _ = trained
    layer = controller.layers[0]
    kernel, kept, mask = layer.kernel.numpy(), layer.kept[0].numpy(), layer.mask.numpy()
    assert not kernel[mask == 0].any() and np.all(kept[mask == 0] != 0) and not kept[mask == 1].any()
    controller.model.fit(discs[0][:8].astype(np.float32), discs[1][:8], verbose=0)
    after = layer.kernel.numpy()
    assert not after[mask == 0].any() and np.any(after[mask == 1] != kernel[mask == 1])
    np.testing.assert_array_equal(layer.kept[0].numpy(), kept)


def test_the_stripped_model_equals_the_masked_one_bit_for_bit(trained, discs):
    controller, source = trained
    pictures = discs[0][40:].astype(np.float32)
    masked = controller.model.predict(pictures, verbose=0)
    plain = controller.strip()
    np.testing.assert_array_equal(plain.predict(pictures, verbose=0), masked)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in source.layers]
    assert all("mask" not in weight.name for weight in plain.weights)
    zeros = np.mean(plain.get_layer("middle_conv").kernel.numpy() == 0)
    assert zeros == pytest.approx(0.75, abs=1e-3)


def test_wrapping_leaves_the_given_model_alone():
    model = tiny_net()
    before = [weight.numpy() for weight in model.weights]
    controller = MaskController(model, None, selection=select_layers(model, min_weights=500))
    for layer in controller.layers:
        layer.set_mask("kernel", np.zeros(layer.mask.shape, bool))
    for ours, theirs in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
