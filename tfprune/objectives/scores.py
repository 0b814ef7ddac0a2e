"""Scores of segmentations (numpy only; the boundary IoU needs scipy).

Everything that the overlap counts can tell comes from confusion matrices; only the boundary IoU needs the class maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.objectives.counts import Counts, count_confusions
from tfprune.records import IGNORE_ID


def score_confusions(confusions: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Score confusion matrices of images, int (N, K, K) with the truth in rows.

    All scores are of the whole set (counts summed over the images first) but for the one named
    imagewise. A score that does not exist (the IoU of a class that is neither in the truth nor in
    the prediction, the precision of a class that is never predicted) is None and left out of means.

    Returns:
        By class name: `iou` (Jaccard), `dice` (F1), `precision`, `sensitivity` (recall) and
        `specificity`, each class against the rest; `truth_ratio` and `answer_ratio`, the share of the
        judged pixels that are of the class and that are answered as it. Single numbers: `mean_iou`, `mean_dice`,
        `mean_iou_foreground` (without class 0), `pixel_accuracy`, `error` (1 - pixel_accuracy),
        `balanced_accuracy` (mean sensitivity of the classes in the truth; for two classes
        (sensitivity + specificity) / 2), and `micro_imagewise_iou` (per image TP / (TP + FP + FN)
        with the counts summed over all classes, then the mean over images; "micro-imagewise" of
        segmentation_models_pytorch). These cover (11)-(17) of arXiv 2210.07451. `kaggle_dice` is what
        `kaggle_dice` returns.

    Raises:
        InputError: when the matrices are not (N, K, K) for K class names.

    >>> scores = score_confusions(np.array([[[6, 2], [0, 2]]]), ["background", "corrosion"])
    >>> scores["iou"], scores["mean_iou"], scores["pixel_accuracy"]
    ({'background': 0.75, 'corrosion': 0.5}, 0.625, 0.8)
    """
    confusions = np.asarray(confusions, np.int64)
    names = list(class_names)
    if confusions.ndim != 3 or confusions.shape[1:] != (len(names), len(names)):
        raise InputError(
            f"confusion matrices of {len(names)} classes ({', '.join(names)}) must have the shape "
            f"(N, {len(names)}, {len(names)}), not {confusions.shape}"
        )
    total = confusions.sum(0)
    counts = Counts.from_confusion(total)
    iou = _ratio(counts.tp, counts.tp + counts.fp + counts.fn)
    dice = _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    sensitivity = _ratio(counts.tp, counts.tp + counts.fn)
    accuracy = _ratio(counts.tp.sum(), total.sum())
    return {
        "iou": _named(iou, names),
        "mean_iou": _mean(iou),
        "mean_iou_foreground": _mean(iou[1:]),
        "dice": _named(dice, names),
        "mean_dice": _mean(dice),
        "precision": _named(_ratio(counts.tp, counts.tp + counts.fp), names),
        "sensitivity": _named(sensitivity, names),
        "specificity": _named(_ratio(counts.tn, counts.tn + counts.fp), names),
        "truth_ratio": _named(_ratio(total.sum(1), total.sum()), names),
        "answer_ratio": _named(_ratio(total.sum(0), total.sum()), names),
        "pixel_accuracy": _mean(accuracy),
        "balanced_accuracy": _mean(sensitivity),
        "error": _mean(1 - accuracy),
        "micro_imagewise_iou": _mean(_micro_iou(confusions)),
        "kaggle_dice": _dice_of_images(confusions),
    }


def boundary_iou(
    truth: np.ndarray, predicted: np.ndarray, classes: int, dilation_ratio: float = 0.02
) -> tuple[float | None, ...]:
    """Return the boundary IoU of each class over a set of class maps (N, H, W).

    The boundary of a class are its pixels within d = max(1, round(dilation_ratio * diagonal)) steps
    (3x3 erosions; outside the image, and what is not judged, counts as another class) of pixels that
    are not of the class.
    Intersections and unions are summed over the images; pixels that are not judged are left out.
    A class in neither is None. Source: Cheng et al., "Boundary IoU", CVPR 2021.

    Raises:
        InputError: when the shapes differ or are not (N, H, W).
    """
    truth, predicted = _class_maps(truth, predicted)
    height, width = truth.shape[1:]
    distance = max(1, round(dilation_ratio * float(np.hypot(height, width))))
    predicted = np.where(truth == IGNORE_ID, IGNORE_ID, predicted)
    scores = []
    for class_id in range(classes):
        true_edge = _boundary(truth == class_id, distance)
        predicted_edge = _boundary(predicted == class_id, distance)
        union = int((true_edge | predicted_edge).sum())
        scores.append(int((true_edge & predicted_edge).sum()) / union if union else None)
    return tuple(scores)


def kaggle_dice(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float | None]:
    """Return the Severstal competition's Dice of class maps (N, H, W), and what puts it in proportion.

    Returns:
        `score`: the mean over images and foreground classes, 1 where truth and prediction are both
        empty; `all_empty`: the score of answering class 0 everywhere; `defect_positive`: the mean
        over only those pairs of image and class whose truth is not empty (None without any).

    Raises:
        InputError: when the shapes differ or are not (N, H, W), or an id is not below `classes`.

    >>> truth = np.array([[[0, 1, 1, 0]], [[0, 0, 0, 0]]], np.uint8)
    >>> kaggle_dice(truth, np.array([[[0, 1, 0, 0]], [[0, 0, 0, 0]]], np.uint8), 2)["all_empty"]
    0.5
    """
    return _dice_of_images(count_confusions(*_class_maps(truth, predicted), classes))


def _dice_of_images(confusions: np.ndarray) -> dict[str, float | None]:
    counts = Counts.from_confusion(confusions)
    tp, fp, fn = counts.tp[:, 1:], counts.fp[:, 1:], counts.fn[:, 1:]
    dice = _ratio(2 * tp, 2 * tp + fp + fn)
    dice[np.isnan(dice)] = 1.0
    positive = tp + fn > 0
    return {
        "score": _mean(dice),
        "all_empty": _mean((~positive).astype(float)),
        "defect_positive": _mean(dice[positive]),
    }


def _class_maps(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 3:
        raise InputError(
            f"truth and prediction must both be class maps (N, H, W), but have {truth.shape} and {predicted.shape}"
        )
    return truth, predicted


def _boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Return the pixels of masks (N, H, W) that `distance` erosions with a 3x3 square take away."""
    from scipy.ndimage import minimum_filter  # not there on a board that verifies files

    side = 2 * distance + 1
    kept = minimum_filter(mask.astype(np.uint8), size=(1, side, side), mode="constant", cval=0)
    return mask & (kept == 0)


def _micro_iou(confusions: np.ndarray) -> np.ndarray:
    counts = Counts.from_confusion(confusions)
    return _ratio(counts.tp.sum(-1), (counts.tp + counts.fp + counts.fn).sum(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole as float64, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float | None:
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _named(values: np.ndarray, names: list[str]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
