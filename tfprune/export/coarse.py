"""Logits at a lower resolution, from a traced graph and without training.

A model that ends in a resize has them already: in front of it. In any other, every second row and column of
the logits is computed, and of what leads to them as far as nothing else needs it: the last convolution that
sees neighbours gets stride 2, and norms, activations and 1x1 convolutions behind it see a quarter of the pixels.
"""

from __future__ import annotations

from tfprune.keras import tf

_RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor")
_POINTWISE = (
    *(
        "Identity",
        "FakeQuantWithMinMaxVars",
        "BiasAdd",
        "FusedBatchNormV3",
        "Relu",
        "Relu6",
        "LeakyRelu",
        "Elu",
        "Selu",
    ),
    *("Sigmoid", "Tanh", "AddV2", "Sub", "Mul", "Maximum", "Minimum"),
)


def coarse_logits(logits: tf.Tensor) -> tf.Tensor:
    """Return logits (1, h, w, K) of about half of H and W, or of what a closing resize enlarges."""
    tensor = logits
    while tensor.op.type in ("Identity", "FakeQuantWithMinMaxVars"):
        tensor = tensor.op.inputs[0]
    if tensor.op.type in _RESIZES and _enlarges_wholly(tensor.op.inputs[0], tensor):
        return tensor.op.inputs[0]
    return _every_second(logits)


def _enlarges_wholly(small: tf.Tensor, large: tf.Tensor) -> bool:
    sizes = list(zip(small.shape[1:3], large.shape[1:3], strict=True))
    return small.shape != large.shape and all(high % low == 0 for low, high in sizes)


def _every_second(tensor: tf.Tensor) -> tf.Tensor:
    """Return every second row and column of (1, H, W, C).

    It starts with the second where H or W is even, which is what a padded convolution of stride 2 samples.
    """
    op, spatial = tensor.op, tensor.shape[1:3]
    if not _saves(tensor):
        first = [1 - size % 2 for size in spatial]
        return tensor[:, first[0] :: 2, first[1] :: 2]
    if op.type == "Conv2D" and tuple(op.inputs[1].shape[:2]) != (1, 1):
        return _again(op, list(op.inputs), strides=2)
    return _again(op, [_every_second(part) if _is_map(part, spatial) else part for part in op.inputs])


def _saves(tensor: tf.Tensor) -> bool:
    """Return whether a convolution computes less when only every second value of a tensor is wanted."""
    op = tensor.op
    if any(len(output.consumers()) > 1 for output in op.outputs):
        return False
    if op.type == "Conv2D":
        ones = list(op.get_attr("strides")) == [1] * 4 and list(op.get_attr("dilations")) == [1] * 4
        height, width = op.inputs[1].shape[:2]
        padded = op.get_attr("padding") == b"SAME" and height % 2 and width % 2
        return ones and op.get_attr("data_format") == b"NHWC" and (padded or (height, width) == (1, 1))
    maps = [part for part in op.inputs if _is_map(part, tensor.shape[1:3])]
    return op.type in _POINTWISE and any(_saves(part) for part in maps)


def _is_map(tensor: tf.Tensor, spatial: tf.TensorShape) -> bool:
    return tensor.shape.rank == 4 and tensor.shape[1:3] == spatial


def _again(op: tf.Operation, inputs: list[tf.Tensor], *, strides: int = 1) -> tf.Tensor:
    """Return the first output of the same op on other inputs."""
    attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    if strides > 1:
        attributes["strides"].list.i[:] = [1, strides, strides, 1]
    dtypes = [output.dtype for output in op.outputs]
    return op.graph.create_op(op.type, inputs, dtypes, attrs=attributes, name=f"{op.name}_coarse").outputs[0]
