"""How benchmarks train plain U-Nets and judge them: the same recipe for every method that is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tfprune.data.arrays import SegmentationArrays
from tfprune.data.augmentation import build_augmentation
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.objectives.counts import count_confusion
from tfprune.objectives.losses import build_loss
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.training.optimizers import build_learning_rate, build_optimizer
from tfprune.training.stage import fit_stage


def train(
    model: Any,
    data: Mapping[str, SegmentationArrays],
    epochs: int,
    *,
    rate: float,
    seed: int,
    batch_size: int,
    prepare: Callable[[Any], Any] = lambda batches: batches,
    **settings: Any,
) -> None:
    """Train in place with flips, cross entropy + Dice, Adam on a cosine; the best epoch on validation stays.

    Args:
        model: a net, masked or not.
        data: the splits `train` and `val`.
        epochs: how many.
        rate: the first learning rate.
        seed: of the order of the pictures and of the flips.
        batch_size: pictures in a batch.
        prepare: changes the `tf.data.Dataset` of batches of either split.
        settings: further arguments of `fit_stage`.
    """
    pictures = data["train"]
    steps = steps_per_epoch(len(pictures), batch_size)
    _, height, width, channels = pictures.images.shape
    flips = build_augmentation(["HorizontalFlip", "VerticalFlip"], size=(height, width), channels=channels)
    batches = partial(training_batches, pictures, batch_size=batch_size, epochs=epochs, seed=seed, augment=flips)
    fit_stage(
        model,
        lambda first: prepare(batches(first_epoch=first)),
        epochs=epochs,
        steps_per_epoch=steps,
        loss=build_loss([{"cross_entropy": {}}, {"dice": {}}]),
        optimizer=build_optimizer("adam", build_learning_rate("cosine", rate, total_steps=epochs * steps)),
        validation=prepare(evaluation_batches(data["val"], batch_size=batch_size)),
        metrics=[MeanIoU(int(model.output_shape[-1]))],
        seed=seed,
        **settings,
    )


def settle_norms(plain: Any, pictures: SegmentationArrays) -> None:
    """Take the batch-norm statistics of a stripped net anew, over whole batches of 32 pictures."""
    images = pictures.images.astype(np.float32)
    reestimate_batch_norm(plain, (images[i : i + 32] for i in range(0, len(images) - 31 or 1, 32)))


def measure_class_iou(model: Any, pictures: SegmentationArrays, *, batch_size: int) -> float:
    """Return the IoU of class 1 over all pictures together."""
    answers = model.predict(pictures.images.astype(np.float32), batch_size=batch_size, verbose=0).argmax(-1)
    confusion = count_confusion(pictures.masks, answers.astype(np.uint8), int(model.output_shape[-1]))
    return float(confusion[1, 1] / max(1, confusion[1].sum() + confusion[:, 1].sum() - confusion[1, 1]))
