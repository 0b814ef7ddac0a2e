"""Measured sensitivity: against masking by hand, and what it does to a plan."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.test_plan import stack
from tests.channels.topologies import TOPOLOGIES
from tests.tiny import tiny_net
from tfprune.channels import ChannelGroups, Selection, label_channels, plan_channels, score_groups
from tfprune.channels.planning import choose
from tfprune.channels.sensitivity import measure_sensitivity, weigh_by_sensitivity
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.objectives.losses import build_loss


@pytest.fixture(scope="module")
def batches(discs):
    images, masks = discs
    return [(tf.constant(images[i : i + 16], tf.float32), tf.constant(masks[i : i + 16])) for i in (0, 16)]


def test_the_rise_is_that_of_masking_by_hand(batches):
    model, loss = tiny_net(), build_loss("cross_entropy")
    groups = ChannelGroups(label_channels(model))
    scores = score_groups(groups)
    before = [weight.copy() for weight in model.get_weights()]
    rises = measure_sensitivity(groups, scores, batches, loss)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)

    def mean_loss():
        return np.mean([float(tf.reduce_mean(loss(truth, model(images)))) for images, truth in batches])

    whole = mean_loss()
    last = next(index for index, family in enumerate(groups.families) if family.layers == ("last_conv",))
    lowest = np.argsort(scores[groups.families[last].groups], kind="stable")[:4]
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, :, lowest] = 0
    model.get_layer("logits").set_weights([kernel, bias])
    assert rises[last] == pytest.approx(mean_loss() - whole, rel=1e-4, abs=1e-6)


def test_coupled_layers_are_one_family(batches):
    model = TOPOLOGIES["residual"]()
    groups = ChannelGroups(label_channels(model))
    data = [(tf.random.stateless_normal((2, *model.input_shape[1:]), (0, 1)), 0)]
    rises = measure_sensitivity(groups, score_groups(groups), data, lambda truth, output: tf.reduce_mean(output**2))
    assert rises.shape == (len(groups.families),) and any(len(family.layers) > 1 for family in groups.families)
    assert np.isfinite(rises).all()


def test_a_family_that_nobody_needs_goes_first(batches):
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    idle = keras.layers.Conv2D(16, 1, name="idle")(image)
    busy = keras.layers.Conv2D(16, 1, name="busy")(image)
    logits = keras.layers.Conv2D(2, 1, name="logits")(keras.layers.Concatenate()([idle, busy]))
    model = keras.Model(image, logits)
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, :, :16] *= 1e-4
    model.get_layer("logits").set_weights([kernel, bias])
    settings = {"criterion": "magnitude", "batches": batches, "loss": build_loss("cross_entropy")}
    selection = Selection(ratio=0.4, scope="global")
    plain, measured = (
        {row.layer: row.channels_after for row in plan_channels(model, selection, sensitivity=asked, **settings).layers}
        for asked in (False, True)
    )
    assert measured["busy"] > plain["busy"] and measured["idle"] < plain["idle"]


def test_a_family_whose_masking_does_good_still_has_a_price():
    groups = ChannelGroups(label_channels(tiny_net()))
    weighed = weigh_by_sensitivity(groups, np.ones(len(groups)), np.array([3.0, -1.0, 0.0]))
    by_family = [set(weighed[family.groups].tolist()) for family in groups.families]
    assert by_family == [{3.0}, {0.05}, {0.05}]


def test_a_sensitive_family_stays_whichever_sign_its_scores_have():
    groups = ChannelGroups(label_channels(stack(40, 80)))
    scores = score_groups(groups, criterion="redundancy")
    for rises, spared in (((5.0, 1.0), 0), ((1.0, 5.0), 1)):
        weighed = weigh_by_sensitivity(groups, scores, np.array(rises))
        removed = choose(groups, weighed, Selection(ratio=0.3, scope="global"))
        lost = [removed[family.groups].mean() for family in groups.families]
        assert lost[spared] < lost[1 - spared]


def test_no_batches(batches):
    with pytest.raises(InputError, match="needs at least one batch"):
        plan_channels(tiny_net(), sensitivity=True, batches=[], loss=build_loss("cross_entropy"))
    with pytest.raises(InputError, match="hand over batches and a loss"):
        plan_channels(tiny_net(), sensitivity=True)
