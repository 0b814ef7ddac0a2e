"""Two dozen small nets of the kinds that break tools which remove channels. 32x32 pixels, linear heads.

`TOPOLOGIES` maps a name to a function that builds the net; `randomize` gives it weights under which
a mistake shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfprune.keras import keras, tf

layers = keras.layers


def randomize(model: Any, *, seed: int = 0) -> Any:
    """Give all norms and biases random numbers: with zeros and ones many mistakes would not show."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for name, low, high in [("gamma", 0.5, 1.5), ("moving_variance", 0.5, 1.5)]:
            if getattr(layer, name, None) is not None:
                getattr(layer, name).assign(rng.uniform(low, high, getattr(layer, name).shape))
        for name in ("beta", "moving_mean", "bias", "alpha"):
            if hasattr(getattr(layer, name, None), "assign"):
                getattr(layer, name).assign(rng.normal(0, 0.3, getattr(layer, name).shape))
    return model


def image(size: tuple[int | None, int | None] = (32, 32)) -> Any:
    return layers.Input((*size, 3), name="image")


def conv(x: Any, width: int, kernel: int = 3, *, stride: int = 1, activation: Any = "relu", **options: Any) -> Any:
    x = layers.Conv2D(width, kernel, strides=stride, padding="same", **options)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x)


def finish(inputs: Any, x: Any, *, classes: int = 2, name: str) -> Any:
    return keras.Model(inputs, layers.Conv2D(classes, 1, name="logits")(x), name=name)


def residual() -> Any:
    inputs = image()
    x = conv(inputs, 16)
    for _ in range(2):
        x = layers.Add()([x, conv(conv(x, 12), 16, activation="linear")])
    return finish(inputs, x, name="residual")


def nested() -> Any:
    """A model inside a model inside a model."""
    inner_in = layers.Input((16, 16, 12))
    inner = keras.Model(inner_in, conv(conv(inner_in, 20), 12), name="inner")
    outer_in = layers.Input((16, 16, 8))
    outer = keras.Model(outer_in, inner(conv(outer_in, 12)), name="outer")
    tail = keras.Sequential([layers.Conv2D(10, 3, padding="same"), layers.ReLU()], name="tail")
    inputs = image()
    x = outer(conv(inputs, 8, stride=2))
    return finish(inputs, tail(layers.UpSampling2D()(x)), name="nested")


def siamese() -> Any:
    """One encoder on two images, and one convolution used at three scales."""
    encoder_in = layers.Input((32, 32, 3))
    encoder = keras.Model(encoder_in, conv(conv(encoder_in, 8), 16), name="encoder")
    left, right = layers.Input((32, 32, 3), name="left"), layers.Input((32, 32, 3), name="right")
    x = layers.Subtract()([encoder(left), encoder(right)])
    shared = layers.Conv2D(16, 3, padding="same", activation="relu", name="shared")
    x = layers.Concatenate()([shared(x), layers.UpSampling2D()(shared(layers.MaxPooling2D()(x)))])
    return finish([left, right], shared(conv(x, 16)), name="siamese")


def unet_plus_plus() -> Any:
    inputs = image()
    a0 = conv(inputs, 8)
    b0 = conv(layers.MaxPooling2D()(a0), 12)
    c0 = conv(layers.MaxPooling2D()(b0), 16)
    b1 = conv(layers.Concatenate()([b0, layers.UpSampling2D()(c0)]), 12)
    a1 = conv(layers.Concatenate()([a0, layers.UpSampling2D()(b0)]), 8)
    a2 = conv(layers.Concatenate()([a0, a1, layers.UpSampling2D()(b1)]), 8)
    return finish(inputs, a2, name="unet_plus_plus")


def attention_layers() -> Any:
    """MA-Net's position attention by layers: Reshape, Dot, Softmax."""
    inputs = image()
    x = conv(conv(inputs, 16, stride=2), 16, stride=2)
    query, key, value = (
        layers.Reshape((64, width))(layers.Conv2D(width, 1, use_bias=False)(x)) for width in (8, 8, 16)
    )
    weights = layers.Softmax(axis=-1)(layers.Dot(axes=(2, 2))([query, key]))
    mixed = layers.Reshape((8, 8, 16))(layers.Dot(axes=(2, 1))([weights, value]))
    x = layers.Add()([x, layers.Conv2D(16, 3, padding="same")(mixed)])
    return finish(inputs, layers.UpSampling2D(4)(x), name="attention_layers")


def attention_ops() -> Any:
    """The same by ops on tensors."""
    inputs = image()
    x = conv(conv(inputs, 16, stride=2), 16, stride=2)
    query, key, value = (tf.reshape(layers.Conv2D(width, 1)(x), [-1, 64, width]) for width in (8, 8, 16))
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) * 0.35, axis=-1)
    mixed = tf.reshape(tf.matmul(weights, value), [-1, 8, 8, 16])
    return finish(inputs, layers.UpSampling2D(4)(x + layers.Conv2D(16, 3, padding="same")(mixed)), name="attention_ops")


def attention_lambda() -> Any:
    """The same in one lambda."""

    def attend(tensors: Any) -> Any:
        query, key, value = (tf.reshape(t, [tf.shape(t)[0], 64, t.shape[-1]]) for t in tensors)
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True), axis=-1)
        return tf.reshape(tf.matmul(weights, value), [tf.shape(value)[0], 8, 8, tensors[2].shape[-1]])

    inputs = image()
    x = conv(conv(inputs, 16, stride=2), 16, stride=2)
    mixed = layers.Lambda(attend)([layers.Conv2D(width, 1)(x) for width in (8, 8, 16)])
    return finish(inputs, layers.UpSampling2D(4)(layers.Add()([x, conv(mixed, 16)])), name="attention_lambda")


def aspp_resize() -> Any:
    """Atrous pyramid with global pooling and a resize to the size of another tensor."""
    inputs = image()
    x = conv(inputs, 16, stride=2)
    branches = [conv(x, 8, 3, dilation_rate=rate) for rate in (1, 2, 4)]
    pooled = conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 8, 1)
    branches.append(layers.Lambda(lambda pair: tf.image.resize(pair[0], tf.shape(pair[1])[1:3]))([pooled, x]))
    x = conv(layers.Concatenate()(branches), 16, 1)
    return finish(inputs, tf.image.resize(x, (32, 32)), name="aspp_resize")


def group_norm() -> Any:
    inputs = image()
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    x = layers.ReLU()(layers.GroupNormalization(4)(x))
    x = layers.Conv2D(12, 3, padding="same")(x)
    x = layers.ReLU()(layers.GroupNormalization(-1)(x))
    return finish(inputs, x, name="group_norm")


def slices_and_split() -> Any:
    inputs = image()
    x = conv(inputs, 16)
    low, high = x[..., :6], x[..., 6:]
    a, b = tf.split(conv(layers.Concatenate()([high, low]), 12), 2, axis=-1)
    c = tf.concat([layers.Conv2D(10, 3, padding="same")(a), b[..., ::2]], axis=-1)
    return finish(inputs, tf.nn.relu(c), name="slices_and_split")


def channel_shuffle() -> Any:
    """ShuffleNet's shuffle by layers and by ops, around convolutions in groups."""
    inputs = image()
    x = layers.Conv2D(16, 3, padding="same", groups=4, activation="relu")(conv(inputs, 16))
    x = layers.Reshape((32, 32, 4, 4))(x)
    x = layers.Reshape((32, 32, 16))(layers.Permute((1, 2, 4, 3))(x))
    x = conv(x, 16)
    x = tf.transpose(tf.reshape(x, [-1, 32, 32, 2, 8]), [0, 1, 2, 4, 3])
    return finish(inputs, conv(tf.reshape(x, [-1, 32, 32, 16]), 8), name="channel_shuffle")


def grouped() -> Any:
    inputs = image()
    x = layers.Conv2D(24, 3, padding="same", groups=4, activation="relu")(conv(inputs, 16))
    x = layers.Conv2D(24, 3, padding="same", groups=24)(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu")(x)
    x = layers.SeparableConv2D(16, 3, padding="same", depth_multiplier=2)(x)
    return finish(inputs, layers.Conv2DTranspose(8, 3, padding="same", activation="tanh")(x), name="grouped")


def space_depth() -> Any:
    inputs = image()
    x = layers.Lambda(lambda t: tf.nn.space_to_depth(t, 2))(conv(inputs, 8))
    x = conv(x, 16)
    return finish(inputs, conv(tf.nn.depth_to_space(x, 2), 8), name="space_depth")


@keras.utils.register_keras_serializable("tfprune_tests")
class Swish(layers.Layer):
    """A layer of the user's without weights."""

    def call(self, inputs: Any) -> Any:
        return inputs * tf.sigmoid(inputs)


@keras.utils.register_keras_serializable("tfprune_tests")
class ChannelScale(layers.Layer):
    """A layer of the user's with weights, which no rule knows."""

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(name="gamma", shape=shape[-1:], initializer="ones")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma


@keras.utils.register_keras_serializable("tfprune_tests")
class StandardizedConv(layers.Conv2D):
    """A subclass of Conv2D that computes something else."""

    def call(self, inputs: Any) -> Any:
        kernel = self.kernel - tf.reduce_mean(self.kernel, axis=(0, 1, 2))
        return tf.nn.conv2d(inputs, kernel, 1, "SAME") + self.bias


def subclassed_layers() -> Any:
    inputs = image()
    x = Swish()(conv(inputs, 12))
    x = ChannelScale()(conv(x, 8))
    x = StandardizedConv(8, 3, padding="same")(conv(x, 10))
    return finish(inputs, conv(x, 12), name="subclassed_layers")


def flatten_dense() -> Any:
    """A bottleneck of Flatten, Dense and Reshape."""
    inputs = image()
    x = conv(conv(conv(inputs, 8, stride=2), 8, stride=2), 6, stride=2)
    x = layers.Dense(24, activation="relu")(layers.Flatten()(x))
    x = layers.Reshape((4, 4, 8))(layers.Dense(4 * 4 * 8)(x))
    return finish(inputs, layers.UpSampling2D(8)(conv(x, 12)), name="flatten_dense")


def odd_activations() -> Any:
    """Functions that are not zero at zero, softmax over channels, PReLU, squeeze and excite."""
    inputs = image()
    x = conv(inputs, 12, activation="sigmoid")
    x = layers.Conv2D(12, 3, padding="same", activation="softplus")(x) * 2 - 1
    x = layers.PReLU(shared_axes=(1, 2))(conv(x, 12, activation="linear"))
    gate = layers.Dense(12, activation="sigmoid")(
        layers.Dense(6, activation="relu")(layers.GlobalAveragePooling2D()(x))
    )
    x = layers.Multiply()([x, layers.Reshape((1, 1, 12))(gate)])
    x = layers.Conv2D(8, 3, padding="same", activation="softmax")(x)
    return finish(inputs, layers.PReLU()(conv(x, 10)), name="odd_activations")


def dynamic_size() -> Any:
    inputs = image((None, None))
    skip = conv(inputs, 8)
    x = conv(layers.MaxPooling2D()(skip), 12)
    size = tf.shape(skip)
    x = tf.image.resize(x, (size[1], size[2]))
    tokens = tf.reshape(x, [size[0], size[1] * size[2], 12])
    tokens = tf.reshape(layers.Dense(12, activation="relu")(tokens), [size[0], size[1], size[2], 12])
    return finish(inputs, layers.Concatenate()([tokens, skip]), name="dynamic_size")


def dictionaries() -> Any:
    """Dictionaries in and out, two heads, one of them with an activation."""
    inputs = {"image": image(), "depth": layers.Input((32, 32, 1), name="depth")}
    x = conv(layers.Concatenate()([inputs["image"], inputs["depth"]]), 12)
    outputs = {
        "edges": layers.Conv2D(1, 1, activation="sigmoid", name="edges")(conv(x, 8)),
        "classes": layers.Softmax(name="classes")(layers.Conv2D(3, 1, name="class_logits")(conv(x, 8))),
    }
    return keras.Model(inputs, outputs, name="dictionaries")


def regularized() -> Any:
    """Regularizers, constraints, frozen layers and a frozen nested model."""
    inner_in = layers.Input((32, 32, 12))
    inner = keras.Model(inner_in, conv(inner_in, 12), name="backbone")
    inner.trainable = False
    inputs = image()
    x = conv(inputs, 12, kernel_regularizer=keras.regularizers.l2(1e-3), kernel_constraint=keras.constraints.MaxNorm(3))
    x = inner(x)
    frozen = layers.Conv2D(8, 3, padding="same", name="frozen")
    frozen.trainable = False
    return finish(inputs, frozen(x), name="regularized")


def mixed_precision() -> Any:
    policy = keras.mixed_precision.Policy("mixed_float16")
    inputs = image()
    x = layers.Conv2D(12, 3, padding="same", dtype=policy)(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.ReLU(dtype=policy)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", dtype=policy)(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="logits", dtype="float32")(x), name="mixed_precision")


def cbam() -> Any:
    """CBAM: a shared dense gate on channels, then a map of the mean and the maximum over channels."""
    inputs = image()
    x = conv(inputs, 16)
    first, second = layers.Dense(4, activation="relu"), layers.Dense(16)
    average = second(first(layers.GlobalAveragePooling2D()(x)))
    largest = second(first(layers.GlobalMaxPooling2D()(x)))
    gate = layers.Reshape((1, 1, 16))(layers.Activation("sigmoid")(layers.Add()([average, largest])))
    x = layers.Multiply()([x, gate])
    maps = tf.concat([tf.reduce_mean(x, -1, keepdims=True), tf.reduce_max(x, -1, keepdims=True)], -1)
    x = layers.Multiply()([x, layers.Conv2D(1, 7, padding="same", activation="sigmoid")(maps)])
    return finish(inputs, conv(x, 12), name="cbam")


def scse() -> Any:
    """Concurrent spatial and channel gates: (1, 1, C) and (H, W, 1)."""
    inputs = image()
    x = conv(inputs, 16)
    channel = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    channel = layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid")(channel)])
    space = layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)])
    return finish(inputs, conv(layers.Add()([channel, space]), 12), name="scse")


def multi_head() -> Any:
    """Keras' own multi-head attention beside layers that can be cut."""
    inputs = image()
    x = conv(conv(inputs, 12, stride=4), 16)
    tokens = layers.LayerNormalization()(layers.Reshape((64, 16))(x))
    tokens = layers.MultiHeadAttention(2, 8)(tokens, tokens)
    hidden = layers.Dense(16)(layers.Dense(32, activation="gelu")(tokens))
    x = layers.Reshape((8, 8, 16))(layers.Add()([tokens, hidden]))
    return finish(inputs, layers.UpSampling2D(4)(conv(x, 12)), name="multi_head")


def heads_by_hand() -> Any:
    """Multi-head attention by reshape and transpose: channels lie on two axes for a while."""
    inputs = image()
    x = layers.Reshape((64, 16))(conv(conv(inputs, 12, stride=4), 16))
    query, key, value = (layers.Permute((2, 1, 3))(layers.Reshape((64, 2, 8))(layers.Dense(16)(x))) for _ in range(3))
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) * 0.35)
    mixed = layers.Reshape((64, 16))(layers.Permute((2, 1, 3))(tf.matmul(weights, value)))
    x = layers.Reshape((8, 8, 16))(layers.Add()([x, layers.Dense(16)(mixed)]))
    return finish(inputs, layers.UpSampling2D(4)(conv(x, 12)), name="heads_by_hand")


def multiplier_and_twice() -> Any:
    """Depth multiplier on a wide input, and a tensor joined with itself."""
    inputs = image()
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4)(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(conv(x, 8))
    x = conv(layers.Concatenate()([x, x]), 12)
    return finish(inputs, layers.Average()([x, x]), name="multiplier_and_twice")


def signal() -> Any:
    """One dimension."""
    inputs = layers.Input((64, 4), name="signal")
    x = layers.Conv1D(16, 5, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling1D()(x))
    x = layers.UpSampling1D()(layers.SeparableConv1D(12, 3, padding="same", activation="elu")(x))
    return keras.Model(inputs, layers.Conv1D(3, 1, name="logits")(x), name="signal")


def convnext() -> Any:
    """ConvNeXt blocks: layer norm keeps the trunk whole, the wide dense layers can be cut."""
    inputs = image()
    x = layers.Conv2D(12, 4, strides=4)(inputs)
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
        x = layers.Add()([x, layers.Dense(12)(layers.Dense(48, activation="gelu")(y))])
    return finish(inputs, layers.UpSampling2D(4)(conv(x, 16)), name="convnext")


def scalars_and_added_loss() -> Any:
    """A tensor without axes that all pictures share, and a loss that no output hangs on."""
    inputs = image()
    x = conv(inputs, 16)
    x = conv(x / (tf.reduce_max(tf.abs(x)) + 1.0), 16)
    net = finish(inputs, x, name="scalars_and_added_loss")
    net.add_loss(tf.reduce_mean(tf.square(x)))
    return net


def numbers_per_channel() -> Any:
    """Constants for each channel in the middle: in ops, as array, tensor and list, and in configs of layers."""
    inputs = image()
    x = conv(inputs, 8)
    x = (x - np.linspace(-1, 1, 8, dtype=np.float32)) / tf.constant(np.linspace(1, 2, 8), tf.float32)
    x = conv(x * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 8)
    x = conv(layers.Rescaling(np.linspace(1, 2, 8).tolist(), offset=0.5)(x), 8)
    x = conv(layers.Normalization(mean=np.linspace(-1, 1, 8), variance=np.linspace(1, 2, 8))(x), 8)
    x = tf.nn.bias_add(conv(tf.pow(x + 1.0, np.linspace(0.5, 2, 8, dtype=np.float32)), 8), tf.linspace(-1.0, 1.0, 8))
    x = conv(tf.where(x > np.linspace(0, 1, 8, dtype=np.float32), x, np.linspace(0, 0.1, 8, dtype=np.float32)), 8)
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(1.0, 2.0, (8, 4, 4, 8)).astype(np.float32))
    return finish(inputs, adapted(x), name="numbers_per_channel")


def enet_and_blur() -> Any:
    """ENet's shortcut, padded with channels of zeros by permuting, and pooling behind a fixed blur."""
    inputs = image()
    x = conv(inputs, 8)
    main = layers.Permute((1, 3, 2))(layers.ZeroPadding2D(((0, 0), (0, 4)))(layers.Permute((1, 3, 2))(x)))
    x = conv(layers.Add()([main, conv(conv(x, 8), 12, activation="linear")]), 16)
    binomial = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    x = tf.nn.depthwise_conv2d(x, np.tile(binomial[:, :, None, None], (1, 1, 16, 1)), [1, 2, 2, 1], "SAME")
    return finish(inputs, layers.UpSampling2D()(conv(x, 8)), name="enet_and_blur")


def half_precision_ops() -> Any:
    """Casts and constants of ops in half precision."""
    policy = keras.mixed_precision.Policy("mixed_float16")
    inputs = image()
    x = layers.Conv2D(8, 3, padding="same", activation="relu", dtype=policy)(inputs)
    x = x * tf.constant(np.linspace(1, 2, 8), tf.float16) + tf.cast(conv(inputs, 8), "float16")
    x = layers.Conv2D(16, 3, padding="same", dtype=policy)(x)
    return finish(inputs, tf.cast(x, tf.float32), name="half_precision_ops")


TOPOLOGIES: dict[str, Callable[[], Any]] = {
    build.__name__: build
    for build in (
        *(residual, nested, siamese, unet_plus_plus, attention_layers, attention_ops, attention_lambda),
        *(aspp_resize, group_norm, slices_and_split, channel_shuffle, grouped, space_depth, subclassed_layers),
        *(flatten_dense, odd_activations, dynamic_size, dictionaries, regularized, mixed_precision, cbam, scse),
        *(multi_head, heads_by_hand, multiplier_and_twice, signal, convnext, scalars_and_added_loss),
        *(numbers_per_channel, half_precision_ops, enet_and_blur),
    )
}
