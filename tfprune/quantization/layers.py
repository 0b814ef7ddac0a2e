"""Layers that compute in float32 with the rounding of an int8 file."""

from __future__ import annotations

from typing import Any

from tfprune.keras import keras, tf
from tfprune.quantization.folding import KERNELS

from tensorflow_model_optimization.python.core.quantization.keras.quant_ops import MovingAvgQuantize

HIGHEST = 127
_DECAY = 0.99
"""Share of a range that a batch leaves as it is; tfmot's .999 needs thousands of steps to follow the weights."""


@keras.utils.register_keras_serializable("tfprune")
class LearntRange(keras.layers.Layer):
    """Rounds a tensor to 256 steps over a range that follows the batches while it trains.

    Args:
        fixed: (low, high) of a range that stays, such as that of pixels.
    """

    def __init__(self, fixed: tuple[float, float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fixed = None if fixed is None else tuple(float(end) for end in fixed)

    def build(self, input_shape: Any) -> None:
        """Make the two ends of the range."""
        ends = self.fixed or (-6.0, 6.0)
        self.low, self.high = (
            self.add_weight(
                name,
                (),
                initializer=keras.initializers.Constant(end),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
            for name, end in zip(("low", "high"), ends, strict=True)
        )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the tensor rounded; gradients pass where it lies within the range (Jacob et al. 2018)."""
        follows = bool(training) and self.trainable and self.fixed is None
        return MovingAvgQuantize(inputs, self.low, self.high, ema_decay=_DECAY, is_training=follows)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "fixed": self.fixed}


@keras.utils.register_keras_serializable("tfprune")
class QuantizedLayer(keras.layers.Wrapper):
    """Computes a layer with its kernel rounded to int8, 127 steps per filter on either side of zero.

    The step of a filter is its largest weight / 127, now: a file that is written at any time holds the kernel that
    the layer computes with.

    Args:
        layer: one of `tfprune.quantization.folding.KERNELS`.
        keep_zeros: weights that are zero when `note_zeros` is called stay zero.
    """

    def __init__(self, layer: Any, *, keep_zeros: bool = True, **options: Any) -> None:
        super().__init__(layer, **{"name": layer.name, **options})
        self.keep_zeros = keep_zeros
        self._activity_regularizer = layer.activity_regularizer  # Keras applies it to what `call` returns

    def build(self, input_shape: Any) -> None:
        """Build the layer, and the mask of its zeros."""
        super().build(input_shape)
        self.mask = None
        if self.keep_zeros:
            shape = self.kernel.shape
            self.mask = self.add_weight("mask", shape, dtype="uint8", initializer="ones", trainable=False)

    @property
    def kernel(self) -> Any:
        """The variable that is rounded."""
        return getattr(self.layer, KERNELS[type(self.layer)])

    def note_zeros(self) -> None:
        """Keep the weights that are zero now at zero from now on."""
        if self.mask is not None:
            self.mask.assign(tf.cast(self.kernel != 0, tf.uint8))

    def rounded(self) -> Any:
        """Return the kernel as an int8 file holds it, in float32; its gradient is that of the kernel."""
        kernel = tf.convert_to_tensor(self.kernel)
        if self.mask is not None:
            kernel *= tf.cast(self.mask, kernel.dtype)
        filters = {keras.layers.Conv2DTranspose: (2,), keras.layers.DepthwiseConv2D: (2, 3)}
        kept = filters.get(type(self.layer), (kernel.shape.rank - 1,))
        others = [axis for axis in range(kernel.shape.rank) if axis not in kept]
        largest = tf.reduce_max(tf.abs(kernel), others, keepdims=True)
        step = tf.stop_gradient(tf.where(largest > 0, largest, 1.0) / HIGHEST)
        return kernel + tf.stop_gradient(tf.round(kernel / step) * step - kernel)

    def call(self, inputs: Any) -> Any:
        """Return what the layer makes of the inputs with its kernel rounded."""
        name, variable = KERNELS[type(self.layer)], self.kernel
        # object.__setattr__ goes past Keras' tracking: the variable stays the layer's weight.
        object.__setattr__(self.layer, name, self.rounded())
        try:
            return self.layer.call(inputs)
        finally:
            object.__setattr__(self.layer, name, variable)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "keep_zeros": self.keep_zeros}
