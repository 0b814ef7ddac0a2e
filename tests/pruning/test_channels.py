"""Masks on coupled channels: they end in a plan's shape, and removing what they hold at zero changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES
from tests.tiny import tiny_net
from tfprune.channels import ChannelGroups, Selection, apply_plan, label_channels, score_groups
from tfprune.channels.planning import choose, write_plan
from tfprune.keras import keras
from tfprune.pruning.channels import groups_to_mask, zeroed_groups
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule

NETS = {"tiny": tiny_net, **{name: TOPOLOGIES[name] for name in ("residual", "unet_plus_plus", "nested")}}


@pytest.mark.parametrize("name", NETS)
def test_masked_channels_are_those_that_a_plan_would_leave_out(name):
    model = NETS[name]()
    groups = ChannelGroups(label_channels(model))
    removed = choose(groups, score_groups(groups), Selection(ratio=0.5))
    masks, selection, shares = groups_to_mask(groups, removed)
    schedule = build_schedule("one_shot", max(shares.values()), begin_step=0, end_step=1, prunes=1)
    controller = MaskController(
        model, schedule, selection=selection, granularity=masks, scope="layer", layer_sparsity=shares
    )
    images = np.random.default_rng(0).random((2, *model.input_shape[1:])).astype(np.float32)
    controller.model.compile(keras.optimizers.SGD(0.0), "mse")
    controller.model.train_on_batch(images, np.zeros_like(model.predict(images, verbose=0)))
    plain = controller.strip()
    left = ChannelGroups(label_channels(plain))
    gone = zeroed_groups(left)
    for family in left.families:
        assert gone[family.groups].sum() == removed[family.groups].sum(), family.layers
    smaller = apply_plan(plain, write_plan(left, gone)).model
    np.testing.assert_allclose(
        smaller.predict(images, verbose=0), plain.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )
    assert smaller.count_params() < 0.6 * model.count_params()
