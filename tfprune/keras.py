"""The one place that picks a Keras: tf_keras (Keras 2), which tfmot and segmentation-models need.

Import `keras` and `tf` from here, never from `tensorflow` or `keras`:

    from tfprune.keras import keras, tf
"""

from __future__ import annotations

import os
import sys

from tfprune.errors import InputError
from tfprune.silence import quiet_stderr

_SETTINGS = {"TF_USE_LEGACY_KERAS": "1", "SM_FRAMEWORK": "tf.keras"}

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True"):
    raise InputError(
        "TensorFlow was imported before tfprune and has chosen Keras 3; tfprune needs tf_keras (Keras 2). "
        "Import tfprune.keras before tensorflow, or set TF_USE_LEGACY_KERAS=1 and SM_FRAMEWORK=tf.keras "
        "in the environment before Python starts."
    )
os.environ.update(_SETTINGS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    with quiet_stderr():
        import tensorflow as tf

        keras = tf.keras
        tf.config.list_physical_devices("GPU")  # looks for a driver, and complains about its absence, here
        # Generators that can be reset make dropout a function of seed and epoch (tfprune.training.stage).
        keras.backend.experimental.enable_tf_random_generator()
except ImportError as error:
    raise InputError(
        f"this step needs TensorFlow with tf_keras, and it cannot be imported here ({error}). "
        "Install tfprune with its dependencies: pip install tfprune. "
        "Without TensorFlow only predict, verify and bench on .tflite files work."
    ) from error

tf.get_logger().setLevel("ERROR")

__all__ = ["finish_weights", "keras", "tf"]


def finish_weights(model: keras.layers.Layer) -> None:
    """Let a model or layer whose weights were just set make of them what it computes with.

    An adapted `Normalization` keeps its mean and variance twice, and computes with those that are no weights.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
