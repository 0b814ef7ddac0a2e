"""The rules: what each type of layer does with channels.

A rule is a function of a `Call` that returns the labels of the output. To teach tfprune a layer of
your own, put a rule for its exact type into `RULES`:

    def scale_rule(call):                       # y = x * gamma, one gamma per channel
        labels = call.channels()
        call.slot(call.layer.gamma, 0, labels, "thru")
        return call.spread(labels)

    tfprune.channels.RULES[Scale] = scale_rule

Subclasses are not covered by the rule of their parent, since they may compute something else.
A layer in no table freezes what it touches when it has weights, and is probed when it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.channels.graph import Call, Rule
from tfprune.channels.labels import Labels
from tfprune.channels.ops import OPS, merge, reshape_labels, transpose_labels
from tfprune.channels.probing import keeps_channels_apart, probe
from tfprune.keras import keras

layers = keras.layers


def find_rule(layer: Any) -> Rule:
    """Return the rule for a layer: by exact type, by symbol for a TensorFlow op, else by probing."""
    if type(layer) in RULES:
        return RULES[type(layer)]
    if getattr(layer, "symbol", None) in OPS:
        return OPS[layer.symbol]
    return has_unknown_weights if layer.weights else probe


def has_unknown_weights(call: Call) -> list[Labels]:
    """Freeze what a layer with weights and without a rule touches."""
    return call.opaque(f"a {type(call.layer).__name__} has weights and no rule in tfprune.channels.RULES")


def convolution(call: Call) -> Any:
    """Conv: kernel (..., C_in / groups, C_out)."""
    layer = call.layer
    if _channels_first(layer):
        return call.opaque("channels_first")
    inputs, outputs = call.channels(), call.fresh(layer.filters)
    if layer.groups == 1:
        call.slot(layer.kernel, -2, inputs, "in")
    else:
        _tie_groups(call, inputs.reshape(layer.groups, -1), outputs.reshape(layer.groups, -1))
    return _producer(call, outputs, kernel_axis=-1, size_key="filters")


def _tie_groups(call: Call, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Tie the channels of a grouped convolution; both label arrays are (groups, channels per group).

    With several inputs per group, position p goes from all groups at once and the groups stay;
    with one input per group (depthwise), whole groups go.
    """
    if inputs.shape[1] > 1:
        call.unite(inputs, inputs[:1])
        call.unite(outputs, outputs[:1])
        call.slot(call.layer.kernel, -2, inputs[0], "in")
    else:
        call.unite(inputs, outputs)
        call.edit("groups", inputs[:, 0])


def transposed_convolution(call: Call) -> Any:
    """Transposed conv: kernel (..., C_out, C_in)."""
    if _channels_first(call.layer):
        return call.opaque("channels_first")
    call.slot(call.layer.kernel, -1, call.channels(), "in")
    return _producer(call, call.fresh(call.layer.filters), kernel_axis=-2, size_key="filters")


def dense(call: Call) -> Any:
    """Dense: kernel (C_in, C_out)."""
    call.slot(call.layer.kernel, 0, call.channels(), "in")
    return _producer(call, call.fresh(call.layer.units), kernel_axis=1, size_key="units")


def _producer(call: Call, outputs: np.ndarray, *, kernel_axis: int, size_key: str) -> Labels:
    call.slot(call.layer.kernel, kernel_axis, outputs, "out")
    call.slot(call.layer.bias, 0, outputs, "out")
    call.edit(size_key, outputs)
    return _activate(call, outputs)


def _activate(call: Call, labels: np.ndarray) -> Labels:
    """Pass channels through the activation of a layer, which freezes them unless it is elementwise."""
    function = call.layer.activation
    if not keeps_channels_apart(function):
        call.freeze(labels, f"its activation {getattr(function, '__name__', function)} mixes channels")
    return call.spread(labels)


def depthwise(call: Call) -> Any:
    """Depthwise conv: kernel (..., C, multiplier); output channel c * multiplier + m."""
    layer = call.layer
    if _channels_first(layer):
        return call.opaque("channels_first")
    inputs = call.channels()
    outputs = np.repeat(inputs, layer.depth_multiplier)
    call.slot(layer.depthwise_kernel, -2, inputs, "thru")
    call.slot(layer.bias, 0, outputs, "thru")
    return _activate(call, outputs)


def separable(call: Call) -> Any:
    """Separable conv: depthwise kernel (..., C, multiplier), pointwise kernel (..., C * multiplier, C_out)."""
    layer = call.layer
    if _channels_first(layer):
        return call.opaque("channels_first")
    inputs, outputs = call.channels(), call.fresh(layer.filters)
    call.slot(layer.depthwise_kernel, -2, inputs, "in")
    call.slot(layer.pointwise_kernel, -2, np.repeat(inputs, layer.depth_multiplier), "in")
    call.slot(layer.pointwise_kernel, -1, outputs, "out")
    call.slot(layer.bias, 0, outputs, "out")
    call.edit("filters", outputs)
    return _activate(call, outputs)


def batch_norm(call: Call) -> Any:
    """Batch norm: all of its weights (gamma, mean, and more with `renorm`) have a number per channel."""
    layer = call.layer
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if axes not in ([-1], [len(call.tensors[0].shape) - 1]):
        return call.opaque(f"normalises along axis {axes}, not the last one")
    labels = call.channels()
    for variable in layer.weights:
        call.slot(variable, 0, labels, "thru")
    return call.spread(labels)


def group_norm(call: Call) -> Any:
    """Group norm: only whole groups can go, and `groups` counts them."""
    layer = call.layer
    if layer.axis not in (-1, len(call.tensors[0].shape) - 1):
        return call.opaque(f"normalises along axis {layer.axis}, not the last one")
    labels = call.channels()
    groups = labels.reshape(layer.groups, -1)
    call.unite(groups, groups[:, :1])
    call.edit("groups", groups[:, 0])
    for variable in (layer.gamma if layer.scale else None, layer.beta if layer.center else None):
        call.slot(variable, 0, labels, "thru")
    return call.spread(labels)


def layer_norm(call: Call) -> Any:
    """Layer norm: over pixels it keeps channels apart; over channels it needs all of them."""
    if len(call.tensors[0].shape) - 1 in call.layer.axis:
        return call.opaque("normalises over its channels")
    return call.spread(call.channels())


def prelu(call: Call) -> Any:
    """PReLU: alpha has a channel axis unless that is shared."""
    labels = call.channels()
    if call.layer.alpha.shape[-1] == len(labels):
        call.slot(call.layer.alpha, -1, labels, "thru")
    return call.spread(labels)


def activation(call: Call) -> Any:
    """An activation layer."""
    return _activate(call, call.channels())


def channelwise(call: Call) -> Any:
    """A layer that treats every channel alike and on its own: pooling, padding, resizing, dropout.

    On channels that stand on another axis it does something else: ENet pads them that way.
    """
    if _channels_first(call.layer):
        return call.opaque("channels_first")
    labels = call.inputs[0]
    if labels.shape[-1] == 1 and labels.size > 1:
        return probe(call)
    return call.spread(call.channels())


def rescaling(call: Call) -> Any:
    """Rescaling by one number for all channels, or by one for each."""
    return _by_config(call, {"scale": call.layer.scale, "offset": call.layer.offset})


def normalization(call: Call) -> Any:
    """Normalization by a mean and a variance, of all channels or of each, adapted to data or in the config."""
    layer = call.layer
    if layer.axis not in ((), (-1,), (len(call.tensors[0].shape) - 1,)):
        return call.opaque(f"normalises along axes {list(layer.axis)}, not the last one")
    if layer.input_mean is not None:
        return _by_config(call, {"mean": layer.input_mean, "variance": layer.input_variance})
    labels = call.channels()
    if layer.axis:
        call.slot(layer.adapt_mean, 0, labels, "thru")
        call.slot(layer.adapt_variance, 0, labels, "thru")
    return call.spread(labels)


def _by_config(call: Call, values: dict[str, Any]) -> Any:
    """Return the labels that a layer passes on whose config has numbers for all channels, or one for each."""
    labels = call.channels()
    for key, value in values.items():
        if np.shape(value)[-1:] == labels.shape and np.size(value) == len(labels):
            call.edit(key, labels, each=True)
        elif np.size(value) > 1:
            return call.opaque(f"its '{key}' is not one number per channel")
    return call.spread(labels)


def concatenate(call: Call) -> Any:
    """Concatenate: side by side along the last axis, else position by position."""
    sides = [call.channels(index) for index in range(len(call.inputs))]
    if call.layer.axis in (-1, len(call.tensors[0].shape) - 1):
        return call.spread(np.concatenate(sides))
    for side in sides[1:]:
        call.unite(side, sides[0])
    return call.spread(sides[0])


def reshape(call: Call) -> Any:
    """Reshape: labels are reshaped, and the target counts what is alive."""
    labels = reshape_labels(call)
    if id(call.node) in call.graph.moves:
        for index, size in enumerate(call.layer.target_shape):
            if size != -1 and labels.shape[index + 1] > 1:
                call.edit("target_shape", labels, axis=index + 1, index=index)
    return labels


def flatten(call: Call) -> Any:
    """Flatten: channel c of pixel p becomes position p * C + c."""
    return call.opaque("channels_first") if _channels_first(call.layer) else reshape_labels(call)


def permute(call: Call) -> Any:
    """Permute: the axes of the labels are permuted."""
    return transpose_labels(call, [0, *call.layer.dims])


def _channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


_TABLE: dict[Rule, Sequence[str]] = {
    convolution: ("Conv1D", "Conv2D", "Conv3D"),
    transposed_convolution: ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    depthwise: ("DepthwiseConv1D", "DepthwiseConv2D"),
    separable: ("SeparableConv1D", "SeparableConv2D"),
    dense: ("Dense",),
    batch_norm: ("BatchNormalization",),
    group_norm: ("GroupNormalization",),
    layer_norm: ("LayerNormalization",),
    prelu: ("PReLU",),
    activation: ("Activation",),
    rescaling: ("Rescaling",),
    normalization: ("Normalization",),
    merge: ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    concatenate: ("Concatenate",),
    reshape: ("Reshape",),
    flatten: ("Flatten",),
    permute: ("Permute",),
    channelwise: (
        *("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU"),
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        *("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"),
        *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
        *(f"{kind}{n}D" for kind in ("UpSampling", "ZeroPadding", "Cropping") for n in (1, 2, 3)),
        *("Resizing", "CenterCrop"),
    ),
}

RULES: dict[type, Rule] = {
    **{getattr(layers, name): rule for rule, names in _TABLE.items() for name in names},
    layers.experimental.SyncBatchNormalization: batch_norm,
}
"""Exact layer type -> its rule. Extend it for layers of your own."""
