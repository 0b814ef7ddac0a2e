"""What the probes find out about ops, and that they are not fooled."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.channels import RULES, label_channels, remove_channels
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.probing import keeps_channels_apart
from tfprune.keras import keras, tf

layers = keras.layers


def around(function, *, width=8, size=8):
    """A net in which `function` of the first convolution is read by the second."""
    image = layers.Input((size, size, 3))
    x = layers.Lambda(function, name="op")(layers.Conv2D(width, 3, padding="same", name="first")(image))
    return keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))


def groups_of(function, **options):
    """The number of groups that may go, and the sizes of their slices of the first convolution."""
    groups = ChannelGroups(label_channels(around(function, **options)))
    return [len(groups[i][0].indices) for i in range(len(groups))]


APART = {
    "relu": tf.nn.relu,
    "of an affine map": lambda t: tf.nn.relu(2 * t - 1),
    "resize to the same size": lambda t: tf.image.resize(t, (8, 8)),
    "resize": lambda t: tf.image.resize(t, (5, 7)),
    "flip of the image": lambda t: tf.reverse(t, axis=[1]),
    "crop": lambda t: t[:, 1:-1, 1:-1],
    "instance norm": lambda t: t - tf.reduce_mean(t, axis=[1, 2], keepdims=True),
    "sum of squares": lambda t: tf.reduce_sum(t * t, -1, keepdims=True),
    "shuffle": lambda t: tf.gather(t, [3, 1, 2, 0, 7, 6, 5, 4], axis=-1),
    "crelu": lambda t: tf.concat([tf.nn.relu(t), tf.nn.relu(-t)], -1),
    "coordinates": lambda t: tf.concat([t, tf.ones_like(t[..., :1]) * tf.range(8.0)[:, None, None]], -1),
}


@pytest.mark.parametrize("name", APART)
def test_channels_stay_apart(name):
    assert groups_of(APART[name]) == [1] * 8
    assert remove_channels(around(APART[name])).equality.holds


def test_unread_channels_of_a_slice_may_go():
    # three channels are read, the others by nobody: all eight may go, and one of the three must stay
    model = around(lambda t: t[..., :3])
    removal = remove_channels(model, 0.9)
    assert removal.model.get_layer("logits").kernel.shape[2] >= 1
    assert removal.equality.holds


def test_blocks_go_together():
    assert groups_of(lambda t: tf.nn.depth_to_space(t, 2)) == [4, 4]
    assert groups_of(lambda t: tf.nn.space_to_depth(t, 2)) == [1] * 8


def leak(t):
    return tf.where(t > 0, t, 0.1 * t)


def gate(t):
    larger = tf.reverse(t, axis=[1])
    return tf.where(tf.logical_and(t > larger, larger > 0), larger, tf.zeros_like(t))


def weigh_pairs(t):
    pairs = tf.stack([t, 1.0 - t], axis=-1)
    return tf.reduce_sum(tf.nn.relu(pairs) * tf.nn.softmax(pairs, axis=-1), axis=-1)


@pytest.mark.parametrize("function", [leak, gate, weigh_pairs])
def test_ops_one_by_one_leave_channels_apart(function):
    image = layers.Input((8, 8, 3))
    x = function(layers.Conv2D(8, 3, padding="same", name="first")(image))
    removal = remove_channels(keras.Model(image, layers.Conv2D(2, 1, name="logits")(x)))
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 4


COPIES = {
    "tile": lambda t: tf.tile(t, [1, 1, 1, 8]),
    "repeat": lambda t: tf.repeat(t, 8, axis=-1),
    "repeat, of Keras": lambda t: keras.backend.repeat_elements(t, 8, axis=3),
    "join": lambda t: tf.concat([t] * 8, axis=-1),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("as_layer", [True, False])
def test_copies_of_a_gate_go_one_by_one(name, as_layer):
    function = layers.Lambda(COPIES[name]) if as_layer else COPIES[name]
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(layers.Multiply()([x, function(gate)])))
    removal = remove_channels(model)
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 4


@pytest.mark.parametrize("as_layer", [True, False])
def test_a_map_of_one_channel_may_be_joined(as_layer):
    def join(tensors):
        return tf.concat(tensors, axis=-1)

    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
    joined = (layers.Lambda(join) if as_layer else join)([gate, x])
    removal = remove_channels(keras.Model(image, layers.Conv2D(2, 1, name="logits")(joined)))
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 4


def test_a_resize_to_the_size_of_a_map_is_no_pick_of_channels():
    image = layers.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    small = layers.UpSampling2D()(layers.MaxPooling2D()(x))
    gate = layers.Conv2D(1, 1, name="gate")(x)
    fitted = layers.Lambda(lambda pair: tf.image.resize(pair[0], tf.shape(pair[1])[1:3]))([small, gate])
    logits = layers.Conv2D(2, 1, name="logits")(layers.Multiply()([fitted, gate]))
    smaller = remove_channels(keras.Model(image, logits)).model
    assert smaller.get_layer("first").filters == 4
    assert smaller(tf.zeros([1, 9, 9, 3])).shape == (1, 9, 9, 2)


@pytest.mark.parametrize("classes", [4, 8])
@pytest.mark.parametrize("is_output", [True, False])
def test_a_sum_over_pixels_leaves_the_features_free_that_maps_weigh(classes, is_output):
    """Object context and linear attention: the other side stays, be it an output, or fewer channels, or as many."""
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    maps = layers.Conv2D(classes, 1, name="maps")(x)
    weights = tf.nn.softmax(tf.reshape(maps, [-1, 64, classes]), axis=1)
    context = tf.matmul(weights, tf.reshape(x, [-1, 64, 8]), transpose_a=True)
    logits = layers.Dense(2, name="logits")(context)
    removal = remove_channels(keras.Model(image, [logits, maps] if is_output else logits))
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 4
    assert removal.model.get_layer("maps").filters == classes


def pad_by_permuting(t):
    padded = layers.ZeroPadding2D(((0, 0), (0, 8)))(layers.Permute((1, 3, 2))(t))
    return layers.Permute((1, 3, 2))(padded)


def pad_at_both_ends(t):
    return tf.pad(t, [[0, 0], [0, 0], [0, 0], [3, 5]])


PADDINGS = {
    "permuted": pad_by_permuting,
    "op": pad_at_both_ends,
    "lambda in a chain": lambda t: keras.Sequential([layers.Lambda(pad_at_both_ends), layers.ReLU()])(t),
}


@pytest.mark.parametrize("name", PADDINGS)
def test_what_is_added_to_padding_may_go(name):
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    wide = layers.Conv2D(16, 3, padding="same", name="wide")(x)
    x = layers.Add()([PADDINGS[name](x), wide])
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    removal = remove_channels(model, 0.5, criterion="random")
    assert removal.equality.holds
    assert removal.model.get_layer("wide").filters <= 8


def test_pairs_of_channels_on_another_axis_go_together():
    def add_pairs(t):
        pairs = tf.reshape(t, [-1, t.shape[1], t.shape[2] // 2, 2, t.shape[3]])
        return t + tf.reshape(tf.reverse(pairs, [3]), tf.shape(t))

    image = layers.Input((8, 8, 3))
    x = layers.Permute((1, 3, 2))(layers.Conv2D(8, 3, padding="same", name="first")(image))
    x = layers.Permute((1, 3, 2))(layers.Lambda(add_pairs)(x))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    groups = ChannelGroups(label_channels(model))
    assert [len(groups[i][0].indices) for i in range(len(groups))] == [2] * 4
    assert remove_channels(model).equality.holds


@pytest.mark.parametrize("shape", [(8, 8, 4, 2), (8, 8, 2, 4)])
def test_the_largest_of_each_few_channels(shape):
    """Maxout by Reshape: the few go together, whichever axis they stand on."""
    image = layers.Input((8, 8, 3))
    x = layers.Reshape(shape)(layers.Conv2D(8, 3, padding="same", name="first")(image))
    x = tf.reduce_max(x, axis=3 if shape[2] == 2 else 4)
    removal = remove_channels(keras.Model(image, layers.Conv2D(2, 1, name="logits")(x)))
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 4


MIXED = {
    "softmax": tf.nn.softmax,
    "mean over channels": lambda t: tf.reduce_mean(t, -1, keepdims=True),
    "maximum over channels": lambda t: tf.reduce_max(t, -1, keepdims=True),
    "centred": lambda t: t - tf.reduce_mean(t, -1, keepdims=True),
    "cumulative sum": lambda t: tf.cumsum(t, axis=-1),
    "relu of a slice": lambda t: tf.nn.relu(t[..., :6]),
    "numbers of their own": lambda t: t * tf.range(8, dtype=tf.float32),
    "sorted": lambda t: tf.sort(t, axis=-1),
    "divided by the largest": lambda t: t / tf.reduce_max(tf.abs(t)),
    "argmax": lambda t: tf.cast(tf.argmax(t, -1), tf.float32)[..., None],
    "next channel": lambda t: t + tf.roll(t, 1, axis=-1),
    "fixed width": lambda t: tf.reshape(t, [-1, 8, 8, 8]) * 1.0,
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_channels_are_frozen(name):
    assert groups_of(MIXED[name]) == []


@pytest.mark.parametrize(
    ("width", "name", "reason"),
    [
        (8, "softmax", "mixes its channels"),
        (8, "numbers of their own", "its code or its arrays fix the number of channels"),
        (1, "softmax", "reads a single channel, which stays"),
    ],
)
def test_what_is_frozen_says_why(width, name, reason):
    reasons = label_channels(around(MIXED[name], width=width)).space.frozen_reasons()
    assert f"'op': {reason}" in reasons.values()


def test_an_op_that_fools_the_probes_is_frozen_after_the_check():
    """It behaves on the small numbers of the probes, and sorts channels on those of the net."""

    def fooled(t):
        return tf.where(tf.reduce_max(tf.abs(t)) > 50.0, tf.sort(t, axis=-1), t)

    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(layers.Lambda(fooled, name="op")(x))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    model.get_layer("first").bias.assign(np.arange(8.0))
    removal = remove_channels(model)
    assert removal.plan.opaque == ("op",)
    assert removal.equality.holds
    assert removal.model.get_layer("first").filters == 8
    assert removal.model.get_layer("second").filters == 4


def test_activations():
    assert keeps_channels_apart(keras.activations.swish)
    assert keeps_channels_apart(lambda x: x * 2)
    assert not keeps_channels_apart(keras.activations.softmax)
    assert not keeps_channels_apart(lambda x: x[:, ::-1])


class Scale(layers.Layer):
    """y = x * gamma."""

    def build(self, shape):
        self.gamma = self.add_weight(name="gamma", shape=shape[-1:], initializer="random_normal")

    def call(self, inputs):
        return inputs * self.gamma


def test_a_rule_of_ones_own(monkeypatch):
    def scale_rule(call):
        labels = call.channels()
        call.slot(call.layer.gamma, 0, labels, "thru")
        return call.spread(labels)

    image = layers.Input((8, 8, 3))
    x = Scale(name="scale")(layers.Conv2D(8, 3, name="first")(image))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    assert len(ChannelGroups(label_channels(model))) == 0
    monkeypatch.setitem(RULES, Scale, scale_rule)
    removal = remove_channels(model)
    assert removal.model.get_layer("scale").gamma.shape == (4,)
    assert removal.equality.holds


def test_a_wrong_rule_is_found_out(monkeypatch):
    from tfprune.channels.removal import NotExactError

    def wrong_rule(call):
        return call.spread(call.channels())

    class Mixer(layers.Layer):
        def call(self, inputs):
            return tf.nn.softmax(inputs)

        def get_config(self):
            return super().get_config()

    image = layers.Input((8, 8, 3))
    x = Mixer(name="mixer")(layers.Conv2D(8, 3, name="first")(image))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))
    monkeypatch.setitem(RULES, Mixer, wrong_rule)
    with pytest.raises(NotExactError, match="differs from the masked original"):
        remove_channels(model)
