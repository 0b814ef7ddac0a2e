"""The model that sets its own masks while it trains."""

from __future__ import annotations

import pkgutil
from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.gathering import gather_evidence


@keras.utils.register_keras_serializable("tfprune")
class MaskedModel(keras.Model):
    """A functional model with masked layers and the controller that owns the masks.

    `fit` and `train_on_batch` gather evidence in the training step and set the masks between
    steps, on the host, so that no callback can be forgotten and a step carries no conditions
    (`jit_compile=True` works). `mask_step` counts the steps trained since wrapping; it is saved
    with the weights, so that a loaded model goes on in its schedule.
    """

    # The arguments are those of Keras' Functional: by them it knows that a config can rebuild the graph.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True) -> None:
        super().__init__(inputs, outputs, name=name, trainable=trainable)
        self.mask_step = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="mask_step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self._hold_controller(None)

    def _hold_controller(self, controller: Any) -> None:
        # Past Keras' tracking: the controller holds this model in turn.
        object.__setattr__(self, "controller", controller)
        object.__setattr__(self, "_gathers", False)

    def make_train_function(self, force: bool = False) -> Any:
        """Return Keras' training function, followed by the mask update when one is due."""
        if self.controller is None:  # a clone by Keras, or what tfmot's strip_pruning leaves
            return super().make_train_function(force)
        is_open = int(self.mask_step.numpy()) < self.controller.last_step
        object.__setattr__(self, "_gathers", is_open and bool(self.controller.taps))
        if self._gathers and not hasattr(self.optimizer, "compute_gradients"):
            raise InputError(
                f"a criterion that gathers gradients needs an optimizer of today's kind; {type(self.optimizer)} is a "
                "legacy one. Take its namesake from keras.optimizers."
            )
        function = super().make_train_function(force)
        if not isinstance(function, _TrainAndMask):
            function = self.train_function = _TrainAndMask(function, self)
        return function

    def train_step(self, data: Any) -> Any:
        """Train on one batch, and gather the evidence that the criterion asks for.

        The gradient of the evidence passes through the layers only, so it is of the task loss
        without the regularizers; it comes before clipping and weight decay.
        """
        step = self.mask_step.assign_add(1)
        if not self._gathers:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        taps, variables = self.controller.taps, self.trainable_variables
        with tf.GradientTape() as tape:
            tape.watch(taps)
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted, sample_weight)
        self._validate_target_and_loss(y, loss)
        pairs = self.optimizer.compute_gradients(loss, [*variables, *taps], tape)
        gather_evidence(self.controller.tapped, [gradient for gradient, _ in pairs[len(variables) :]], step=step)
        self.optimizer.apply_gradients(pairs[: len(variables)])
        return self.compute_metrics(x, y, predicted, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the functional model's config, and as `masking` the controller's class and config."""
        config = super().get_config()
        if self.controller is not None:
            kind = type(self.controller)
            config["masking"] = {
                "controller": f"{kind.__module__}:{kind.__qualname__}",
                "config": self.controller.get_config(),
            }
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MaskedModel:
        """Return the model of a config, with its controller, whose class the config names as Keras names a layer's.

        Raises:
            InputError: when that class is not where it was.
        """
        config = dict(config)
        masking = config.pop("masking", None)
        model = super().from_config(config, custom_objects)
        if masking is not None:
            _find_class(masking["controller"]).restore(model, masking["config"])
        return model


def _find_class(name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the model was saved with the controller '{name}' (module:class), which is not there to import: {error}"
        ) from error


class _TrainAndMask:
    """Keras' training function and then the masks."""

    def __init__(self, function: Any, model: MaskedModel) -> None:
        self.function, self.model = function, model

    def __call__(self, iterator: Any) -> Any:
        before = int(self.model.mask_step.numpy())
        logs = self.function(iterator)
        self.model.controller.advance(before, int(self.model.mask_step.numpy()), self.model.optimizer)
        return logs


def check_wrappable(model: Any) -> None:
    """Refuse a model whose own training step would be lost.

    Raises:
        InputError: with what to do instead.
    """
    if isinstance(model, MaskedModel):
        raise InputError(f"model '{model.name}' is masked already; go on with it, or wrap `controller.strip()`")
    if isinstance(model, keras.Model) and type(model).train_step is not keras.Model.train_step:
        raise InputError(
            f"model '{model.name}' ({type(model).__name__}) has a train_step of its own, which masking would replace. "
            "Wrap keras.Model(model.inputs, model.outputs) and train it in a loop of your own "
            "(MaskController shows one)."
        )
