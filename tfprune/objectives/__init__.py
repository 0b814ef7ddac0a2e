"""What is optimised and what is judged: overlap counts, scores, losses, and a Keras metric.

`counts` and `scores` need numpy only (the boundary IoU scipy). `losses` and `metrics` import TensorFlow, so
import them by their full name: `from tfprune.objectives.losses import build_loss`.
"""

from __future__ import annotations

from tfprune.objectives.counts import Counts, count_confusion, count_confusions
from tfprune.objectives.scores import boundary_iou, kaggle_dice, score_confusions

LOSSES: dict[str, str] = {
    "tversky": "tfprune.objectives.losses:Tversky",
    "dice": "tfprune.objectives.losses:Dice",
    "soft_iou": "tfprune.objectives.losses:SoftIoU",
    "focal": "tfprune.objectives.losses:Focal",
    "cross_entropy": "tfprune.objectives.losses:CrossEntropy",
    "bce_dice": "tfprune.objectives.losses:bce_dice",
}
"""Name of a loss -> `module:object` that builds it; strings, because that module imports TensorFlow."""

__all__ = ["LOSSES", "Counts", "boundary_iou", "count_confusion", "count_confusions", "kaggle_dice", "score_confusions"]
