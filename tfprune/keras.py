"""The one place that picks a Keras: tf_keras (Keras 2), which tfmot and segmentation-models need.

Import `keras` and `tf` from here, never from `tensorflow` or `keras`:

    from tfprune.keras import keras, tf
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tfprune.errors import InputError

_SETTINGS = {"TF_USE_LEGACY_KERAS": "1", "SM_FRAMEWORK": "tf.keras"}

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True"):
    raise InputError(
        "TensorFlow was imported before tfprune and has chosen Keras 3; tfprune needs tf_keras (Keras 2). "
        "Import tfprune.keras before tensorflow, or set TF_USE_LEGACY_KERAS=1 and SM_FRAMEWORK=tf.keras "
        "in the environment before Python starts."
    )
os.environ.update(_SETTINGS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what native code writes to file descriptor 2; show it after all when the block fails.

    TensorFlow's start-up and converter notes bypass Python's logging and `sys.stderr`.
    """
    try:
        descriptor = os.dup(2)
    except OSError:  # no standard error at all, as under some GUIs
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(descriptor, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(descriptor, 2)
            os.close(descriptor)


try:
    with quiet_stderr():
        import tensorflow as tf

        keras = tf.keras
        keras.backend.experimental.enable_tf_random_generator()
except ImportError as error:
    raise InputError(
        f"this step needs TensorFlow with tf_keras, and it cannot be imported here ({error}). "
        "Install tfprune with its dependencies: pip install tfprune. "
        "Without TensorFlow only predict, verify and bench on .tflite files work."
    ) from error

tf.get_logger().setLevel("ERROR")

__all__ = ["keras", "quiet_stderr", "tf"]
