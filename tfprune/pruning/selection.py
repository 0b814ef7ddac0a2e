"""Which layers are masked, and why the others stay dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from tfprune.errors import InputError
from tfprune.keras import keras


@dataclass(frozen=True)
class DenseLayer:
    """A layer with weights that is left dense, and the reason."""

    layer: str
    weights: int
    reason: str


@dataclass(frozen=True)
class Selection:
    """The names of the layers to mask, in model order, and the layers left dense."""

    masked: tuple[str, ...]
    dense: tuple[DenseLayer, ...]


def select_layers(model: Any, *, min_weights: int = 1024) -> Selection:
    """Choose the layers to mask: every kernel that tfmot can prune, except heads and tiny layers.

    A head is a layer with a kernel after which no other kernel comes before the model's output.
    At 90 % a 16-weight sigmoid head kept two weights, both negative, and every output was wrong.

    Args:
        model: a functional tf_keras model.
        min_weights: a kernel with fewer weights stays dense.

    Raises:
        InputError: when nothing is left to mask.
    """
    heads = _head_layers(model)
    masked, dense = [], []
    for layer in model.layers:
        if not layer.weights or isinstance(layer, keras.layers.BatchNormalization):
            continue
        kernel = prunable_kernel(layer)
        reason = _why_dense(layer, kernel, is_head=layer.name in heads, min_weights=min_weights)
        if reason:
            dense.append(DenseLayer(layer.name, int(layer.count_params()), reason))
        else:
            masked.append(layer.name)
    if not masked:
        listed = "; ".join(f"{item.layer}: {item.reason}" for item in dense) or "it has no layers with weights"
        raise InputError(f"model '{model.name}' has no layer to mask ({listed})")
    return Selection(tuple(masked), tuple(dense))


def prunable_kernel(layer: Any) -> str | None:
    """Return the name of the attribute that tfmot prunes in a layer, or None."""
    if not PruneRegistry.supports(layer):
        return None
    PruneRegistry.make_prunable(layer)
    kernels = layer.get_prunable_weights()
    names = [name for name in ("kernel", "pointwise_kernel") if hasattr(layer, name)]
    return names[-1] if len(kernels) == 1 and names and kernels[0] is getattr(layer, names[-1]) else None


def _why_dense(layer: Any, kernel: str | None, *, is_head: bool, min_weights: int) -> str | None:
    if kernel is None:
        return f"tfmot prunes nothing in a {type(layer).__name__}"
    if is_head:
        return "output head stays dense"
    size = int(getattr(layer, kernel).shape.num_elements())
    if size < min_weights:
        return f"tiny: {size} weights, fewer than {min_weights}"
    return None


def _head_layers(model: Any) -> set[str]:
    """Return the layers with kernels that are met first on the way back from the outputs."""
    heads: set[str] = set()
    seen: set[int] = set()
    waiting = [tensor._keras_history for tensor in model.outputs]
    while waiting:
        layer, node_index, _ = waiting.pop()
        node = layer._inbound_nodes[node_index]
        if id(node) in seen:
            continue
        seen.add(id(node))
        if prunable_kernel(layer):
            heads.add(layer.name)
            continue
        waiting.extend(tensor._keras_history for tensor in node.keras_inputs)
    return heads
