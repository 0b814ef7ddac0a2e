"""A layer whose masked weights are zero and kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.keras import keras, tf
from tfprune.pruning.graph import filter_axis

from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

_REGULARIZED = ("kernel", "bias", "gamma", "beta", "depthwise_kernel", "pointwise_kernel")


@keras.utils.register_keras_serializable("tfprune")
class MaskedLayer(pruning_wrapper.PruneLowMagnitude):
    """tfmot's wrapper with masks that are not destructive and cost next to nothing between updates.

    tfmot assigns `w <- w * m` in every forward pass and lets the optimizer move what it masks: a
    pruned weight is lost for ever, and between a step and the next forward pass nothing is zero.
    Here a masked weight *is* zero, its value waits in a variable of its own (`kept`) and comes back
    when the mask does, and the gradient passes through a gate that holds the zeros at zero:
    backward g * m for the weight, and, when a criterion asks, t = g * w for its evidence (for
    movement, of the whole weight w + kept: see `tfprune.criteria.GATHERED`).
    So weight decay, clipping, regularizers, checkpoints and `strip_pruning` all see the sparse net.
    Masks are set from outside (`tfprune.pruning.controller`).

    Args:
        layer: the layer inside, one that this wrapper may own.
        masked: the names of its weights that have a mask; the kernel first.
        gathers: what is gathered about the kernel (`tfprune.criteria.GATHERED`), or None.
    """

    def __init__(
        self, layer: Any, *, masked: Sequence[str] = ("kernel",), gathers: str | None = None, **kwargs: Any
    ) -> None:
        self.masked, self.gathers = tuple(masked), gathers
        # tfmot's way for a layer to say what is masked in it; it also opens layers that are not in its registry.
        layer.get_prunable_weights = lambda: [getattr(layer, name) for name in masked]
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        # Keras looks for it in the layer that is called, which is this one.
        self._activity_regularizer = getattr(layer, "_activity_regularizer", None)

    def build(self, input_shape: Any) -> None:
        """Build the layer inside, its masks, and the variables of kept values and evidence."""
        super().build(input_shape)
        self.kept = [self._state(f"kept_{name}", self.variable(name).shape) for name in self.masked]
        shape = self.variable(self.masked[0]).shape
        self.evidence, self.moments = None, []
        if self.gathers:
            of_filters = self.gathers == "taylor_filters"
            self.evidence = self._state("evidence", [shape[filter_axis(self.layer)]] if of_filters else shape)
        if self.gathers == "movement":
            self.moments = [self._state(name, shape) for name in ("evidence_mean", "evidence_square")]
        self._gate_regularizers()

    def _state(self, name: str, shape: Any) -> Any:
        return self.add_weight(
            name,
            shape=shape,
            initializer="zeros",
            dtype=tf.float32,
            trainable=False,
            experimental_autocast=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _gate_regularizers(self) -> None:
        """Let the regularizers of masked weights reach them through the mask, and leave evidence alone."""
        losses = []
        for name in _REGULARIZED:
            regularizer = getattr(self.layer, f"{name.removesuffix('_kernel')}_regularizer", None)
            if regularizer is not None and getattr(self.layer, name, None) is not None:
                losses.append((regularizer, name))
        self.layer._callable_losses = [
            lambda regularizer=regularizer, name=name: regularizer(self.gated(name)) for regularizer, name in losses
        ]

    def gated(self, name: str) -> Any:
        """Return a weight whose gradient passes through its mask and leaves evidence alone."""
        if name not in self.masked:
            return getattr(self.layer, name)
        weight, mask, _ = self.pruning_vars[self.masked.index(name)]
        return _gate(tf.convert_to_tensor(weight), tf.convert_to_tensor(mask))

    def variable(self, name: str) -> Any:
        """Return the variable of a weight of the layer inside."""
        return getattr(self.layer, name)

    @property
    def kernel(self) -> Any:
        """The first masked weight: zero where the mask is."""
        return self.pruning_vars[0][0]

    @property
    def mask(self) -> Any:
        """The 0/1 mask of the kernel, of its shape."""
        return self.pruning_vars[0][1]

    def whole(self, name: str) -> Any:
        """Return a weight with the values that masked weights keep, a float32 tensor."""
        weight = tf.cast(tf.convert_to_tensor(self.variable(name)), tf.float32)
        return weight + self.kept[self.masked.index(name)] if name in self.masked else weight

    def set_mask(self, name: str, mask: Any, whole: Any = None) -> None:
        """Mask a weight anew: what is dropped is kept aside, what is not comes back.

        Args:
            mask: bool tensor or array of the weight's shape.
            whole: what `whole(name)` gave, when it is at hand.
        """
        index = self.masked.index(name)
        variable, mask_variable, _ = self.pruning_vars[index]
        whole = self.whole(name) if whole is None else whole
        mask = tf.cast(mask, tf.float32)
        dropped = whole - whole * mask
        # Not whole * mask, in which a dropped negative is -0.0, which does not compress.
        variable.assign(tf.cast(whole - dropped, variable.dtype))
        self.kept[index].assign(dropped)
        mask_variable.assign(tf.cast(mask, mask_variable.dtype))

    def zero_masked(self) -> None:
        """Set masked weights back to zero, after an optimizer that moves weights without a gradient."""
        for weight, mask, _ in self.pruning_vars:
            weight.assign(tf.where(tf.cast(mask, tf.bool), weight, 0.0))

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Apply the layer with its masked weights behind their gates."""
        if self.layer._expects_training_arg:
            kwargs["training"] = training
        # object.__setattr__ goes past Keras' tracking: the variable stays the layer's weight.
        for index, (name, (weight, mask, _)) in enumerate(zip(self.masked, self.pruning_vars, strict=True)):
            object.__setattr__(self.layer, name, self._gate_of(index, weight, mask))
        try:
            return self.layer.call(inputs, **kwargs)
        finally:
            for name, (weight, _, _) in zip(self.masked, self.pruning_vars, strict=True):
                object.__setattr__(self.layer, name, weight)

    def _gate_of(self, index: int, weight: Any, mask: Any) -> Any:
        value = tf.convert_to_tensor(weight)
        mask = tf.cast(mask, value.dtype)
        if self.evidence is None or (index and self.gathers != "taylor_filters"):
            return _gate(value, mask)
        whole, tap = tf.cast(value, tf.float32), tf.convert_to_tensor(self.evidence)
        if self.gathers == "movement":
            whole += tf.convert_to_tensor(self.kept[index])
        axis = filter_axis(self.layer) if value.shape.rank > 1 else -1
        return _gate_with_tap(value, mask, whole, tap, axis=axis)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; the schedule belongs to the model."""
        config = super(pruning_wrapper.PruneLowMagnitude, self).get_config()
        return {**config, "masked": list(self.masked), "gathers": self.gathers}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLayer:
        """Return the wrapper of a config, with its layer."""
        config = dict(config)
        return cls(keras.layers.deserialize(config.pop("layer")), **config)


@tf.custom_gradient
def _gate(weight: Any, mask: Any) -> Any:
    return tf.identity(weight), lambda gradient: (gradient * mask, None)


def _gate_with_tap(weight: Any, mask: Any, whole: Any, tap: Any, *, axis: int) -> Any:
    """Gate a weight; the gradient of `tap` is t = g * whole, summed over each filter when tap is (filters,)."""
    kernel_rank, by_filter = weight.shape.rank, weight.shape != tap.shape

    @tf.custom_gradient
    def gate(weight: Any, mask: Any, whole: Any, tap: Any) -> Any:
        def backward(gradient: Any) -> Any:
            moved = tf.cast(gradient, tf.float32) * whole
            if by_filter and kernel_rank == 1:  # a bias with a depth multiplier
                moved = tf.reduce_sum(tf.reshape(moved, (tap.shape[0], -1)), 1)
            elif by_filter:
                moved = tf.reduce_sum(moved, [i for i in range(kernel_rank) if i != kernel_rank + axis])
            return gradient * mask, None, None, moved

        return tf.identity(weight), backward

    return gate(weight, mask, whole, tap)
