"""A model of one's own, trained with a composite regularizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.pruning.cloning import clone_layers
from tfprune.pruning.graph import Call, filter_axis, norms_after, prunable_kernel, trace_calls
from tfprune.pruning.masked_model import MaskedModel, check_wrappable
from tfprune.pruning.selection import Selection, select_layers
from tfprune.regularization import GRADIENT_READINGS, REGULARIZERS
from tfprune.regularization.building import Parameters, build_penalty, build_reading
from tfprune.regularization.composite import Composite, Placed
from tfprune.regularization.penalties import Orthogonality


def regularize_model(
    model: Any,
    weights: Mapping[str, Parameters] | None = None,
    gradients: Mapping[str, Parameters] | None = None,
    *,
    ramp: Any = None,
    selection: Selection | None = None,
) -> MaskedModel:
    """Return a new model that is trained on f = task + lambda sum R(W_l) + beta sum H(S_l).

    `fit` it, or hand it to `MaskController` first, whose `strip()` gives a plain model. `fit` logs `h_share`,
    H / size, where gradients are looked at; with the callback `PenaltyLog()` also R. In a loop of one's own:

    >>> from tfprune.keras import keras, tf
    >>> net = keras.Sequential([keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3)), keras.layers.Conv2D(2, 1)])
    >>> model = regularize_model(
    ...     net,
    ...     {"orthogonality": {"strength": 0.1}},
    ...     {"threshold": {"sparsity": 0.5}},
    ...     selection=select_layers(net, min_weights=1),
    ... )
    >>> optimizer, loss = keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError()
    >>> images, truth = tf.random.stateless_normal((2, 8, 8, 3), (0, 1)), tf.zeros((2, 6, 6, 2))
    >>> for step in (1, 2):
    ...     task = lambda: loss(truth, model(images, training=True))
    ...     found = model.composite.gradients(model, task, step=step)
    ...     _ = optimizer.apply_gradients(zip(found.variables, model.trainable_variables))
    >>> float(found.h_share), list(model.composite.measures(model))
    (0.5, ['orthogonality'])

    With penalties alone such a loop needs no more than `loss(truth, prediction) + tf.add_n(model.losses)`.

    Args:
        model: a functional tf_keras model, or a `Sequential` one; it is not changed.
        weights: penalties by name (`REGULARIZERS`), each with its parameters, such as
            `{"orthogonality": {"strength": 0.1, "normalize_rows": True}}`; a regularizer that a
            layer has already stays. `orthogonality` leaves depthwise kernels out.
        gradients: one reading of H by name (`GRADIENT_READINGS`) with its parameters.
        ramp: training step -> share of all strengths: a `Ramp`, or a callable with a config.
        selection: which layers, as for masks (default `select_layers(model)`).

    Raises:
        InputError: for an unknown name or parameter, or when there is nothing to act on.
    """
    check_wrappable(model)
    if isinstance(model, MaskedModel):
        raise InputError(f"model '{model.name}' is regularized already; begin with the one that it was made from")
    if not weights and not gradients:
        raise InputError(
            f"nothing to regularize by: give weights ({', '.join(REGULARIZERS)}) or gradients "
            f"({', '.join(GRADIENT_READINGS)})"
        )
    selection = selection or select_layers(model)
    calls, _ = trace_calls(model)
    penalties = []
    for name, parameters in (weights or {}).items():
        found = list(_place(name, parameters, calls, selection))
        if not found:
            raise InputError(f"regularizer {name} finds nothing to act on in {', '.join(selection.masked)}")
        penalties += found
    reading = build_reading(gradients) if gradients else None
    regularized = clone_layers(model, lambda path, layer: layer, build=MaskedModel)
    regularized.composite = Composite(tuple(penalties), selection.masked, reading, ramp)
    return regularized


def _place(name: str, parameters: Parameters, calls: list[Call], selection: Selection) -> Iterator[Placed]:
    """Yield a penalty for each selected layer that has the weight it acts on."""
    layers, norms = {call.path: call.layer for call in calls}, norms_after(calls)
    for path in selection.masked:
        kernel = prunable_kernel(layers[path])
        penalty = build_penalty(name, parameters, filter_axis=filter_axis(layers[path]))
        if penalty.acts_on == "gamma":
            norm_path, norm = norms.get(path, ("", None))
            if norm is not None and norm.scale:
                yield Placed(norm_path, "gamma", penalty)
        elif not (isinstance(penalty, Orthogonality) and kernel == "depthwise_kernel"):
            yield Placed(path, kernel, penalty)


class PenaltyLog(keras.callbacks.Callback):
    """Notes the measures of the penalties, without strengths, in the logs of each epoch (history, TensorBoard)."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the measures, if the model has any."""
        composite = getattr(self.model, "composite", None)
        if logs is not None and composite is not None:
            logs.update({name: float(value) for name, value in composite.measures(self.model).items()})
