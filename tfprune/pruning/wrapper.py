"""A layer that computes with masked weights and keeps the weights themselves."""

from __future__ import annotations

from typing import Any

from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

from tfprune.keras import keras
from tfprune.pruning.selection import prunable_kernel


@keras.utils.register_keras_serializable("tfprune")
class MaskedLayer(pruning_wrapper.PruneLowMagnitude):
    """tfmot's wrapper with masks that are not destructive.

    tfmot assigns `w <- w * m` in every forward pass, so that a pruned weight is lost for ever.
    Here the layer computes with `w * m` and `w` stays: a weight whose score rises again comes
    back with its value. The gradient of a masked weight is zero by the chain rule. The masks are
    set from outside (`tfprune.pruning.controller`), so that a training step carries no pruning
    logic. It is still a `PruneLowMagnitude`: `tfmot.sparsity.keras.strip_pruning` works on it.
    """

    def build(self, input_shape: Any) -> None:
        """Build the layer inside and its mask."""
        super().build(input_shape)
        self.kernel_name = prunable_kernel(self.layer)

    @property
    def kernel(self) -> Any:
        """The weights that the mask acts on."""
        return getattr(self.layer, self.kernel_name)

    @property
    def mask(self) -> Any:
        """The 0/1 mask, of the kernel's shape."""
        return self.pruning_vars[0][1]

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Apply the layer with its kernel replaced by kernel * mask."""
        kernel = self.kernel
        if self.layer._expects_training_arg:
            kwargs["training"] = training
        # object.__setattr__ goes past Keras' tracking: the variable stays the layer's weight.
        object.__setattr__(self.layer, self.kernel_name, kernel * self.mask)
        try:
            return self.layer.call(inputs, **kwargs)
        finally:
            object.__setattr__(self.layer, self.kernel_name, kernel)
