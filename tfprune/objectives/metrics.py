"""Keras metrics that read the model's raw output and leave pixels out that are not judged."""

from __future__ import annotations

from typing import Any

from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.records import IGNORE_ID


@keras.utils.register_keras_serializable("tfprune")
class MeanIoU(keras.metrics.Metric):
    """Mean IoU of the classes that are in the truth or in the answer, over all batches since the last reset.

    Truth: class ids (N, H, W) with `IGNORE_ID`; output: (N, H, W, K), K = 1 for two classes.
    """

    def __init__(
        self, classes: int, *, from_logits: bool = True, name: str | None = "mean_iou", dtype: Any = None
    ) -> None:
        """Take the number of classes (2 for K = 1), and whether outputs are logits or probabilities."""
        super().__init__(name=name, dtype=dtype)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise InputError(f"classes must be a whole number of at least 2 (one sigmoid output is 2), not {classes!r}")
        self.classes = classes
        self.from_logits = from_logits
        # float64: float32 stops counting at 16.7 million pixels
        self.confusion = self.add_weight(
            name="confusion", shape=(classes, classes), initializer="zeros", dtype=tf.float64
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; `sample_weight` (N,) or (N, H, W) multiplies its pixels."""
        truth = tf.cast(y_true, tf.int32)
        outputs = tf.convert_to_tensor(y_pred)
        if outputs.shape[-1] == 1:
            answer = tf.cast(outputs[..., 0] > (0.0 if self.from_logits else 0.5), tf.int32)
        else:
            answer = tf.argmax(outputs, -1, output_type=tf.int32)
        judged = tf.not_equal(truth, IGNORE_ID)
        weights = tf.cast(judged, tf.float64)
        if sample_weight is not None:
            given = tf.cast(sample_weight, tf.float64)
            weights *= given if given.shape.rank == 3 else tf.reshape(given, [-1, 1, 1])
        self.confusion.assign_add(
            tf.math.confusion_matrix(
                tf.reshape(tf.where(judged, truth, 0), [-1]),
                tf.reshape(answer, [-1]),
                num_classes=self.classes,
                weights=tf.reshape(weights, [-1]),
                dtype=tf.float64,
            )
        )

    def result(self) -> Any:
        """Return the mean IoU, 0 before the first pixel."""
        hits = tf.linalg.diag_part(self.confusion)
        union = tf.reduce_sum(self.confusion, 0) + tf.reduce_sum(self.confusion, 1) - hits
        seen = tf.reduce_sum(tf.cast(union > 0, tf.float64))
        mean = tf.math.divide_no_nan(tf.reduce_sum(tf.math.divide_no_nan(hits, union)), seen)
        return tf.cast(mean, tf.float32)

    def reset_state(self) -> None:
        """Forget all batches."""
        self.confusion.assign(tf.zeros_like(self.confusion))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same metric."""
        return {**super().get_config(), "classes": self.classes, "from_logits": self.from_logits}
