"""What stands behind a model's last layer in the exported graph: logits recovered, then the head asked for.

Everything here works on the symbolic tensors of a graph that is being traced, so that it sees a softmax
wherever it was written: in a layer's `activation`, as a layer of its own, in a nested model or in plain code.
"""

from __future__ import annotations

from collections.abc import Callable

from tfprune.errors import InputError, look_up
from tfprune.export.coarse import coarse_logits
from tfprune.keras import tf

_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_PASSED = ("Identity", "Cast")
_MOVES_PIXELS = (
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "Reshape",
    "Transpose",
    "StridedSlice",
    "Pad",
    "PadV2",
    "MirrorPad",
)


def attach_head(output: tf.Tensor, head: str) -> tf.Tensor:
    """Return the tensor an exported file answers with, from a traced model's output (1, H, W, K).

    A softmax or sigmoid that ends the model is taken off first, so that none is applied twice; the
    probabilities head puts the same one back. A class map is int32 (1, H, W).

    Raises:
        InputError: unknown head, or an output without logits to be found.
    """
    build = look_up("head", head, _BUILDERS)
    logits, activation = recover_logits(output)
    if logits.shape[-1] == 1 and activation == "softmax":
        raise InputError(
            "the model ends in a softmax over one channel, which is 1 everywhere; "
            "use a sigmoid, or one output per class"
        )
    return build(logits if logits.dtype == tf.float32 else tf.cast(logits, tf.float32), activation)


def recover_logits(output: tf.Tensor) -> tuple[tf.Tensor, str | None]:
    """Return (logits, name of the activation taken off or None) of a traced model's output.

    Raises:
        InputError: a softmax or sigmoid lies below a resize, crop or transposition at the model's end.
    """
    tensor, moved = output, None
    while tensor.op.type in (*_PASSED, *_MOVES_PIXELS):
        moved = moved or (tensor.op.name if tensor.op.type in _MOVES_PIXELS else None)
        tensor = tensor.op.inputs[0]
    activation = _ACTIVATIONS.get(tensor.op.type)
    if activation is None:
        return output, None
    if moved:
        raise InputError(
            f"the model's {activation} ({tensor.op.name}) is followed by {moved}, so that its output is neither "
            f"logits nor fresh probabilities; move the {activation} to the end, or leave it out"
        )
    return tensor.op.inputs[0], activation


def _probabilities(logits: tf.Tensor, activation: str | None) -> tf.Tensor:
    activation = activation or ("sigmoid" if logits.shape[-1] == 1 else "softmax")
    return tf.sigmoid(logits) if activation == "sigmoid" else tf.nn.softmax(logits)


def _logits(logits: tf.Tensor, activation: str | None) -> tf.Tensor:
    return logits


def _class_map(logits: tf.Tensor, activation: str | None) -> tf.Tensor:
    """Return int32 ids, as ARG_MAX gives them: Ethos-U leaves a cast to smaller ones, and comparisons, to the CPU.

    A single logit is held against a zero in front of it; of equal ones the first wins, so that a tie is class 0.
    """
    if logits.shape[-1] == 1:
        logits = tf.pad(logits, [[0, 0], [0, 0], [0, 0], [1, 0]])
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _coarse_class_map(logits: tf.Tensor, activation: str | None) -> tf.Tensor:
    """Return ids that were chosen at a lower resolution, repeated: no score is computed for every pixel.

    TensorFlow Lite's converter has no nearest resize of integers; a broadcast along two axes of size 1 is one.
    """
    ids, (height, width) = _class_map(coarse_logits(logits), activation), logits.shape[1:3]
    low, narrow = ids.shape[1:]
    down, across = -(-height // low), -(-width // narrow)
    repeated = tf.broadcast_to(tf.reshape(ids, (1, low, 1, narrow, 1)), (1, low, down, narrow, across))
    enlarged = tf.reshape(repeated, (1, low * down, narrow * across))
    return enlarged[:, :height, :width] if enlarged.shape[1:] != (height, width) else enlarged


_BUILDERS: dict[str, Callable[[tf.Tensor, str | None], tf.Tensor]] = {
    "probabilities": _probabilities,
    "logits": _logits,
    "class_map": _class_map,
    "coarse_class_map": _coarse_class_map,
}
