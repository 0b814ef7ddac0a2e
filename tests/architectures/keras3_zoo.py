"""Models of Keras 3, saved as files: twenty of the kinds that people bring, and some to be refused.

Runs in a process of its own, since tfprune's has tf_keras, and describes there what can be described:

    python -m tests.architectures.keras3_zoo FOLDER NAME...

NAME.keras is the model, NAME_check.npz an input of its own and what Keras 3 makes of it in float64, and for all but the
encoders NAME.npz is what `keras3.describe_file` would return.

Inputs are small. Weights are random, those of norms too: with zeros and ones many a mistake would not show.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures.keras3_process import describe_model, in_precision

ENCODERS = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0"),
    *("ResNet50", "ResNet50V2", "DenseNet121", "VGG16", "Xception", "InceptionV3", "ConvNeXtTiny", "NASNetMobile"),
)
_SMALLEST = {"Xception": 96, "InceptionV3": 96}


def encoder(name: str) -> Any:
    """A net of keras.applications under a segmentation head."""
    import keras

    size = _SMALLEST.get(name, 64)
    body = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    x = keras.layers.Conv2D(3, 1, name="small_logits")(body.output)
    return keras.Model(body.input, keras.layers.Resizing(size, size, name="logits")(x), name=name.lower())


def block(x: Any, width: int, *, norm: str = "BatchNormalization", activation: Any = "relu", **options: Any) -> Any:
    from keras import layers

    x = layers.Conv2D(width, 3, padding="same", use_bias=False, **options)(x)
    x = getattr(layers, norm)(**({"groups": 4} if norm == "GroupNormalization" else {}))(x)
    return layers.Activation(activation)(x) if isinstance(activation, str) else activation(x)


def finish(image: Any, x: Any, name: str) -> Any:
    import keras

    return keras.Model(image, keras.layers.Conv2D(3, 1, name="logits")(x), name=name)


def unet() -> Any:
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    x, skips = layers.Rescaling(1 / 255)(image), []
    for width in (8, 16):
        x = block(block(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.2)(block(x, 32))
    for width, skip in zip((16, 8), reversed(skips), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), skip])
        x = block(x, width)
    return finish(image, x, "unet")


def squeeze_excitation() -> Any:
    """Gates as layers and as operators, with the hard sigmoid that Keras 3 defines anew."""
    from keras import layers, ops

    image = layers.Input((64, 64, 3), name="image")
    x = block(image, 16)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="relu")(gate))
    x = layers.Multiply()([x, gate])
    gate = ops.mean(x, axis=(1, 2), keepdims=True)
    x = x * ops.sigmoid(layers.Conv2D(16, 1)(gate)) + 0.5 * x
    return finish(image, x, "squeeze_excitation")


def separable() -> Any:
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    x = layers.SeparableConv2D(16, 3, padding="same", depth_multiplier=2, activation="relu")(image)
    x = layers.DepthwiseConv2D(5, strides=2, padding="same", depth_multiplier=2)(x)
    x = layers.BatchNormalization(scale=False)(layers.ZeroPadding2D(((0, 1), (1, 0)))(x))
    x = layers.Conv2D(32, 3, groups=4, dilation_rate=2, padding="same", activation="relu6")(x)
    x = layers.Cropping2D(((0, 1), (1, 0)))(layers.SpatialDropout2D(0.1)(x))
    return finish(image, layers.UpSampling2D(interpolation="nearest")(x), "separable")


def norms() -> Any:
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    x = layers.Normalization(mean=[110.0, 120.0, 130.0], variance=[900.0, 1600.0, 2500.0])(image)
    x = block(x, 8, norm="GroupNormalization", activation="silu")
    x = block(x, 12, norm="LayerNormalization", activation="gelu")
    x = layers.GroupNormalization(groups=-1)(layers.UnitNormalization()(x))
    return finish(image, x, "norms")


def resizing() -> Any:
    """Sizes that change by layers, by operators and by pooling."""
    from keras import layers, ops

    image = layers.Input((64, 64, 3), name="image")
    x = block(layers.Resizing(48, 40)(image), 8)
    x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
    x = ops.image.resize(x, (30, 30), interpolation="bilinear")
    x = layers.Resizing(16, 16, interpolation="nearest")(block(x, 8))
    x = layers.Concatenate()([x, layers.MaxPooling2D(4)(block(image, 8))])
    return finish(image, layers.UpSampling2D(4, interpolation="bicubic")(x), "resizing")


def transposed() -> Any:
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    x = layers.Conv2D(8, 4, strides=4)(image)
    x = layers.Conv2DTranspose(12, 3, strides=2, padding="same", activation="elu")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, use_bias=False)(x)
    x = layers.Conv2DTranspose(8, 5, padding="valid")(x)
    return finish(image, layers.Cropping2D(2)(layers.BatchNormalization()(x)), "transposed")


def activations() -> Any:
    """Every activation of note, most of them written in more than one way."""
    from keras import layers, ops

    image = layers.Input((64, 64, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = block(x, 8, activation=layers.PReLU(shared_axes=[1, 2]))
    x = block(x, 8, activation=layers.LeakyReLU(negative_slope=0.15))
    x = block(x, 8, activation=layers.ReLU(max_value=4, negative_slope=0.1, threshold=0.1))
    x = block(x, 8, activation=layers.ELU(0.7))
    x = layers.Conv2D(8, 1, activation=ops.hard_silu)(x)
    names = ("hard_silu", "hard_sigmoid", "silu", "gelu", "mish", "softplus", "softsign", "tanh", "selu")
    names += ("leaky_relu", "exponential", "relu6", "sigmoid", "elu", "log_sigmoid", "softmax")
    parts = [layers.Activation(name)(layers.Conv2D(4, 1)(x)) for name in names]
    parts += [ops.relu6(parts[0]), ops.leaky_relu(x, negative_slope=0.3), ops.hard_sigmoid(parts[1])]
    return finish(image, layers.Softmax()(layers.Concatenate()(parts)), "activations")


def operators() -> Any:
    """Arithmetic on tensors, reshapes and slices, which Keras 3 saves as operations without weights."""
    from keras import layers, ops

    image = layers.Input((64, 64, 3), name="image")
    x = block((image - np.array([127.5, 120.0, 110.0])) / 127.5, 8)
    x = ops.concatenate([ops.max(x, axis=-1, keepdims=True), ops.mean(x, axis=-1, keepdims=True), x], axis=-1)
    x = ops.transpose(ops.reshape(x, (-1, 64, 64, 5, 2)), (0, 1, 2, 4, 3))  # a channel shuffle
    x = ops.reshape(x, (-1, 64, 64, 10))
    x = block(x[..., 2:] + 1 - 0.5 * x[:, :, :, :8] ** 2, 8)
    left, right = ops.split(x, 2, axis=-1)
    x = ops.concatenate([ops.maximum(left, right), ops.clip(left, -1, 1), -right, abs(left)], axis=-1)
    x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
    x = 1.0 / (1.0 + ops.exp(-layers.Conv2D(8, 3)(x)))
    return finish(image, ops.square(x) + ops.sqrt(x) + ops.squeeze(ops.expand_dims(x, 1), 1), "operators")


def nested() -> Any:
    """Models in models, one of them and one layer called more than once, one with its norms held still."""
    import keras
    from keras import layers, ops

    image = layers.Input((None, None, 8))
    x = block(block(image, 12), 8, activation="hard_silu")
    inner = keras.Model(image, 0.5 * x + ops.relu(x) * x, name="inner")
    image = layers.Input((None, None, 3))
    x = inner(layers.Conv2D(8, 1)(image))
    outer = keras.Model(image, layers.Concatenate()([x, inner(x)]), name="outer")
    tail = keras.Sequential([layers.Conv2D(8, 3, padding="same"), layers.ReLU()], name="tail")
    shared = layers.Conv2D(8, 3, padding="same", activation="hard_sigmoid", name="shared")
    image = layers.Input((64, 64, 3), name="image")
    x = shared(tail(outer(layers.Rescaling(1 / 255)(image), training=False)))
    x = layers.Add()([x, layers.UpSampling2D()(shared(layers.MaxPooling2D()(x)))])
    return finish(image, x, "nested")


def shared_across_models() -> Any:
    """A layer in a model and outside of it: Keras 3 saves that, and does not load it again."""
    import keras
    from keras import layers

    image = layers.Input((64, 64, 8))
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    inner = keras.Model(image, shared(image), name="inner")
    image = layers.Input((64, 64, 3), name="image")
    return finish(image, inner(shared(layers.Conv2D(8, 1)(image))), "shared_across_models")


def two_heads() -> Any:
    """Two inputs and two outputs, by name."""
    import keras
    from keras import layers

    images = {"left": layers.Input((64, 64, 3), name="left"), "right": layers.Input((64, 64, 1), name="right")}
    x = layers.Concatenate()([block(images["left"], 8), block(images["right"], 4)])
    heads = {"mask": layers.Conv2D(2, 1, name="mask")(x), "edge": layers.Conv2D(1, 1, name="edge")(x)}
    return keras.Model(images, heads, name="two_heads")


def sequential() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((None, None, 3)),
            layers.Conv2D(8, 3, padding="same", activation="hard_silu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Conv2D(3, 1, activation="softmax"),
        ],
        name="sequential",
    )


def attention() -> Any:
    """A transformer block on the pixels of a small map."""
    from keras import layers

    image = layers.Input((32, 32, 3), name="image")
    x = layers.Reshape((64, 16))(layers.Conv2D(16, 4, strides=4)(image))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(num_heads=2, key_dim=8)(x, x)])
    x = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    return finish(image, layers.UpSampling2D(4)(layers.Reshape((8, 8, 16))(x)), "attention")


def mixed_precision() -> Any:
    import keras

    keras.config.set_dtype_policy("mixed_float16")
    try:
        return unet()
    finally:
        keras.config.set_dtype_policy("float32")


def lambda_layer() -> Any:
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    return finish(image, layers.Lambda(lambda x: x / 255, name="shrink_values")(image), "lambda_layer")


def own_layer() -> Any:
    import keras
    from keras import layers

    class Doubled(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    image = layers.Input((64, 64, 3), name="image")
    return finish(image, Doubled(name="my_doubled")(image), "own_layer")


def own_activation() -> Any:
    import keras
    from keras import layers

    @keras.saving.register_keras_serializable("tests")
    def cubed(x: Any) -> Any:
        return x**3

    image = layers.Input((64, 64, 3), name="image")
    return finish(image, layers.Conv2D(4, 1, activation=cubed, name="strange_conv")(image), "own_activation")


def no_counterpart() -> Any:
    """A layer that only Keras 3 has."""
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    return finish(image, layers.RMSNormalization(name="rms")(image), "no_counterpart")


def antialiased() -> Any:
    """A layer that both have, with an option that only Keras 3 has."""
    from keras import layers

    image = layers.Input((64, 64, 3), name="image")
    return finish(image, layers.Resizing(32, 32, antialias=True, name="smooth")(image), "antialiased")


ENCODER_NAMES = tuple(name.lower() for name in ENCODERS)
MODELS: dict[str, Callable[[], Any]] = {
    **{name.lower(): lambda name=name: encoder(name) for name in ENCODERS},
    **{
        build.__name__: build
        for build in (
            *(unet, squeeze_excitation, separable, norms, resizing, transposed, activations),
            *(operators, nested, two_heads, sequential, attention, mixed_precision),
            *(lambda_layer, own_layer, own_activation, no_counterpart, antialiased, shared_across_models),
        )
    },
}
SMALL = ("unet", "squeeze_excitation", "separable", "norms", "resizing", "transposed", "activations", "operators")
SMALL += ("nested", "two_heads", "sequential", "attention", "mixed_precision")
REFUSED = ("lambda_layer", "own_layer", "own_activation", "no_counterpart", "antialiased", "shared_across_models")
"""Those that must not load, by the name of a layer."""


def randomize(model: Any, *, seed: int = 0) -> Any:
    """Give norms, biases and slopes random numbers, such that what is in a picture still reaches the output.

    Batch norms first get the statistics of random pictures: under others the values vanish in a deep net.
    """
    rng = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "variance": (0.5, 1.5), "alpha": (0.0, 0.4)}
    for variable in model.variables:
        if variable.name in ranges:
            variable.assign(rng.uniform(*ranges[variable.name], variable.shape))
        elif variable.name in ("beta", "mean", "bias"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    norms = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_variance")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    pictures = [random_pictures(rng, 24, item.shape[1:]) for item in model.inputs]
    model(packed(model, pictures), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        deviation = np.sqrt(np.asarray(norm.moving_variance))
        norm.moving_mean.assign_add(rng.normal(0, 0.05, deviation.shape) * deviation)
        norm.moving_variance.assign((rng.uniform(0.95, 1.05, deviation.shape) * deviation) ** 2)
    return model


def random_pictures(rng: np.random.Generator, count: int, shape: tuple[int | None, int | None, int]) -> np.ndarray:
    """Return pictures of coarse squares and noise, 0..255: of noise alone a deep layer sees its mean only."""
    height, width, channels = (edge or 64 for edge in shape)
    coarse = rng.uniform(0, 255, (count, height // 16, width // 16, channels))
    noise = rng.uniform(0, 255, (count, height, width, channels))
    return (coarse.repeat(16, axis=1).repeat(16, axis=2) * 0.7 + noise * 0.3).astype(np.float32)


def packed(model: Any, arrays: list[np.ndarray]) -> Any:
    """Return inputs in the structure that the model was built with."""
    import keras

    return keras.tree.pack_sequence_as(getattr(model, "_functional", model).input, arrays)


def write(name: str, folder: Path) -> None:
    """Write one model, and what is known of it."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = randomize(MODELS[name]())
    model.save(folder / f"{name}.keras")
    if name == "unet":
        model.save(folder / f"{name}.h5")
    if name in REFUSED and name != "antialiased":
        return
    loaded = keras.saving.load_model(folder / f"{name}.keras", compile=False)
    if name not in ENCODER_NAMES:
        np.savez(folder / f"{name}.npz", **describe_model(loaded, precision="float64"))
    rng, exact = np.random.default_rng(1), in_precision(loaded, "float64")
    inputs = [random_pictures(rng, 2, item.shape[1:]) for item in loaded.inputs]
    outputs = keras.tree.flatten(exact(packed(exact, inputs), training=False))
    check = {f"input/{index}": value for index, value in enumerate(inputs)}
    check |= {f"output/{index}": np.asarray(value) for index, value in enumerate(outputs)}
    np.savez(folder / f"{name}_check.npz", **check)


def main(folder: str, *names: str) -> None:
    """Write the models named into the folder."""
    for name in names:
        write(name, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
