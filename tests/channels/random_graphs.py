"""Random graphs from a seed: every kind of call that the rules and the probes know, wired at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.channels.topologies import randomize
from tfprune.keras import keras, tf

layers = keras.layers
SIZE = 8


class Draw:
    """Draws a graph: a pool of tensors of one size, to which every step adds one."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.image = layers.Input((SIZE, SIZE, 3))
        self.pool = [layers.Conv2D(self.width(), 3, padding="same")(self.image)]
        self.shared: list[tuple[int, Any]] = []

    def width(self) -> int:
        return int(self.rng.choice([4, 6, 8, 12]))

    def one(self) -> Any:
        """A tensor of the pool, a recent one more often than an old one."""
        return self.pool[-1 - min(int(self.rng.geometric(0.5)) - 1, len(self.pool) - 1)]

    def fitted(self, x: Any, width: int) -> Any:
        return x if x.shape[-1] == width else layers.Conv2D(width, 1)(x)

    def conv(self) -> Any:
        activation = self.rng.choice(["linear", "relu", "sigmoid", "softplus", "swish", "tanh"])
        return layers.Conv2D(self.width(), self.kernel(), padding="same", activation=str(activation))(self.one())

    def kernel(self) -> int:
        return int(self.rng.choice([1, 3]))

    def norm(self) -> Any:
        return layers.BatchNormalization()(self.one())

    def group_norm(self) -> Any:
        return layers.GroupNormalization(int(self.rng.choice([1, 2])))(self.one())

    def layer_norm(self) -> Any:
        return layers.LayerNormalization()(self.one())

    def activation(self) -> Any:
        names = ["relu", "sigmoid", "elu", "softmax", "gelu"]
        return layers.Activation(str(self.rng.choice(names)))(self.one())

    def prelu(self) -> Any:
        return layers.PReLU(shared_axes=[(1, 2), None][int(self.rng.integers(2))])(self.one())

    def depthwise(self) -> Any:
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(self.rng.integers(1, 3)))(self.one())

    def separable(self) -> Any:
        return layers.SeparableConv2D(self.width(), 3, padding="same")(self.one())

    def grouped(self) -> Any:
        x = self.one()
        groups = int(self.rng.choice([2, x.shape[-1]]))
        return layers.Conv2D(x.shape[-1] * int(self.rng.integers(1, 3)), 3, padding="same", groups=groups)(x)

    def transposed(self) -> Any:
        x = layers.MaxPooling2D()(self.one())
        return layers.Conv2DTranspose(self.width(), 2, strides=2)(x)

    def pooled(self) -> Any:
        x = [layers.MaxPooling2D, layers.AveragePooling2D][int(self.rng.integers(2))](padding="same")(self.one())
        if self.rng.integers(2):
            return layers.UpSampling2D(interpolation=str(self.rng.choice(["nearest", "bilinear"])))(x)
        return tf.image.resize(x, (SIZE, SIZE))

    def merge(self) -> Any:
        a = self.one()
        kinds = [layers.Add, layers.Multiply, layers.Maximum, layers.Average, layers.Subtract]
        return kinds[int(self.rng.integers(len(kinds)))]()([a, self.fitted(self.one(), a.shape[-1])])

    def op(self) -> Any:
        a = self.one()
        b = self.fitted(self.one(), a.shape[-1])
        return [a + b, a * 2.0 - 1.0, tf.nn.relu(a) - b, tf.concat([a, b], -1)][int(self.rng.integers(4))]

    def concat(self) -> Any:
        return layers.Concatenate()([self.one() for _ in range(int(self.rng.integers(2, 4)))])

    def gate(self) -> Any:
        x = self.one()
        gate = layers.GlobalAveragePooling2D(keepdims=bool(self.rng.integers(2)))(x)
        gate = layers.Dense(x.shape[-1], activation="sigmoid")(layers.Dense(4, activation="relu")(gate))
        return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(gate)])

    def spatial_gate(self) -> Any:
        x = self.one()
        return layers.Multiply()([x, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)])

    def split(self) -> Any:
        x = self.one()
        first, second = tf.split(x, 2, axis=-1)
        return layers.Concatenate()([second, first]) if self.rng.integers(2) else first * second

    def slice(self) -> Any:
        x = self.one()
        start = int(self.rng.integers(0, x.shape[-1] // 2))
        return x[..., start :: int(self.rng.integers(1, 3))]

    def lambda_slice(self) -> Any:
        return layers.Lambda(lambda t: tf.nn.relu(t[..., :3]))(self.one())

    def shuffle(self) -> Any:
        x = self.one()
        y = layers.Reshape((SIZE, SIZE, 2, x.shape[-1] // 2))(x)
        return layers.Reshape((SIZE, SIZE, x.shape[-1]))(layers.Permute((1, 2, 4, 3))(y))

    def space(self) -> Any:
        x = tf.nn.space_to_depth(self.one(), 2)
        return tf.nn.depth_to_space(layers.Conv2D(16, 1)(x) if self.rng.integers(2) else x, 2)

    def reduce(self) -> Any:
        kind = [tf.reduce_mean, tf.reduce_sum, tf.reduce_max][int(self.rng.integers(3))]
        x = self.one()
        return tf.concat([kind(x, axis=-1, keepdims=True), x], -1)

    def nested(self) -> Any:
        x, width = self.one(), self.width()
        inner = layers.Input((SIZE, SIZE, x.shape[-1]))
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(inner)))
        y = layers.Add()([y, layers.Conv2D(width, 1)(y)]) if self.rng.integers(2) else y
        model = keras.Model(inner, y)
        self.shared.append((x.shape[-1], model))
        return model(x)

    def shared_conv(self) -> Any:
        x = self.one()
        layer = layers.Conv2D(x.shape[-1], 3, padding="same")
        self.shared.append((x.shape[-1], layer))
        return layer(layers.ReLU()(layer(x)))

    def again(self) -> Any:
        """Call a shared layer or nested model once more."""
        if not self.shared:
            return self.conv()
        width, layer = self.shared[int(self.rng.integers(len(self.shared)))]
        return layer(self.fitted(self.one(), width))

    def flatten(self) -> Any:
        x = layers.Flatten()(layers.MaxPooling2D(4)(self.one()))
        x = layers.Dense(4 * 4, activation="relu")(x)
        return layers.UpSampling2D(4)(layers.Reshape((2, 2, 4))(x))

    def dot(self) -> Any:
        x = self.one()
        query, key = (tf.reshape(layers.Conv2D(4, 1)(x), [-1, SIZE * SIZE, 4]) for _ in range(2))
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
        value = tf.reshape(x, [-1, SIZE * SIZE, x.shape[-1]])
        return tf.reshape(tf.matmul(weights, value), [-1, SIZE, SIZE, x.shape[-1]])

    def arrays(self) -> Any:
        """Ops with an array that has numbers per channel."""
        x = self.one()
        numbers = self.rng.uniform(0.5, 2, x.shape[-1]).astype(np.float32)
        kinds: list[Callable[[], Any]] = [
            lambda: x * numbers.tolist() - numbers,
            lambda: tf.pow(tf.abs(x) + 0.5, numbers),
            lambda: tf.nn.bias_add(x, tf.constant(numbers)),
            lambda: tf.where(x > numbers, x, numbers * 0.1),
            lambda: tf.nn.depthwise_conv2d(x, np.tile(numbers[:, None], (3, 3, 1, 1)), [1, 1, 1, 1], "SAME"),
            lambda: tf.concat([x, tf.broadcast_to(numbers, tf.shape(x))], -1),
        ]
        return kinds[int(self.rng.integers(len(kinds)))]()

    def padded(self) -> Any:
        """Channels of zeros, put behind the others while those stand on another axis."""
        x = layers.Permute((1, 3, 2))(self.one())
        return layers.Permute((1, 3, 2))(layers.ZeroPadding2D(((0, 0), (int(self.rng.integers(3)), 4)))(x))

    def odd_lambda(self) -> Any:
        """Lambdas that look harmless, and some that are not."""
        functions: list[Callable[[Any], Any]] = [
            lambda t: t / (1e-3 + tf.reduce_max(tf.abs(t))),
            lambda t: tf.cumsum(t, axis=-1),
            lambda t: tf.reverse(t, axis=[-1]),
            lambda t: tf.roll(t, 1, axis=-1),
            lambda t: t - tf.reduce_mean(t, axis=[1, 2], keepdims=True),
            lambda t: tf.where(tf.reduce_sum(t) > 1e6, t, -t),
            lambda t: tf.concat([tf.nn.relu(t), tf.nn.relu(-t)], -1),
        ]
        return layers.Lambda(functions[int(self.rng.integers(len(functions)))])(self.one())


STEPS = [name for name in vars(Draw) if not name.startswith("_") and name not in ("width", "one", "fitted", "kernel")]


def random_graph(seed: int) -> Any:
    """Return a net of 4 to 14 random calls with random weights; the same seed gives the same net."""
    keras.utils.set_random_seed(seed)
    draw = Draw(seed)
    for _ in range(int(draw.rng.integers(4, 15))):
        made = getattr(draw, str(draw.rng.choice(STEPS)))()
        fits = made.shape[-1] <= 48 and made.shape[-1] % 4 == 0
        draw.pool.append(made if fits else layers.Conv2D(8, 1)(made))
    x = layers.Concatenate()([draw.pool[-1], draw.pool[-2]])
    return randomize(keras.Model(draw.image, layers.Conv2D(2, 1, name="logits")(x), name=f"random_{seed}"), seed=seed)
