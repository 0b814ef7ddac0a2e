"""The layers of Keras 3 and what computes the same in tf_keras, class by class.

`LAYERS` maps a class to a function that builds the counterpart of one layer. A class that is not there, and an
option that tf_keras has not got, are refused by the layer's name. Operations without weights (`x + 3`,
`keras.ops.mean`) are in `tfprune.architectures.keras3_operations`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.keras import keras

Call = Callable[..., Any]

WAY_OUT = (
    "Use another layer where the model is built, or build the model with tf_keras "
    "(TF_USE_LEGACY_KERAS=1 in the environment), load the weights there and save it again."
)


@dataclass(frozen=True)
class Source:
    """A layer or operation of a Keras 3 model.

    `defaults` are those of its class, `taken` all names in use, `precision` the float type of the model to be.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    weights: list[np.ndarray]
    taken: set[str] = field(repr=False)
    precision: str = "float32"
    trust: bool = False

    def refuse(self, what: str) -> InputError:
        """Return the error for something about this layer that has no counterpart."""
        return InputError(f"layer '{self.name}' ({self.kind} of Keras 3) {what}. {WAY_OUT}")

    def number(self, value: Any) -> Any:
        """Return a constant (or one per channel) in the precision of the model; Keras rounds plain ones to float32."""
        if self.precision == "float64":
            return np.asarray(value, np.float64)[()]
        return np.asarray(value).tolist()

    def fresh_name(self, suffix: str) -> str:
        """Return a name for a layer more than the Keras 3 model has, the same at every load."""
        name, number = f"{self.name}_{suffix}", 0
        while name in self.taken:
            number += 1
            name = f"{self.name}_{suffix}_{number}"
        self.taken.add(name)
        return name


@dataclass(frozen=True)
class Counterpart:
    """What is called in place of a Keras 3 layer, and the layer in it that gets the weights."""

    call: Call
    layer: Any = None
    weights: list[np.ndarray] = field(default_factory=list)


def same_layer(source: Source, *, renamed: Mapping[str, str] | None = None) -> Counterpart:
    """Build the tf_keras layer of the same class from the options that both have."""
    cls = getattr(keras.layers, source.kind)
    options, activation = {}, None
    accepted = _parameters(cls) | {"name", "trainable", "activity_regularizer"}
    for key, value in source.config.items():
        name = (renamed or {}).get(key, key)
        if key == "activation":
            options[key], activation = _activation(source, value)
        elif name in accepted:
            _set_option(options, name, value, source)
        elif key not in _ABOUT_KERAS and value not in (None, False, source.defaults.get(key)):
            raise source.refuse(f"has the option {key}={value!r}, which tf_keras has not")
    if source.config.get("data_format") == "channels_first":
        raise source.refuse("has data_format='channels_first'; tfprune works on (N, H, W, C)")
    layer = cls(**options)
    call = layer if activation is None else lambda *args, **kwargs: activation(layer(*args, **kwargs))
    return Counterpart(call, layer, source.weights)


_ABOUT_KERAS = ("dtype", "autocast", "data_format")


def _parameters(cls: type) -> set[str]:
    """Return the options that a class takes, those that it passes on to its bases too."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base is keras.layers.Layer or base is object:
            break
        parameters = inspect.signature(base.__init__).parameters.values()
        found |= {item.name for item in parameters if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)}
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            break
    return found - {"self", "dtype"}


def _set_option(options: dict[str, Any], name: str, value: Any, source: Source) -> None:
    """Set an option, with initializers, regularizers and constraints as objects of tf_keras."""
    if not (isinstance(value, dict) and "class_name" in value):
        options[name] = value
        return
    module, cls = (value.get("module") or "").rpartition(".")[2], None
    if module in ("initializers", "regularizers", "constraints"):
        cls = getattr(getattr(keras, module), value["class_name"], None)
    if cls is None and module == "initializers":
        return  # the weights are there: it would matter only to who draws them anew
    if cls is None:
        raise source.refuse(f"has {name}={value['class_name']}, which tf_keras has not")
    accepted = inspect.signature(cls.__init__).parameters
    options[name] = cls(**{key: item for key, item in value["config"].items() if key in accepted})


_SAME_ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "softplus", "softsign")},
    **{name: name for name in ("sigmoid", "tanh", "softmax", "log_softmax", "exponential", "gelu", "mish")},
    "silu": "swish",
}


def hard_sigmoid(source: Source) -> Call:
    """relu6(x + 3) / 6, as Keras 3 defines it; that of tf_keras is clip(x / 5 + 1/2, 0, 1)."""
    plus_3 = keras.layers.Rescaling(1.0, offset=3.0, name=source.fresh_name("plus_3"))
    relu6 = keras.layers.ReLU(6.0, name=source.fresh_name("relu6"))
    sixth = keras.layers.Rescaling(source.number(1 / 6), name=source.fresh_name("sixth"))
    return lambda x: sixth(relu6(plus_3(x)))


def hard_silu(source: Source) -> Call:
    """x * hard_sigmoid(x), also known as hard swish."""
    gate = hard_sigmoid(source)
    product = keras.layers.Multiply(name=source.fresh_name("times_gate"))
    return lambda x: product([x, gate(x)])


def log_sigmoid(source: Source) -> Call:
    """-softplus(-x)."""
    flipped, flipped_back = (keras.layers.Rescaling(-1.0, name=source.fresh_name("negative")) for _ in range(2))
    softplus = keras.layers.Activation("softplus", name=source.fresh_name("softplus"))
    return lambda x: flipped_back(softplus(flipped(x)))


def hard_tanh(source: Source) -> Call:
    """clip(x, -1, 1)."""
    plus_1 = keras.layers.Rescaling(1.0, offset=1.0, name=source.fresh_name("plus_1"))
    relu2 = keras.layers.ReLU(2.0, name=source.fresh_name("relu2"))
    minus_1 = keras.layers.Rescaling(1.0, offset=-1.0, name=source.fresh_name("minus_1"))
    return lambda x: minus_1(relu2(plus_1(x)))


COMPOSED_ACTIVATIONS: dict[str, Callable[[Source], Call]] = {
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "hard_tanh": hard_tanh,
    "log_sigmoid": log_sigmoid,
}
"""Activations that tf_keras has not, or has otherwise: a chain of layers after the layer."""


def _activation(source: Source, given: Any) -> tuple[str, Call | None]:
    """Return the activation of the tf_keras layer, and what has to follow it."""
    name = str(given.get("config")) if isinstance(given, dict) else given or "linear"
    if name in _SAME_ACTIVATIONS:
        return _SAME_ACTIVATIONS[name], None
    if name in COMPOSED_ACTIVATIONS:
        return "linear", COMPOSED_ACTIVATIONS[name](source)
    raise source.refuse(f"has the activation {name}, which tf_keras has not")


def normalization(source: Source) -> Counterpart:
    """Put adapted statistics, which are weights of Keras 3, into the options, rounded as Keras 3 rounds them."""
    config = dict(source.config)
    if source.weights:
        config["mean"], config["variance"] = source.weights[:2]
    for name in ("mean", "variance"):
        if config.get(name) is not None:
            config[name] = np.asarray(config[name], np.float32).reshape(-1).tolist()
    options = {key: config[key] for key in ("name", "trainable", "axis", "mean", "variance", "invert") if key in config}
    return Counterpart(keras.layers.Normalization(**options))


def layer_scale(source: Source) -> Counterpart:
    """A factor per channel (ConvNeXt): a depthwise 1x1 convolution, which tools know."""
    layer = keras.layers.DepthwiseConv2D(1, use_bias=False, name=source.name, trainable=source.config["trainable"])
    return Counterpart(layer, layer, [source.weights[0].reshape(1, 1, -1, 1)])


def stochastic_depth(source: Source) -> Counterpart:
    """Drop a whole branch of a picture at a time (ConvNeXt)."""
    rate = source.config.get("drop_path_rate", source.config.get("rate"))
    return Counterpart(keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=source.name))


def lambda_layer(source: Source) -> Counterpart:
    """Code from the file, for whoever trusts it."""
    function = source.config["function"]
    if not source.trust:
        raise source.refuse("holds code that would run")
    if function.get("class_name") != "__lambda__" or set(source.config.get("arguments") or {}):
        raise source.refuse("calls a function that is not in the file, or with arguments of its own")
    parts = function["config"]
    code, defaults, closure = (
        parts["value"] if "value" in parts else (parts[key] for key in ("code", "defaults", "closure"))
    )
    from tf_keras.src.utils.generic_utils import func_load

    loaded = func_load(code, defaults=tuple(defaults) if defaults else None, closure=closure)
    return Counterpart(keras.layers.Lambda(loaded, name=source.name))


def leaky_relu(source: Source) -> Counterpart:
    """The slope has another name."""
    return same_layer(source, renamed={"negative_slope": "alpha"})


_SAME = (
    *("Dense", "EinsumDense", "Embedding", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "SeparableConv1D", "SeparableConv2D"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"),
    *("Activation", "ReLU", "ELU", "PReLU", "Softmax", "Identity", "MultiHeadAttention"),
    *(f"{kind}Pooling{rank}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for rank in (1, 2, 3)),
    *(f"{kind}{rank}D" for kind in ("UpSampling", "ZeroPadding", "Cropping") for rank in (1, 2, 3)),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    *("Flatten", "Reshape", "Permute", "RepeatVector", "Rescaling", "Resizing", "CenterCrop"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "GaussianNoise"),
    *("AlphaDropout", "ActivityRegularization"),
)

LAYERS: dict[str, Callable[[Source], Counterpart]] = {
    **dict.fromkeys(_SAME, same_layer),
    "LeakyReLU": leaky_relu,
    "Normalization": normalization,
    "LayerScale": layer_scale,
    "StochasticDepth": stochastic_depth,
    "Lambda": lambda_layer,
}
