"""One confusion count of class maps, from which every overlap score comes (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError
from tfprune.records import IGNORE_ID


@dataclass(frozen=True)
class Counts:
    """Pixels per class, one against the rest: each field is int64 (..., K)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @classmethod
    def from_confusion(cls, confusion: np.ndarray) -> Counts:
        """Return the counts of confusion matrices (..., K, K) with the truth in rows.

        >>> Counts.from_confusion(np.array([[5, 1], [2, 4]])).fp
        array([2, 1])
        """
        confusion = np.asarray(confusion, np.int64)
        tp = np.diagonal(confusion, axis1=-2, axis2=-1)
        fp = confusion.sum(-2) - tp
        fn = confusion.sum(-1) - tp
        return cls(tp, fp, fn, confusion.sum((-2, -1))[..., None] - tp - fp - fn)


def count_confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how often each true class is answered with each class.

    Args:
        truth: integer class ids of any shape; pixels that are `IGNORE_ID` are left out.
        predicted: integer class ids of the same shape.
        classes: number of classes K.

    Returns:
        int64 (K, K), rows = truth, columns = prediction.

    Raises:
        InputError: when the shapes differ, the values are not integers, or an id is not below `classes`.

    >>> count_confusion(np.array([0, 1, 1, 255]), np.array([0, 0, 1, 1]), 2)
    array([[1, 0],
           [1, 1]])
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise InputError(f"truth and prediction differ in shape: {truth.shape} and {predicted.shape}")
    for name, values in (("truth", truth), ("prediction", predicted)):
        if values.dtype.kind not in "iub":
            raise InputError(f"the {name} must hold integer class ids, not {values.dtype}")
    judged = truth != IGNORE_ID
    if not judged.all():
        truth, predicted = truth[judged], predicted[judged]
    for name, values in (("truth", truth), ("prediction", predicted)):
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise InputError(
                f"the {name} holds class ids {values.min()} to {values.max()}, but {classes} classes allow "
                f"0 to {classes - 1} (and {IGNORE_ID} in the truth for pixels that are not judged)"
            )
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def count_confusions(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return one confusion matrix per image, int64 (N, K, K), for class maps (N, H, W)."""
    if len(truth) != len(predicted):
        raise InputError(f"there are {len(truth)} true and {len(predicted)} predicted class maps")
    images = [count_confusion(one, other, classes) for one, other in zip(truth, predicted, strict=True)]
    return np.stack(images) if images else np.zeros((0, classes, classes), np.int64)
