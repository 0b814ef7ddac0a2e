"""Dead channels go, and nothing else: outputs stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES, randomize
from tests.tiny import tiny_net
from tfprune.channels import remove_dead_channels
from tfprune.errors import InputError
from tfprune.keras import keras

layers = keras.layers
READERS = [(1, "same", True, True), (3, "valid", True, True), (3, "same", True, False), (1, "same", False, False)]
ZEROED = [
    *("residual", "nested", "slices_and_split", "channel_shuffle"),
    *("grouped", "odd_activations", "flatten_dense"),
]


def same_outputs(model, smaller):
    pixels = np.random.default_rng(1).uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    a, b = model(pixels).numpy(), smaller(pixels).numpy()
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def kill(model, conv, norm, channels):
    """Set filters to zero as a mask at filter granularity does: kernel, bias, gamma, beta."""
    for layer, names in ((conv, ("kernel", "bias")), (norm, ("gamma", "beta"))):
        for name in names:
            variable = getattr(model.get_layer(layer), name, None) if layer else None
            if variable is not None:
                value = variable.numpy()
                value[..., channels] = 0
                variable.assign(value)


def test_masked_filters_go():
    model = randomize(tiny_net())
    kill(model, "middle_conv", "middle_norm", [0, 3, 7])
    kill(model, "down_conv", "down_norm", [5])
    removal = remove_dead_channels(model)
    assert removal.plan.remove == {"down_conv": (5,), "middle_conv": (0, 3, 7)}
    assert removal.model.get_layer("middle_conv").filters == 13
    same_outputs(model, removal.model)


def test_a_living_net_is_left_alone():
    with pytest.raises(InputError, match="no dead channel"):
        remove_dead_channels(randomize(tiny_net()))


def test_a_filter_kept_alive_by_its_norm_stays_before_padding():
    model = tiny_net()
    kill(model, "middle_conv", None, [2])
    beta = np.zeros(16)
    beta[2] = 0.7
    model.get_layer("middle_norm").beta.assign(beta)
    with pytest.raises(InputError, match="no dead channel"):
        remove_dead_channels(model)
    beta[2] = -0.7
    model.get_layer("middle_norm").beta.assign(beta)
    removal = remove_dead_channels(model)
    assert removal.plan.remove == {"middle_conv": (2,)}
    same_outputs(model, removal.model)


@pytest.mark.parametrize(("kernel", "padding", "bias", "folds"), READERS)
def test_constants_are_folded_where_that_is_exact(kernel, padding, bias, folds):
    keras.utils.set_random_seed(0)
    image = layers.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, activation="sigmoid", name="first")(image)
    x = layers.Conv2D(5, kernel, padding=padding, use_bias=bias, activation="relu", name="second")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    kill(model, "first", None, [1, 4])
    if not folds:
        with pytest.raises(InputError, match="no dead channel"):
            remove_dead_channels(model)
        return
    removal = remove_dead_channels(model)
    assert removal.plan.remove == {"first": (1, 4)}
    same_outputs(model, removal.model)


@pytest.mark.parametrize("fused", [True, False])
def test_no_channel_behind_a_softmax_is_constant_while_one_beside_it_is_not(fused):
    keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, activation="softmax" if fused else None, name="shares")(image)
    x = x if fused else layers.Activation("softmax")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="second")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    kill(model, "shares", None, [0, 1])
    kernel, bias = model.get_layer("second").get_weights()
    kernel[:, :, 2:, :3] = 0  # these filters read the two shares that come from zeros
    model.get_layer("second").set_weights([kernel, bias + 1.0])
    with pytest.raises(InputError, match="no dead channel"):
        remove_dead_channels(model)


def test_what_only_the_dead_read_is_dead():
    keras.utils.set_random_seed(0)
    image = layers.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="second")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    logits, bias = model.get_layer("logits").get_weights()
    logits[:, :, 3] = 0
    model.get_layer("logits").set_weights([logits, bias])
    second, bias = model.get_layer("second").get_weights()
    second[:, :, 2, [0, 1, 2, 4]] = 0
    model.get_layer("second").set_weights([second, bias])
    removal = remove_dead_channels(model)
    assert removal.plan.remove == {"first": (2,), "second": (3,)}
    same_outputs(model, removal.model)


@pytest.mark.parametrize("name", ZEROED)
def test_hard_nets_with_zeros_at_random(name):
    """Half of all filters zero, with their norms: whatever goes, the output stays (checked inside)."""
    keras.utils.set_random_seed(0)
    model = randomize(TOPOLOGIES[name]())
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model) or layer.name == "logits":
            continue
        dead = None
        for variable in layer.weights:
            short = variable.name.split("/")[-1].split(":")[0]
            if short in ("kernel", "bias", "gamma", "beta"):
                value = variable.numpy()
                dead = rng.random(value.shape[-1]) < 0.5 if dead is None else dead
                value[..., dead[: value.shape[-1]]] = 0
                variable.assign(value)
    try:
        removal = remove_dead_channels(model)
    except InputError:
        return
    assert removal.equality.difference <= 1e-5
    assert removal.model.count_params() < model.count_params()
