"""Every hard topology is rebuilt exactly, and enough of it goes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES, conv, finish, randomize
from tfprune.channels import Selection, label_channels, measure_cost, remove_channels, remove_dead_channels
from tfprune.channels.copying import drawn_anew
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.cloning import clone_layers

layers = keras.layers

# Share of the multiplications that is left at most when half of the groups go. Layers that no rule
# knows, layer norms and the pixels themselves keep some nets wider than the quarter one would expect.
LEFT = {
    "subclassed_layers": 0.65,
    "cbam": 0.65,
    "convnext": 0.65,
    "multi_head": 0.55,
    "scalars_and_added_loss": 0.51,
    "signal": 0.46,
    "flatten_dense": 0.4,
    "odd_activations": 0.4,
}


@pytest.fixture(scope="module", params=list(TOPOLOGIES))
def removed(request):
    keras.utils.set_random_seed(0)
    model = randomize(TOPOLOGIES[request.param]())
    before = [weight.numpy() for weight in model.weights]
    removal = remove_channels(model, 0.5, criterion="random")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    return model, removal


def test_equals_the_masked_original(removed):
    model, removal = removed
    assert removal.equality.difference <= 1e-5
    assert removal.equality.unmasked_difference == 0
    assert removal.model.count_params() < model.count_params()


def test_most_of_the_work_is_gone(removed):
    model, removal = removed
    if removal.plan.macs:
        left = removal.plan.macs_after / removal.plan.macs
        assert left <= LEFT.get(model.name, 0.34), removal.plan
        assert measure_cost(removal.model).macs < 0.75 * measure_cost(model).macs


def test_trains_and_saves(removed, tmp_path):
    _, removal = removed
    smaller = removal.model
    inputs = tf.nest.map_structure(lambda t: tf.random.normal([2, *(s or 32 for s in t.shape[1:])]), smaller.input)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(output) for output in tf.nest.flatten(smaller(inputs, training=True)))
    gradients = tape.gradient(loss, smaller.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    removed[0](inputs)
    assert len(smaller.losses) == len(removed[0].losses)
    if any(isinstance(layer, keras.layers.Lambda) for layer in smaller.layers):
        return
    try:
        removed[0].save(tmp_path / "original.keras")
    except (TypeError, ValueError):
        return  # `x[..., a:b]` cannot be saved, with channels removed or without
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras", compile=False)
    for a, b in zip(tf.nest.flatten(smaller(inputs)), tf.nest.flatten(loaded(inputs)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_and_flags_stay(removed):
    model, removal = removed
    flags = {layer.name: layer.trainable for layer in model._flatten_layers()}
    kept = {layer.name: layer.trainable for layer in removal.model._flatten_layers()}
    assert {name: flag for name, flag in kept.items() if name in flags} == {n: f for n, f in flags.items() if n in kept}
    for layer in model.layers:
        if layer.weights and not isinstance(layer, keras.Model):
            copy = removal.model.get_layer(layer.name)
            config, changed = layer.get_config(), copy.get_config()
            for key in ("activation", "kernel_regularizer", "kernel_constraint", "kernel_initializer", "dtype"):
                assert config.get(key) == changed.get(key)


def test_nothing_removed_is_the_same_model():
    model = randomize(TOPOLOGIES["unet_plus_plus"]())
    removal = remove_channels(model, 0.0)
    assert removal.equality.difference == 0
    for a, b in zip(model.get_weights(), removal.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_layers_are_named_with_the_reason():
    keras.utils.set_random_seed(0)
    graph = label_channels(TOPOLOGIES["subclassed_layers"]())
    reasons = set(graph.space.frozen_reasons().values())
    assert any("ChannelScale has weights and no rule" in reason for reason in reasons)
    assert any("StandardizedConv has weights and no rule" in reason for reason in reasons)


class Segmenter(keras.Model):
    """A functional model with a class of its own, as people write for a training step."""

    def train_step(self, data):
        return super().train_step(data)


def test_a_subclass_of_functional_models_keeps_its_class():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    model = Segmenter(inputs, keras.layers.Conv2D(2, 1, name="logits")(x), name="mine")
    smaller = remove_channels(model).model
    assert type(smaller).__name__ == type(model).__name__
    assert smaller.train_step.__func__ is Segmenter.train_step


def called_on_its_own_input(again: bool):
    image = keras.Input((16, 16, 3))
    backbone = keras.Model(image, conv(conv(image, 8), 12), name="backbone")
    x = backbone(image)
    return finish(image, layers.Add()([x, backbone(conv(image, 3))]) if again else x, name="own_input")


def two_that_share_an_input():
    image = keras.Input((16, 16, 3))
    x = conv(image, 8)
    low, high = keras.Model(image, x, name="low"), keras.Model(image, conv(x, 12), name="high")
    other = keras.Input((16, 16, 3))
    return finish(other, layers.Concatenate()([low(other), high(conv(other, 3))]), name="shared_input")


@pytest.mark.parametrize(
    "build", [lambda: called_on_its_own_input(False), lambda: called_on_its_own_input(True), two_that_share_an_input]
)
def test_nested_models_may_share_tensors_with_what_is_around_them(build):
    keras.utils.set_random_seed(0)
    model = randomize(build())
    removal = remove_channels(model, Selection(budget="activation_bytes<=0.7x, macs<=0.5x"))
    assert removal.equality.holds and measure_cost(removal.model).macs == removal.plan.budget[1].after
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Conv2D) and layer.name != "logits":
            layer.kernel.assign(layer.kernel.numpy() * (np.arange(layer.filters) % 3 > 0))
    assert remove_dead_channels(model).model.count_params() < model.count_params()


def test_a_nested_model_may_split_channels():
    image = keras.Input((16, 16, 3))
    low, high = tf.split(layers.Conv2D(8, 3, padding="same", name="early", trainable=False)(image), 2, axis=-1)
    x = tf.concat([high, layers.Conv2D(4, 3, padding="same", name="late")(low)], axis=-1)
    backbone = keras.Model(image, x, name="backbone")
    other = keras.Input((16, 16, 3))
    removal = remove_channels(finish(other, backbone(other), name="splits"))
    inner = removal.model.get_layer("backbone")
    assert removal.equality.holds
    assert inner.get_layer("early").filters == 4
    assert not inner.get_layer("early").trainable
    assert inner.get_layer("late").trainable


def test_adapted_normalization_stays_adapted():
    scaled = layers.Normalization()
    scaled.adapt(np.random.default_rng(0).normal(5.0, 3.0, (8, 16, 16, 3)))
    image = keras.Input((16, 16, 3))
    model = randomize(finish(image, conv(conv(scaled(image), 8), 8), name="adapted"))
    assert remove_channels(model).equality.holds
    pictures = np.random.default_rng(1).normal(5.0, 3.0, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(clone_layers(model, lambda _, layer: layer)(pictures), model(pictures))
    again = drawn_anew(model, seed=0)
    np.testing.assert_array_equal(again.layers[1](pictures), scaled(pictures))


@pytest.mark.parametrize(
    ("function", "goes"),
    [
        (lambda x: tf.broadcast_to(np.linspace(1, 2, 8, dtype=np.float32), tf.shape(x)) * x, False),
        (lambda x: x / tf.sqrt(tf.cast(tf.shape(x)[-1], tf.float32)), False),
        (lambda x: tf.zeros(tf.shape(x)) + x, False),
        (lambda x: tf.image.resize(layers.MaxPooling2D()(x), tf.stack(tf.unstack(tf.shape(x))[1:3])), True),
    ],
)
def test_channels_whose_number_is_read_stay(function, goes):
    image = keras.Input((16, 16, 3))
    model = finish(image, conv(function(conv(image, 8)), 8), name="counted")
    removal = remove_channels(model, Selection(multiple_of=1))
    assert removal.model.layers[1].filters == (4 if goes else 8)


@pytest.mark.parametrize("nested", [False, True])
def test_dropout_that_is_always_on_stays_on(nested):
    image = keras.Input((16, 16, 3))
    x = layers.Dropout(0.5)(layers.Dropout(0.5)(conv(image, 8), training=True), True)
    if nested:
        x = keras.Model(image, x, name="inner")(image)
    model = randomize(finish(image, conv(x, 8), name="bayesian"))
    smaller = remove_channels(model).model
    pictures = np.ones((1, 16, 16, 3), np.float32)
    assert smaller.get_layer("logits").kernel.shape[2] == 4
    assert not np.array_equal(smaller(pictures), smaller(pictures))
    last = next(
        layer for layer in reversed(model.layers) if isinstance(layer, layers.Conv2D) and layer.name != "logits"
    )
    last.kernel.assign(last.kernel.numpy() * (np.arange(8) % 2))
    assert remove_dead_channels(model).model.get_layer(last.name).filters == 4


@pytest.mark.parametrize(
    "norm",
    [
        lambda: layers.BatchNormalization(renorm=True),
        lambda: layers.BatchNormalization(synchronized=True),
        layers.experimental.SyncBatchNormalization,
        lambda: layers.LayerNormalization(axis=[1, 2]),
    ],
)
def test_other_norms(norm):
    image = keras.Input((16, 16, 3))
    x = layers.ReLU()(norm()(layers.Conv2D(8, 3, name="first")(image)))
    removal = remove_channels(randomize(finish(image, x, name="norms")))
    assert removal.equality.holds and removal.model.get_layer("first").filters == 4


def test_a_norm_over_channels_keeps_them():
    image = keras.Input((16, 16, 3))
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(8, 3, name="first")(image))
    removal = remove_channels(randomize(finish(image, conv(x, 8), name="norms")))
    assert removal.plan.layers[0].reason == "'norm': normalises over its channels"


def test_a_width_among_the_arguments_is_written_anew():
    image = keras.Input((16, 16, 3))
    x = tf.ensure_shape(layers.Conv2D(8, 3, padding="same", name="first")(image), (None, 16, 16, 8))
    removal = remove_channels(finish(image, x, name="ensured"))
    assert removal.equality.holds and removal.model.get_layer("first").filters == 4


def test_a_frozen_model_stays_frozen():
    keras.utils.set_random_seed(0)
    model = TOPOLOGIES["residual"]()
    model.trainable = False
    smaller = remove_channels(model).model
    assert not smaller.trainable
    assert not smaller.trainable_variables


def test_what_is_drawn_anew_trains():
    inner = keras.Sequential([keras.layers.Conv2D(2, 1, input_shape=(4, 4, 3))])
    inner.trainable = False
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1, trainable=False)(inner(image)))
    assert len(drawn_anew(model, seed=0).trainable_weights) == 4 and not model.trainable_weights


def test_the_check_can_be_turned_off():
    keras.utils.set_random_seed(0)
    assert remove_channels(TOPOLOGIES["residual"](), check=False).equality is None


def test_a_layer_without_a_config_is_named():
    class Bare(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

        def get_config(self):
            raise NotImplementedError

    inputs = keras.Input((8, 8, 3))
    x = Bare(name="bare")(keras.layers.Conv2D(8, 3)(inputs))
    with pytest.raises(InputError, match=r"layer 'bare' .* cannot be copied"):
        remove_channels(keras.Model(inputs, keras.layers.Conv2D(2, 1)(x)))


def test_float64_has_the_last_word_where_float32_cannot_tell():
    """The sine of a large sum makes much of the order in which channels are added."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    total = tf.reduce_sum(layers.Conv2D(64, 3, padding="same")(image), -1, keepdims=True)
    removal = remove_channels(finish(image, tf.sin(10 * total), name="sine"), criterion="random")
    assert removal.equality.precision == "float64"
    assert removal.equality.difference <= 1e-5
    assert not removal.plan.opaque
