"""The model that sets its own masks while it trains."""

from __future__ import annotations

from typing import Any

from tfprune.channels.sampling import is_symbolic
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.gathering import gather_evidence
from tfprune.pruning.named import find_class, name_class, read_part, write_part

from tf_keras.src.engine.functional import Functional

_LOST = ("call", "train_step", "test_step", "compute_loss", "compute_metrics", "make_train_function")
"""Methods of `keras.Model` that decide what is trained, and stand in no graph of layers."""


@keras.utils.register_keras_serializable("tfprune")
class MaskedModel(keras.Model):
    """A functional model that owns its training step, for masks, for a composite regularizer, or for both.

    `fit` and `train_on_batch` gather evidence in the training step and set the masks between
    steps, on the host, so that no callback can be forgotten and a step carries no conditions
    (`jit_compile=True` works). `mask_step` counts the steps trained since wrapping; it is saved
    with the weights, so that a loaded model goes on in its schedule.

    `composite` is what `tfprune.regularization` wants of a training step (its `Composite`), or None.
    """

    composite: Any = None

    # The arguments are those of Keras' Functional: by them it knows that a config can rebuild the graph.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True) -> None:
        super().__init__(inputs, outputs, name=name, trainable=trainable)
        self.mask_step = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="mask_step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self._hold_controller(None)
        # Past Keras' tracking: it is no metric of the evaluation.
        object.__setattr__(self, "_h_share", keras.metrics.Mean(name="h_share"))

    def _hold_controller(self, controller: Any) -> None:
        # Past Keras' tracking: the controller holds this model in turn.
        object.__setattr__(self, "controller", controller)
        object.__setattr__(self, "_gathers", False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs.

        Raises:
            InputError: when the model becomes a part of another one, whose training step knows no masks.
        """
        symbolic = any(is_symbolic(item) for item in tf.nest.flatten((args, kwargs)))
        if symbolic and self.controller is not None and int(self.mask_step.numpy()) < self.controller.last_step:
            raise InputError(
                f"model '{self.name}' is masked, and as a part of another model its masks would never move: make the "
                "whole model first and mask that, or take `controller.strip()`"
            )
        return super().__call__(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Return Keras' training function, followed by the mask update when one is due."""
        if self.controller is not None:
            is_open = int(self.mask_step.numpy()) < self.controller.last_step
            object.__setattr__(self, "_gathers", is_open and bool(self.controller.taps))
        if (self._gathers or self.composite is not None) and not hasattr(self.optimizer, "compute_gradients"):
            raise InputError(
                "gathering gradients, and a composite regularizer, need an optimizer of today's kind; "
                f"{type(self.optimizer)} is a legacy one. Take its namesake from keras.optimizers."
            )
        _check_optimizer(self)
        function = super().make_train_function(force)
        # Without a controller it is a composite alone, a clone by Keras, or what tfmot's strip_pruning leaves.
        if self.controller is not None and not isinstance(function, _TrainAndMask):
            function = self.train_function = _TrainAndMask(function, self)
        return function

    def train_step(self, data: Any) -> Any:
        """Train on one batch, and gather the evidence that the criterion asks for.

        The gradient of the evidence passes through the layers only, so it is of the task loss
        without the regularizers; it comes before clipping and weight decay.
        """
        step = self.mask_step.assign_add(1)
        if not self._gathers and self.composite is None:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        taps, variables = self.controller.taps if self._gathers else [], self.trainable_variables
        predicted = None

        def loss_of_batch() -> Any:
            nonlocal predicted
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted, sample_weight)
            self._validate_target_and_loss(y, loss)
            return loss

        if self.composite is None:
            with tf.GradientTape() as tape:
                tape.watch(taps)
                loss = loss_of_batch()
            pairs = self.optimizer.compute_gradients(loss, [*variables, *taps], tape)
            pairs, of_taps = pairs[: len(variables)], [gradient for gradient, _ in pairs[len(variables) :]]
        else:
            found = self.composite.gradients(self, loss_of_batch, step=step, taps=taps, optimizer=self.optimizer)
            pairs, of_taps = zip(found.variables, variables, strict=True), found.taps
            self._h_share.update_state(found.h_share)
        if taps:
            gather_evidence(self.controller.tapped, of_taps, step=step)
        self.optimizer.apply_gradients(pairs)
        logs = self.compute_metrics(x, y, predicted, sample_weight)
        if self.composite is not None and self.composite.reading is not None:
            logs["h_share"] = self._h_share.result()
        return logs

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        """Return the loss of a batch; with a composite only the task in it has a gradient."""
        if self.composite is None:
            return super().compute_loss(x, y, y_pred, sample_weight)
        penalties = [tf.stop_gradient(penalty) for penalty in self.losses]
        return self.compiled_loss(y, y_pred, sample_weight, regularization_losses=penalties)

    @property
    def losses(self) -> list[Any]:
        """The losses of the layers themselves, and last that of the composite, as far as its ramp is."""
        if self.composite is None:
            return super().losses
        return [*super().losses, self.composite.share(self.mask_step) * self.composite.penalty(self)]

    def reset_metrics(self) -> None:
        """Begin the means of an epoch."""
        super().reset_metrics()
        self._h_share.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Return the functional model's config, as `masking` the controller's class and config, and the composite's."""
        config = super().get_config()
        if self.controller is not None:
            config["masking"] = {"controller": name_class(self.controller), "config": self.controller.get_config()}
        if self.composite is not None:
            config["composite"] = write_part(self.composite)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MaskedModel:
        """Return the model of a config, with its controller and composite, whose classes the config names.

        Raises:
            InputError: when such a class is not where it was.
        """
        config = dict(config)
        masking, composite = config.pop("masking", None), config.pop("composite", None)
        model = super().from_config(config, custom_objects)
        model.composite = read_part(composite)
        if masking is not None:
            find_class(masking["controller"]).restore(model, masking["config"])
        return model


class _TrainAndMask:
    """Keras' training function and then the masks."""

    def __init__(self, function: Any, model: MaskedModel) -> None:
        self.function, self.model = function, model

    def __call__(self, iterator: Any) -> Any:
        before = int(self.model.mask_step.numpy())
        logs = self.function(iterator)
        self.model.controller.advance(before, int(self.model.mask_step.numpy()), self.model.optimizer)
        return logs


def _check_optimizer(model: MaskedModel) -> None:
    """Refuse an optimizer made for other variables, such as those of the model that was wrapped."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    known = getattr(optimizer, "_index_dict", {}) if getattr(optimizer, "_built", False) else None
    if known is not None and any(optimizer._var_key(variable) not in known for variable in model.trainable_variables):
        raise InputError(
            f"the optimizer {optimizer.name} does not know all variables of '{model.name}': it has trained another "
            "model, or fewer layers of this one. Compile with a new one: "
            "type(optimizer).from_config(optimizer.get_config())."
        )


def check_wrappable(model: Any) -> None:
    """Refuse a model whose own training step would be lost.

    Raises:
        InputError: with what to do instead.
    """
    if isinstance(model, MaskedModel) and model.controller is None and model.composite is not None:
        return  # regularized, and masks go with that
    if isinstance(model, MaskedModel):
        raise InputError(f"model '{model.name}' is masked already; go on with it, or wrap `controller.strip()`")
    for part in model._flatten_layers() if isinstance(model, keras.Model) else ():
        if isinstance(part, MaskedModel):
            raise InputError(f"model '{part.name}' inside '{model.name}' is masked; wrap its `controller.strip()`")
        if isinstance(part, keras.Model) and part._callable_losses:
            raise InputError(
                f"model '{part.name}' has a loss that is a function, by add_loss, and a model made of its layers has "
                "other variables than it reads. Give add_loss a tensor of the model, or a layer a regularizer."
            )
        own = [name for name in _LOST if (part is model or name == "call") and _overrides(part, name)]
        if own:
            raise InputError(
                f"model '{part.name}' ({type(part).__name__}) has a {own[0]} of its own, and a model made of its "
                "layers has not. Take keras.Model(model.inputs, model.outputs) and train it in a loop of your own "
                "(MaskController shows one)."
            )


def _overrides(model: Any, name: str) -> bool:
    """Return whether a functional model has a method of its own."""
    if not getattr(model, "_is_graph_network", False):
        return False
    plain = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    return getattr(type(model), name) is not getattr(plain, name)
