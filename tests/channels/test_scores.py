"""Scores of groups by every criterion, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.channels import label_channels, plan_channels, remove_channels
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.scores import gather_taylor, score_groups, weigh_by_rank
from tfprune.criteria import CRITERIA, Evidence
from tfprune.errors import InputError
from tfprune.keras import keras, tf

layers = keras.layers


def pair_of_layers(*, norm: bool):
    """first (4 channels) -> norm, if there is one -> logits, with weights set by hand."""
    image = layers.Input((4, 4, 1))
    x = layers.Conv2D(4, 1, use_bias=False, name="first")(image)
    x = layers.BatchNormalization(name="norm")(x) if norm else x
    model = keras.Model(image, layers.Conv2D(1, 1, use_bias=False, name="logits")(x))
    model.get_layer("first").set_weights([np.array([1.0, -2.0, 3.0, 2.0]).reshape(1, 1, 1, 4)])
    model.get_layer("logits").set_weights([np.array([4.0, 1.0, -1.0, 2.0]).reshape(1, 1, 4, 1)])
    if norm:
        model.get_layer("norm").gamma.assign([0.1, 0.2, 0.3, 0.4])
    return model


@pytest.fixture(scope="module")
def pair():
    model = pair_of_layers(norm=True)
    return model, ChannelGroups(label_channels(model))


def test_magnitude_by_hand():
    groups = ChannelGroups(label_channels(pair_of_layers(norm=False)))
    made, read = np.array([1, 2, 3, 2]) / 2, np.array([4, 1, 1, 2]) / 2
    np.testing.assert_allclose(score_groups(groups), (made + read) / 2)
    np.testing.assert_allclose(score_groups(groups, reduction="max"), np.maximum(made, read))
    np.testing.assert_allclose(score_groups(groups, reduction="l2"), np.sqrt((made**2 + read**2) / 2))


def test_filters_in_front_of_a_norm_have_no_size(pair):
    model, groups = pair
    read = np.array([4, 1, 1, 2]) / 2
    np.testing.assert_allclose(score_groups(groups), read)
    # where no kernel reads the channels, the filters are all there is
    image = layers.Input((4, 4, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False, name="first")(image))
    sums = keras.Model(image, layers.Lambda(lambda x: tf.reduce_sum(x, -1, keepdims=True), name="sums")(x))
    sums.get_layer("first").set_weights(model.get_layer("first").get_weights())
    np.testing.assert_allclose(score_groups(ChannelGroups(label_channels(sums))), np.array([1, 2, 3, 2]) / 2)


def test_equal_scores_leave_widths_in_proportion_to_their_roots():
    x = image = layers.Input((4, 4, 3))
    for width in (16, 64, 256):
        x = layers.Conv2D(width, 1, name=f"wide{width}")(x)
    groups = ChannelGroups(label_channels(keras.Model(image, layers.Conv2D(2, 1)(x))))
    weighed = weigh_by_rank(groups, np.ones(len(groups)))
    staying = [np.count_nonzero(weighed[family.groups] > 0.7) for family in groups.families]
    assert staying == [8, 16, 32]
    best = weighed[groups.families[0].groups]
    np.testing.assert_allclose(best, np.sqrt(4 / np.arange(1, 17)))


def test_scale_by_hand(pair):
    _, groups = pair
    np.testing.assert_allclose(score_groups(groups, criterion="norm_scale"), [0.4, 0.8, 1.2, 1.6], rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "max", "l2"])
def test_the_most_redundant_has_the_lowest_score(pair, reduction):
    _, groups = pair
    two = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def overlap(evidence: Evidence) -> np.ndarray:  # as redundancy would judge these filters
        return -np.abs(two @ two.T).sum(axis=1)

    scores = score_groups(groups, criterion=overlap, reduction=reduction)
    assert scores.argmin() == 3 and scores.argmax() == 2 and scores.min() == 0


def test_taylor_by_hand(pair):
    _, groups = pair
    images = np.ones((1, 4, 4, 1), np.float32)
    gathered = gather_taylor(groups, [(images, images)], lambda truth, outputs: tf.reduce_mean(outputs, (1, 2, 3)))
    # the output is linear: each channel adds first * gamma / sqrt(1 + eps) * logits, and t is just that
    t = np.array([1.0, -2.0, 3.0, 2.0]) * [0.1, 0.2, 0.3, 0.4] * np.array([4.0, 1.0, -1.0, 2.0])
    expected = t**2 / np.mean(t**2)
    np.testing.assert_allclose(score_groups(groups, criterion="taylor", gathered=gathered), expected, rtol=1e-4)
    np.testing.assert_allclose(score_groups(groups, criterion="taylor_gate", gathered=gathered), expected, rtol=1e-4)


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "movement"])
def test_every_criterion_gives_an_exact_plan(criterion):
    model = tiny_net()
    rng = np.random.default_rng(0)
    batches = [
        (rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32), rng.integers(0, 2, (2, 32, 32))) for _ in range(2)
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    removal = remove_channels(model, criterion=criterion, batches=batches, loss=loss)
    assert removal.equality.holds
    again = plan_channels(model, criterion=criterion, batches=batches, loss=loss)
    assert again == removal.plan


def test_a_criterion_of_ones_own(pair):
    _, groups = pair

    def first_is_best(evidence: Evidence) -> np.ndarray:
        return np.arange(evidence.weights.shape[-1], 0, -1.0)

    scores = score_groups(groups, criterion=first_is_best)
    assert np.argsort(-scores).tolist() == [0, 1, 2, 3]


def test_what_is_missing_is_said(pair):
    model, groups = pair
    with pytest.raises(InputError, match="hand over batches and a loss"):
        score_groups(groups, criterion="taylor")
    with pytest.raises(InputError, match="only training gathers"):
        score_groups(groups, criterion="movement")
    with pytest.raises(InputError, match="at least one batch"):
        gather_taylor(groups, [], lambda truth, outputs: outputs)
    with pytest.raises(InputError, match="did you mean 'magnitude'"):
        plan_channels(model, criterion="magnitud")
    with pytest.raises(InputError, match="unknown reduction"):
        score_groups(groups, reduction="sum")
