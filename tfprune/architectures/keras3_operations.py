"""The operations of Keras 3 (`x + 3`, `keras.ops.mean(x)`) and what computes the same in tf_keras.

Layers are preferred to calls of TensorFlow where there is one: whatever works on layers sees what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from tfprune.architectures.keras3_layers import COMPOSED_ACTIVATIONS, Call, Source
from tfprune.keras import keras, tf

from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, TFOpLambda

layers = keras.layers
Convert = Callable[[Source], Call]


def making_once() -> Callable[[Callable[[], Any]], Any]:
    """Return a function that makes the layer of an operation at the first of its calls, when shapes are known."""
    made: list[Any] = []

    def once(make: Callable[[], Any]) -> Any:
        if not made:
            made.append(make())
        return made[0]

    return once


def function(call: Callable[..., Any], **options: str) -> Convert:
    """Call a TensorFlow function; `options` says which of its arguments is which option of the operation."""

    def convert(source: Source) -> Call:
        layer = TFOpLambda(call, name=source.name)
        chosen = {name: source.config.get(key) for name, key in options.items()}
        return lambda *args, **ignored: layer(*args, **chosen)

    return convert


def layer(cls: type, **options: Any) -> Convert:
    """Make a layer of an operation on one tensor; options that are callables get the operation's config."""

    def convert(source: Source) -> Call:
        chosen = {name: value(source.config) if callable(value) else value for name, value in options.items()}
        return cls(name=source.name, **chosen)

    return convert


def arithmetic(merge: type | None, call: Callable[..., Any], *, linear: Callable[..., Any] | None = None) -> Convert:
    """Two tensors of one rank are merged by a layer; a tensor and a number (per channel) become a `Rescaling`.

    `linear(number, number_is_first)` gives scale and offset of an operation that is linear.
    """

    def convert(source: Source) -> Call:
        once = making_once()

        def made(left: Any, right: Any) -> Any:
            tensors = tf.is_tensor(left), tf.is_tensor(right)
            if merge and all(tensors) and len(left.shape) == len(right.shape):
                return once(lambda: merge(name=source.name))([left, right])
            if linear and not all(tensors):
                tensor, number = (left, right) if tensors[0] else (right, left)
                number = np.asarray(number, np.float64)
                if number.shape in ((), tuple(tensor.shape[-1:])):
                    scale, offset = (source.number(item) for item in linear(number, tensors[1]))
                    rescaling = once(lambda: layers.Rescaling(scale, offset=offset, name=source.name))
                    return rescaling(tensor)
            # TensorFlow takes the type of the first argument, and a number has none.
            swapped = not tensors[0] and merge in (layers.Maximum, layers.Minimum)
            op = once(lambda: TFOpLambda(call, name=source.name))
            return op(right, left) if swapped else op(left, right)

        return made

    return convert


def reduction(call: Callable[..., Any], pooling: type | None = None) -> Convert:
    """Reduce axes; height and width of (N, H, W, C) by the pooling layer."""

    def convert(source: Source) -> Call:
        axis, keepdims, once = source.config["axis"], bool(source.config["keepdims"]), making_once()
        if source.config.get("initial") is not None:
            raise source.refuse(f"has initial={source.config['initial']}, which TensorFlow has not")

        def made(x: Any) -> Any:
            axes = sorted(item % len(x.shape) for item in axis) if isinstance(axis, list) else None
            if pooling and axes == [1, 2] and len(x.shape) == 4:
                return once(lambda: pooling(keepdims=keepdims, name=source.name))(x)
            return once(lambda: TFOpLambda(call, name=source.name))(x, axis=axis, keepdims=keepdims)

        return made

    return convert


def reshape(source: Source) -> Call:
    """Reshape within a picture by the layer, across pictures by TensorFlow."""
    shape, once = [-1 if edge is None else edge for edge in source.config["newshape"]], making_once()

    def made(x: Any) -> Any:
        inner, wanted = tuple(x.shape[1:]), tuple(shape[1:])
        if shape[0] in (-1, x.shape[0]) and None not in inner and -1 not in wanted and prod(inner) == prod(wanted):
            return once(lambda: layers.Reshape(wanted, name=source.name))(x)
        return once(lambda: TFOpLambda(tf.reshape, name=source.name))(x, shape)

    return made


def transpose(source: Source) -> Call:
    """Permute the axes of a picture by the layer, the first axis too by TensorFlow."""
    axes = source.config["axes"]
    if axes and axes[0] == 0:
        return layers.Permute(axes[1:], name=source.name)
    return function(tf.transpose, perm="axes")(source)


def split(source: Source) -> Call:
    """Split into equal parts, or at indices."""
    made, axis = TFOpLambda(tf.split, name=source.name), source.config["axis"]
    given = source.config["indices_or_sections"]

    def sizes(x: Any) -> Any:
        if isinstance(given, int):
            return given
        if x.shape[axis] is None:
            raise source.refuse("splits an axis of open length at indices")
        return [end - start for start, end in pairwise([0, *given, x.shape[axis]])]

    return lambda x: made(x, sizes(x), axis=axis)


def get_item(source: Source) -> Call:
    """Index and slice, with the ellipsis written out."""
    made = SlicingOpLambda(tf.__operators__.getitem, name=source.name)

    def call(x: Any, given: Any) -> Any:
        keys = list(given) if isinstance(given, Sequence) else [given]
        if any(isinstance(item, list) or tf.is_tensor(item) for item in keys):
            raise source.refuse("picks elements by a list or a tensor")
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            whole = len(x.shape) - sum(item is not None for item in keys) + 1
            keys[at : at + 1] = [slice(None)] * whole
        # A slice is a dict in the config of tf_keras' layer.
        plain = [
            {"start": key.start, "stop": key.stop, "step": key.step} if isinstance(key, slice) else key for key in keys
        ]
        return made(x, plain)

    return call


def cast(source: Source) -> Call:
    """Convert to another type; the floats of a model are all of one kind."""
    made, dtype = TFOpLambda(tf.cast, name=source.name), source.config["dtype"]
    return lambda x: made(x, source.precision if "float" in dtype else dtype)


def pad(source: Source) -> Call:
    """Pad with a number, or by reflection."""
    mode = source.config["mode"]
    if mode not in ("constant", "reflect", "symmetric"):
        raise source.refuse(f"has mode={mode!r}, which TensorFlow has not")
    made = TFOpLambda(tf.pad, name=source.name)
    return lambda x, constant_values=None: made(
        x, source.config["pad_width"], mode=mode.upper(), constant_values=constant_values or 0
    )


def resize(source: Source) -> Call:
    """Resize by the layer."""
    for option in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if source.config.get(option):
            raise source.refuse(f"has {option}=True, which tf_keras has not")
    height, width = source.config["size"]
    return layers.Resizing(height, width, interpolation=source.config["interpolation"], name=source.name)


def _plus(number: Any, first: bool) -> tuple[Any, Any]:
    return 1.0, number


def _minus(number: Any, first: bool) -> tuple[Any, Any]:
    return (-1.0, number) if first else (1.0, -number)


def _times(number: Any, first: bool) -> tuple[Any, Any]:
    return number, 0.0


def divide(source: Source) -> Call:
    """Multiply by the reciprocal of a number, or a number by the reciprocal of a tensor."""
    product = arithmetic(layers.Multiply, tf.multiply, linear=_times)(source)
    ratio = TFOpLambda(tf.divide, name=source.name)
    reciprocal = TFOpLambda(tf.math.reciprocal, name=source.fresh_name("reciprocal"))

    def made(left: Any, right: Any) -> Any:
        if not tf.is_tensor(right):
            return product(left, 1.0 / np.asarray(right, np.float64))
        return ratio(left, right) if tf.is_tensor(left) else product(left, reciprocal(right))

    return made


def _activation(name: str) -> Convert:
    return layer(layers.Activation, activation=name)


OPERATIONS: dict[str, Convert] = {
    "Add": arithmetic(layers.Add, tf.add, linear=_plus),
    "Subtract": arithmetic(layers.Subtract, tf.subtract, linear=_minus),
    "Multiply": arithmetic(layers.Multiply, tf.multiply, linear=_times),
    "Divide": divide,
    "TrueDivide": divide,
    "Maximum": arithmetic(layers.Maximum, tf.maximum),
    "Minimum": arithmetic(layers.Minimum, tf.minimum),
    "Power": function(tf.pow),
    "Matmul": function(tf.matmul),
    "Absolute": function(tf.abs),
    "Abs": function(tf.abs),
    "Exp": _activation("exponential"),
    "Log": function(tf.math.log),
    "Negative": layer(layers.Rescaling, scale=-1.0),
    "Rsqrt": function(tf.math.rsqrt),
    "Sqrt": function(tf.sqrt),
    "Square": function(tf.square),
    "Mean": reduction(tf.reduce_mean, layers.GlobalAveragePooling2D),
    "Max": reduction(tf.reduce_max, layers.GlobalMaxPooling2D),
    "Min": reduction(tf.reduce_min),
    "Sum": reduction(tf.reduce_sum),
    "Var": reduction(tf.math.reduce_variance),
    "Std": reduction(tf.math.reduce_std),
    "Concatenate": layer(layers.Concatenate, axis=lambda config: config["axis"]),
    "Stack": function(tf.stack, axis="axis"),
    "ExpandDims": function(tf.expand_dims, axis="axis"),
    "Squeeze": function(tf.squeeze, axis="axis"),
    "Repeat": function(tf.repeat, repeats="repeats", axis="axis"),
    "Tile": function(tf.tile, multiples="repeats"),
    "Clip": function(tf.clip_by_value, clip_value_min="x_min", clip_value_max="x_max"),
    "Cast": cast,
    "DepthToSpace": function(tf.nn.depth_to_space, block_size="block_size"),
    "SpaceToDepth": function(tf.nn.space_to_depth, block_size="block_size"),
    "Reshape": reshape,
    "Transpose": transpose,
    "Split": split,
    "GetItem": get_item,
    "Pad": pad,
    "Resize": resize,
    "Relu": layer(layers.ReLU),
    "Relu6": layer(layers.ReLU, max_value=6.0),
    "LeakyRelu": layer(layers.LeakyReLU, alpha=lambda config: config["negative_slope"]),
    "Elu": layer(layers.ELU, alpha=lambda config: config["alpha"]),
    "Selu": _activation("selu"),
    "Sigmoid": _activation("sigmoid"),
    "Silu": _activation("swish"),
    "Tanh": _activation("tanh"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Mish": _activation("mish"),
    "Softmax": layer(layers.Softmax, axis=lambda config: config["axis"]),
    "Gelu": function(tf.nn.gelu, approximate="approximate"),
    "HardSigmoid": COMPOSED_ACTIVATIONS["hard_sigmoid"],
    "HardSilu": COMPOSED_ACTIVATIONS["hard_silu"],
    "LogSigmoid": COMPOSED_ACTIVATIONS["log_sigmoid"],
}
"""Class of an operation -> what takes its description and returns what is called in its place."""
