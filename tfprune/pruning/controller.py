"""The mask controller: wraps a model's layers, sets their masks on schedule, and bakes them in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_model_optimization.sparsity import keras as tfmot

from tfprune.criteria import Criterion, magnitude
from tfprune.keras import keras
from tfprune.pruning.schedules import sparsity_by_step
from tfprune.pruning.selection import Selection, select_layers
from tfprune.pruning.wrapper import MaskedLayer


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one masked kernel; `sparsity` is their fraction, 0-1."""

    layer: str
    weights: int
    nonzero: int
    sparsity: float


def keep_highest(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Return a float32 0/1 mask that keeps exactly round(n * (1 - sparsity)) scores, at least one.

    >>> keep_highest(np.array([3.0, 1.0, 2.0, 0.5]), 0.5)
    array([1., 0., 1., 0.], dtype=float32)
    """
    flat = scores.reshape(-1)
    kept = max(1, flat.size - round(flat.size * sparsity))
    mask = np.zeros(flat.size, np.float32)
    mask[np.argpartition(flat, flat.size - kept)[flat.size - kept :]] = 1.0
    return mask.reshape(scores.shape)


class MaskController:
    """Owns the masks of one model.

    `controller.model` is a new model with the weights of the one given, its selected layers wrapped;
    train it with `controller.callback()` in `fit`, then take `controller.strip()`.
    In a loop of one's own: `controller.update(step)` after each optimizer step, counted from 1.

    Args:
        model: a functional tf_keras model; it is not changed.
        schedule: a tfmot schedule (`build_schedule`); None leaves the masks as they are.
        criterion: weights -> scores, higher = keep.
        selection: which layers (default `select_layers(model)`).
    """

    def __init__(
        self, model: Any, schedule: Any, *, criterion: Criterion = magnitude, selection: Selection | None = None
    ) -> None:
        self.selection = selection or select_layers(model)
        self.criterion = criterion
        self.sparsity_at = sparsity_by_step(schedule) if schedule is not None else {}
        self.model = _wrap(model, set(self.selection.masked))
        self.layers: list[MaskedLayer] = [layer for layer in self.model.layers if isinstance(layer, MaskedLayer)]

    def update(self, step: int) -> bool:
        """Set the masks when `step` is a prune of the schedule; return whether it was."""
        if step not in self.sparsity_at:
            return False
        for layer in self.layers:
            layer.mask.assign(keep_highest(self.criterion(layer.kernel.numpy()), self.sparsity_at[step]))
        return True

    def callback(self) -> Any:
        """Return the Keras callback that updates the masks in `fit`."""
        return _MaskCallback(self)

    def bake(self) -> None:
        """Write zeros where the masks have them, so that the stored weights are what is computed."""
        for layer in self.layers:
            layer.kernel.assign(layer.kernel * layer.mask)

    def strip(self) -> Any:
        """Return a new plain model with the zeros baked in: outputs equal the masked model's bit for bit."""
        self.bake()
        plain = keras.models.clone_model(tfmot.strip_pruning(self.model))
        _copy_weights(self.model, plain)
        return plain

    def sparsity(self) -> list[LayerSparsity]:
        """Return the zeros of every masked kernel, from the masks."""
        rows = []
        for layer in self.layers:
            kept = int(np.count_nonzero(layer.mask.numpy()))
            size = int(layer.mask.shape.num_elements())
            rows.append(LayerSparsity(layer.layer.name, size, kept, 1 - kept / size))
        return rows

    def total_sparsity(self) -> float:
        """Return the fraction of zeros over all masked kernels, 0-1."""
        rows = self.sparsity()
        return 1 - sum(row.nonzero for row in rows) / sum(row.weights for row in rows)


class _MaskCallback(keras.callbacks.Callback):
    def __init__(self, controller: MaskController) -> None:
        super().__init__()
        self.controller = controller

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.controller.update(int(self.model.optimizer.iterations))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["sparsity"] = self.controller.total_sparsity()


def _wrap(model: Any, selected: set[str]) -> Any:
    """Clone `model` with the selected layers wrapped, and copy the weights."""

    def clone(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        return MaskedLayer(copy) if layer.name in selected else copy

    wrapped = keras.models.clone_model(model, clone_function=clone)
    _copy_weights(model, wrapped)
    return wrapped


def _copy_weights(source: Any, target: Any) -> None:
    """Copy weights layer by layer, by the name of the layer inside a wrapper."""

    def inner(layer: Any) -> Any:
        return layer.layer if isinstance(layer, MaskedLayer) else layer

    by_name = {inner(layer).name: inner(layer) for layer in source.layers}
    for layer in target.layers:
        inner(layer).set_weights(by_name[inner(layer).name].get_weights())
