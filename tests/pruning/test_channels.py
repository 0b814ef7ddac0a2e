"""Masks on coupled channels: they end in a plan's shape, and removing what they hold at zero changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES
from tests.tiny import tiny_net
from tfprune.channels import ChannelGroups, Selection, apply_plan, label_channels, plan_channels
from tfprune.channels.planning import write_plan
from tfprune.keras import keras, tf
from tfprune.pruning.channels import mask_channels, masked_groups

layers = keras.layers


def chain(*middle):
    """image -> a (16 channels) -> the layers given -> logits."""
    keras.utils.set_random_seed(0)
    image = x = layers.Input((8, 8, 3))
    for layer in (layers.Conv2D(16, 3, name="a"), *middle, layers.Conv2D(2, 1, name="logits")):
        x = layer(x)
    return keras.Model(image, x)


NETS = {
    "tiny": tiny_net,
    **{name: TOPOLOGIES[name] for name in ("residual", "unet_plus_plus", "nested", "slices_and_split")},
    "separable": lambda: chain(layers.ReLU(), layers.SeparableConv2D(16, 3, activation="relu", name="b")),
    "sigmoid": lambda: chain(layers.Activation("sigmoid"), layers.Conv2D(16, 3, activation="softplus", name="b")),
}


def close_masks(model, plan):
    """Return the model with the masks of a plan in its weights, and the smaller one."""
    controller = mask_channels(model, plan, schedule="one_shot", criterion="magnitude", steps=1)
    controller.update(1, keras.optimizers.SGD(0.0))
    plain = controller.strip()
    groups = ChannelGroups(label_channels(plain))
    return plain, apply_plan(plain, write_plan(groups, masked_groups(groups, controller)))


@pytest.mark.parametrize("name", NETS)
def test_masked_channels_are_those_that_a_plan_would_leave_out(name):
    model = NETS[name]()
    plan = plan_channels(model)
    plain, removal = close_masks(model, plan)
    assert [row.channels_after for row in removal.plan.layers] == [row.channels_after for row in plan.layers]
    images = np.random.default_rng(0).random((2, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(
        removal.model.predict(images, verbose=0), plain.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )
    assert removal.model.count_params() < 0.6 * model.count_params()


def test_filters_that_were_zero_before_stay_where_the_plan_leaves_them():
    model = chain(layers.ReLU(), layers.Conv2D(16, 3, activation="relu", name="b"))
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., :5] = 0
    model.get_layer("a").set_weights([kernel, bias])
    _, removal = close_masks(model, plan_channels(model, Selection(0.5, exclude=["a"])))
    assert {layer: len(channels) for layer, channels in removal.plan.remove.items()} == {"b": 8}


def test_a_slice_of_a_layer_keeps_a_channel():
    keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3))
    low, high = tf.split(layers.Conv2D(16, 3, name="a")(image), [4, 12], axis=-1)
    joined = layers.Concatenate()([layers.Conv2D(4, 1, name="b")(low), layers.Conv2D(4, 1, name="c")(high)])
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(joined))
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., :4] *= 1e-3
    model.get_layer("a").set_weights([kernel, bias])
    _, removal = close_masks(model, plan_channels(model))
    assert removal.model.get_layer("a").filters == 8 and removal.model.get_layer("b").kernel.shape[2] == 1
