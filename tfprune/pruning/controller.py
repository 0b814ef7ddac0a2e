"""The mask controller: wraps a model's layers, sets their masks on schedule, and strips them again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfprune.criteria import CRITERIA, Criterion, Evidence
from tfprune.errors import InputError, look_up
from tfprune.keras import keras
from tfprune.pruning import GRANULARITIES, SCOPES
from tfprune.pruning.assignment import MaskAssignment, Weights
from tfprune.pruning.cloning import unwrap_model, wrap_model
from tfprune.pruning.gathering import evidence_sources, gather_evidence
from tfprune.pruning.granularity import KERNELWISE, Block, Pattern, Weight
from tfprune.pruning.graph import filter_axis, norms_after, trace_calls, walk_layers
from tfprune.pruning.groups import ChannelGroup
from tfprune.pruning.masked_model import MaskedModel, check_wrappable
from tfprune.pruning.masking import (
    Masks,
    filter_groups,
    filter_scores,
    filters_last,
    mask_groups,
    mask_kernels,
    score_groups,
)
from tfprune.pruning.momentum import holds_zeros
from tfprune.pruning.saving import from_config, to_config
from tfprune.pruning.schedules import sparsity_by_step
from tfprune.pruning.selection import DenseLayer, Selection, read_expression, select_layers
from tfprune.pruning.wrapper import MaskedLayer

Granularity = str | Weight | Block | Pattern | Sequence[ChannelGroup]


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one masked kernel; `sparsity` is their fraction, 0-1."""

    layer: str
    weights: int
    nonzero: int
    sparsity: float


class MaskController:
    """Owns the masks of one model.

    `controller.model` is a new model with the weights of the one given, its selected layers wrapped.
    `fit` it, and the masks follow the schedule; then take `controller.strip()`. In a loop of one's own::

        for step, (images, truth) in enumerate(batches, start=1):
            with tf.GradientTape() as tape:
                tape.watch(controller.taps)
                loss = loss_function(truth, model(images, training=True))
            variables = model.trainable_variables
            gradients = tape.gradient(loss, [*variables, *controller.taps])
            controller.gather(gradients[len(variables):], step=step)
            optimizer.apply_gradients(zip(gradients, variables))
            controller.update(step, optimizer)

    (`taps` is empty and `gather` does nothing when the criterion needs no gradients.) Under a
    `tf.distribute` strategy make the controller inside `strategy.scope()`.

    Args:
        model: a functional tf_keras model, or a `Sequential` one; it is not changed.
        schedule: a tfmot schedule (`build_schedule`); None leaves the masks as they are.
        criterion: a name from `tfprune.criteria.CRITERIA`, or a callable evidence -> scores.
        selection: which layers (default `select_layers(model)`).
        granularity: `weight`, `block` (4x1), `pattern` (2:4), `filter`; a `Block` or `Pattern` of
            other sizes; or channel groups, whose channels each go as a whole.
        scope: `layer`, the sparsity holds in every layer (or channel group); `global`, one ranking
            over all of them, of which each loses at most 99 %. Default: `global` for weights and
            blocks (at 90 % zeros it keeps what `layer` loses: docs/results/mask_quality.md), else `layer`.
        normalize: with `global`, divide the scores of a layer by their Euclidean norm first.
        layer_sparsity: regular expression -> final sparsity of the layers (groups) it is found in;
            they follow the schedule's shape, and stay out of a global ranking.

    Raises:
        InputError: when the parts do not fit together or the schedule cannot reach its end.
    """

    def __init__(
        self,
        model: Any,
        schedule: Any,
        *,
        criterion: str | Criterion = "magnitude",
        selection: Selection | None = None,
        granularity: Granularity = "weight",
        scope: str | None = None,
        normalize: bool = True,
        layer_sparsity: Mapping[str, float] | None = None,
    ) -> None:
        check_wrappable(model)
        selection = selection or select_layers(model)
        if isinstance(granularity, str):
            look_up("granularity", granularity, dict.fromkeys(GRANULARITIES))
        groups = filter_groups(model, selection.masked) if granularity == "filter" else granularity
        groups = () if isinstance(groups, str | Weight | Block | Pattern) else tuple(groups)
        norms = {path: norm for path, (norm, _) in norms_after(trace_calls(model)[0]).items()}
        criterion = look_up("criterion", criterion, CRITERIA) if isinstance(criterion, str) else criterion
        gathers = getattr(criterion, "gathers", None)
        sources = evidence_sources(selection.masked, groups, norms, gathers)
        wrapped = wrap_model(model, selection.masked, groups, gathers=dict.fromkeys(sources.values(), gathers))
        self._attach(
            wrapped,
            schedule=schedule,
            criterion=criterion,
            selection=selection,
            granularity=granularity,
            groups=groups,
            scope=scope or _default_scope(granularity),
            normalize=normalize,
            layer_sparsity=dict(layer_sparsity or {}),
            norms=norms,
        )

    @classmethod
    def restore(cls, model: MaskedModel, config: dict[str, Any]) -> MaskController:
        """Give a loaded model its controller back (`model.controller`), from `get_config`."""
        controller = cls.__new__(cls)
        dense = tuple(DenseLayer(**row) for row in config["dense"])
        controller._attach(
            model,
            **{name: from_config(config[name]) for name in ("schedule", "criterion", "granularity", "groups")},
            selection=Selection(tuple(config["masked"]), dense),
            **{name: config[name] for name in ("scope", "normalize", "layer_sparsity", "norms")},
        )
        return controller

    def get_config(self) -> dict[str, Any]:
        """Return everything but the weights, in plain values."""
        return {
            "schedule": to_config(self.schedule),
            "criterion": to_config(self.criterion),
            "granularity": to_config(self.granularity),
            "groups": to_config(self.groups),
            "masked": list(self.selection.masked),
            "dense": [asdict(row) for row in self.selection.dense],
            "scope": self.scope,
            "normalize": self.normalize,
            "layer_sparsity": self.layer_sparsity,
            "norms": self.norms,
        }

    def _attach(
        self,
        model: MaskedModel,
        *,
        schedule: Any,
        criterion: Criterion,
        selection: Selection,
        granularity: Granularity,
        groups: tuple[ChannelGroup, ...],
        scope: str,
        normalize: bool,
        layer_sparsity: dict[str, float],
        norms: dict[str, str],
    ) -> None:
        self.model, self.schedule, self.criterion, self.selection = model, schedule, criterion, selection
        self.granularity, self.groups, self.scope, self.normalize = granularity, groups, scope, normalize
        self.layer_sparsity, self.norms = layer_sparsity, norms
        look_up("scope", scope, dict.fromkeys(SCOPES))
        self.sparsity_at = sparsity_by_step(schedule) if schedule is not None else {}
        self.last_step = max(self.sparsity_at, default=0)
        self.final_sparsity = self.sparsity_at.get(self.last_step, 0.0)
        self._all = dict(walk_layers(model))
        self.layers: list[MaskedLayer] = [self._all[path] for path in selection.masked]
        self._owners = {path: layer for path, layer in self._all.items() if isinstance(layer, MaskedLayer)}
        sources = evidence_sources(selection.masked, groups, norms, getattr(criterion, "gathers", None))
        self._sources = {path: self._all[source] for path, source in sources.items()}
        self.tapped = [layer for layer in self._owners.values() if layer.evidence is not None]
        self.taps = [layer.evidence for layer in self.tapped]
        self._assignment = MaskAssignment(self._owners)
        self._check()
        model._hold_controller(self)

    def _check(self) -> None:
        """Refuse settings that would fail at the first mask update."""
        pattern = KERNELWISE.get(self.granularity) if isinstance(self.granularity, str) else self.granularity
        if isinstance(pattern, Pattern):
            if self.scope == "global":
                raise InputError("an N:M pattern is set per filter; scope 'global' has no meaning for it")
            for sparsity in {self.final_sparsity, *self.layer_sparsity.values()} - {0.0}:
                if abs(sparsity * pattern.of - pattern.zeros) > 1e-6:
                    raise InputError(
                        f"a pattern of {pattern.zeros} zeros in {pattern.of} ends at sparsity "
                        f"{pattern.zeros / pattern.of:g}, and the schedule at {sparsity:g}; make them equal"
                    )
        names = [group.name for group in self.groups] or list(self.selection.masked)
        for expression, sparsity in self.layer_sparsity.items():
            found = read_expression(expression, "layer_sparsity").search
            if not any(map(found, names)) or not 0 <= sparsity < 1:
                raise InputError(
                    f"layer_sparsity '{expression}': {sparsity} must be a fraction in [0, 1), and the expression "
                    f"must be found in the name of a masked layer, such as {', '.join(names[:3])}"
                )
            if sparsity and not self.final_sparsity:
                raise InputError(
                    f"layer_sparsity '{expression}': {sparsity} follows the shape of the schedule, which ends at 0; "
                    "give a schedule that ends above 0"
                )
        self._masks(self.final_sparsity, self._assignment.wholes())

    def _score(self, path: str, wholes: Weights, steps: int) -> np.ndarray:
        """Return the criterion's scores of a layer, of its kernel's shape (filters last) or (filters,)."""
        layer = self._all[path]
        scale = self._scale(path) if getattr(self.criterion, "needs_scale", False) else None
        gathered = None
        if path in self._sources:
            gathered = self._sources[path].evidence.numpy()
            if self._sources[path].gathers != "movement":
                gathered = gathered / max(steps, 1)
            if gathered.ndim > 1:
                gathered = filters_last(layer.layer, gathered)
        weights = filters_last(layer.layer, np.asarray(wholes[path, layer.masked[0]]))
        scores = np.asarray(self.criterion(Evidence(path, weights, gathered, scale)))
        # A norm behind a depthwise kernel with a multiplier has several numbers for each of its filters.
        each = weights.shape[-2] if isinstance(layer.layer, keras.layers.DepthwiseConv2D) else 1
        if scores.shape == (weights.shape[-1] * each,):
            scores = scores.reshape(-1, each).sum(axis=1)
        accepted = {(weights.shape[-1],)} if scores.ndim == 1 else {weights.shape}
        if scores.shape not in accepted or (scores.ndim == 1 and not self.groups):
            raise InputError(
                f"criterion '{getattr(self.criterion, '__name__', type(self.criterion).__name__)}' gives scores of "
                f"shape {scores.shape} for the kernel {weights.shape} of '{path}'; accepted is one score per weight, "
                "or per filter with the granularities filter and channel groups"
            )
        if not (np.isfinite(scores.max()) and np.isfinite(scores.min())):
            raise InputError(f"the scores of '{path}' are not finite: the training has diverged; lower its rate")
        return scores

    def _scale(self, path: str) -> np.ndarray:
        """Return the gamma of the batch norm right behind a layer, shape (filters,)."""
        norm = self._all.get(self.norms.get(path, ""))
        plain = norm.layer if isinstance(norm, MaskedLayer) else norm
        if plain is None or plain.gamma is None:
            raise InputError(
                f"criterion '{type(self.criterion).__name__}' needs a batch norm with a scale right behind each "
                f"layer, and '{path}' has none; exclude it, or take another criterion"
            )
        return (norm.whole("gamma") if isinstance(norm, MaskedLayer) else plain.gamma).numpy()

    def _own_sparsity(self, name: str, sparsity: float) -> float | None:
        """Return the sparsity of one layer or group now; None leaves it to the global ranking."""
        for expression, final in self.layer_sparsity.items():
            if re.search(expression, name):
                return round(final * sparsity / self.final_sparsity, 6) if self.final_sparsity else 0.0
        return sparsity if self.scope == "layer" else None

    def _masks(self, sparsity: float, wholes: Weights, steps: int = 1) -> Masks:
        """Return the masks for a sparsity, by weight."""
        paths = self.selection.masked
        ranking: dict[str, Any] = {"global_sparsity": sparsity, "normalize": self.normalize}

        def own(name: str) -> float | None:
            return self._own_sparsity(name, sparsity)

        def score(path: str) -> np.ndarray:
            return self._score(path, wholes, steps)

        if not self.groups:
            unit = KERNELWISE[self.granularity] if isinstance(self.granularity, str) else self.granularity
            masks = mask_kernels(paths, score, unit, own, **ranking)
            return {
                (path, self._all[path].masked[0]): filters_last(self._all[path].layer, mask)
                for path, mask in masks.items()
            }
        by_filter = {path: filter_scores(score(path)) for path in paths}
        kernels = {path: (self._all[path].masked[0], filter_axis(self._all[path].layer)) for path in paths}
        shapes = {
            (path, name): tuple(variable.shape)
            for path, layer in self._owners.items()
            for name, (variable, _, _) in zip(layer.masked, layer.pruning_vars, strict=True)
        }
        scored = score_groups(self.groups, by_filter, kernels, shapes)
        return mask_groups(self.groups, scored, shapes, own, **ranking)

    def gather(self, gradients: Sequence[Any], *, step: Any) -> None:
        """Take the gradients of `taps` in training step `step`, counted from 1, into the evidence."""
        gather_evidence(self.tapped, gradients, step=step)

    def update(self, step: int, optimizer: Any) -> bool:
        """Set the masks when training step `step`, just done, is a prune of the schedule; return whether it was."""
        return self.advance(step - 1, step, optimizer)

    def advance(self, before: int, after: int, optimizer: Any) -> bool:
        """Do the last prune that is due in the steps `before` + 1 .. `after`; return whether there was one.

        Call it after the optimizer's step: it keeps zeros at zero (`tfprune.pruning.momentum`).
        """
        due = [step for step in self.sparsity_at if before < step <= after]
        if due:
            earlier = max((step for step in self.sparsity_at if step < min(due)), default=0)
            self._set_masks(self.sparsity_at[max(due)], optimizer, steps=after - earlier)
        elif not holds_zeros(optimizer):
            self.bake()
        self.model.mask_step.assign(after)  # `fit` has counted it; a loop of one's own has not
        return bool(due)

    def _set_masks(self, sparsity: float, optimizer: Any, *, steps: int) -> None:
        if self.taps and not any(tap.numpy().any() for tap in self.taps):
            raise InputError(
                f"criterion '{type(self.criterion).__name__}' has no evidence to rank by: in a loop of your own "
                "call controller.gather after each gradient (MaskController shows how)"
            )
        wholes = self._assignment.wholes()
        self._assignment.assign(self._masks(sparsity, wholes, steps), wholes, optimizer)
        for layer in self.tapped:
            if layer.gathers != "movement":
                layer.evidence.assign(np.zeros(layer.evidence.shape, np.float32))

    def callback(self) -> Any:
        """Return a Keras callback that notes the sparsity in the logs of each epoch (history, TensorBoard).

        The masks need no callback.
        """
        return _SparsityLog(self)

    def bake(self) -> None:
        """Set masked weights to zero; needed only after an optimizer that moves weights without a gradient."""
        for layer in self._owners.values():
            layer.zero_masked()

    def strip(self) -> Any:
        """Return a new plain model with the zeros in its weights: outputs equal the masked model's bit for bit.

        Warns when the schedule has not ended: fewer zeros than it asks for are what an early stop leaves, and
        weights that `EarlyStopping(restore_best_weights=True)` took from before the end.
        """
        step = int(self.model.mask_step.numpy())
        reached = max((sparsity for due, sparsity in self.sparsity_at.items() if due <= step), default=0.0)
        if reached < self.final_sparsity:
            warnings.warn(
                f"the masks of '{self.model.name}' are at {reached:.1%} zeros after step {step}, and the schedule ends "
                f"at {self.final_sparsity:.1%} after step {self.last_step}. Train on until then, and restore no "
                "weights from before (EarlyStopping: start_from_epoch, or restore_best_weights=False)",
                stacklevel=2,
            )
        self.bake()
        return unwrap_model(self.model)

    def sparsity(self) -> list[LayerSparsity]:
        """Return the zeros of every masked kernel, from the masks."""
        rows = []
        for path, layer in zip(self.selection.masked, self.layers, strict=True):
            kept = int(np.count_nonzero(layer.mask.numpy()))
            size = int(layer.mask.shape.num_elements())
            rows.append(LayerSparsity(path, size, kept, 1 - kept / size))
        return rows

    def total_sparsity(self) -> float:
        """Return the fraction of zeros over all masked kernels, 0-1."""
        rows = self.sparsity()
        return 1 - sum(row.nonzero for row in rows) / sum(row.weights for row in rows)


def _default_scope(granularity: Granularity) -> str:
    unit = KERNELWISE.get(granularity) if isinstance(granularity, str) else granularity
    return "global" if isinstance(unit, Weight | Block) else "layer"


class _SparsityLog(keras.callbacks.Callback):
    def __init__(self, controller: MaskController) -> None:
        super().__init__()
        self.controller = controller

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["sparsity"] = self.controller.total_sparsity()
            logs.update({f"sparsity/{row.layer}": row.sparsity for row in self.controller.sparsity()})
