"""What a run needs before it starts: data, the untrained net, and proof that every stage can be built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.architectures import build_model
from tfprune.criteria import CRITERIA
from tfprune.data import GENERATORS
from tfprune.data.arrays import SegmentationArrays, load_arrays
from tfprune.data.augmentation import build_augmentation
from tfprune.data.pipeline import steps_per_epoch
from tfprune.data.sets import SegmentationSet, open_set
from tfprune.errors import InputError, located
from tfprune.objectives.losses import build_loss
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import select_layers
from tfprune.recipe import Recipe, Training
from tfprune.training.optimizers import build_learning_rate, build_optimizer


@dataclass(frozen=True)
class Inputs:
    """The loaded data of a run; `arrays` has train, val and test."""

    dataset: SegmentationSet
    arrays: dict[str, SegmentationArrays]


def load_inputs(recipe: Recipe, data: str | Path | None, folder: Path) -> Inputs:
    """Open the set and read all its pictures at the net's size.

    Raises:
        InputError: when the data and the recipe do not fit together.
    """
    section = recipe.data
    if section.generate is not None:
        if data is not None:
            raise InputError("--data is given, and the recipe draws its own data (data.generate); drop one of them")
        data = folder / "data"
        GENERATORS[section.generate.set](
            data,
            classes=section.generate.classes,
            counts=dict(section.generate.counts),
            size=tuple(section.load_size or section.size),
            seed=section.generate.seed,
        )
    elif data is None:
        raise InputError("this recipe reads data from a folder: give it with --data DIR")
    dataset = open_set(
        data,
        class_names=section.class_names,
        ignore_index=section.ignore_index,
        colours=section.colours,
        channels=section.channels,
        split_file=section.split_file,
        group_pattern=section.group_pattern,
        val_share=section.val_share,
        test_share=section.test_share,
        seed=recipe.seed,
    )
    sizes = {"train": tuple(section.load_size or section.size)}
    arrays = {
        split: load_arrays(
            pairs, dataset.classes, size=sizes.get(split, tuple(section.size)), channels=dataset.channels
        )
        for split, pairs in dataset.splits.items()
    }
    return Inputs(dataset, arrays)


def build_dense(recipe: Recipe, inputs: Inputs) -> Any:
    """Build the untrained net of a recipe."""
    classes = len(inputs.dataset.classes.names)
    if recipe.architecture.head == "sigmoid" and classes != 2:
        raise InputError(
            f"architecture.head: sigmoid gives one output for two classes, and the set has {classes} "
            f"({', '.join(inputs.dataset.classes.names)}); use softmax"
        )
    with located("architecture"):
        return build_model(
            recipe.architecture.name,
            input_size=tuple(recipe.data.size),
            channels=inputs.dataset.channels,
            outputs=1 if recipe.architecture.head == "sigmoid" else classes,
            seed=recipe.seed,
            **recipe.architecture.options,
        )


def check_stages(recipe: Recipe, inputs: Inputs, model: Any) -> Callable[[Any], MaskController] | None:
    """Build everything that could fail later, and return the builder of the mask controller.

    Raises:
        InputError: when loss, optimizer, augmentation or pruning schedule cannot be built.
    """
    steps = steps_per_epoch(len(inputs.arrays["train"]), recipe.data.batch_size)
    build_recipe_loss(recipe, inputs)
    build_recipe_augmentation(recipe, inputs)
    for name in ("training", "pruning", "fine_tuning"):
        section = getattr(recipe, name)
        if section is not None:
            with located(name):
                stage_optimizer(section, steps)
    if recipe.pruning is None:
        return None
    section = recipe.pruning
    with located("pruning"):
        schedule = build_schedule(
            section.schedule,
            section.final_sparsity,
            begin_step=section.begin_epoch * steps,
            end_step=(section.end_epoch or section.epochs) * steps,
            prunes=section.prunes,
            initial_sparsity=section.initial_sparsity,
        )
        selection = select_layers(model, min_weights=section.min_weights)
    return lambda dense: MaskController(dense, schedule, criterion=CRITERIA[section.criterion], selection=selection)


def build_recipe_loss(recipe: Recipe, inputs: Inputs) -> Any:
    """Build the loss of a recipe for the classes of its data."""
    names = inputs.dataset.classes.names
    if recipe.class_weights is not None and len(recipe.class_weights) != len(names):
        raise InputError(
            f"class_weights has {len(recipe.class_weights)} numbers, and the set has {len(names)} classes: "
            f"{', '.join(names)}"
        )
    return build_loss(recipe.loss, class_weights=recipe.class_weights)


def build_recipe_augmentation(recipe: Recipe, inputs: Inputs) -> Any:
    """Build the augmentation of a recipe, or None when there is nothing to do."""
    if not recipe.data.augment and recipe.data.load_size in (None, recipe.data.size):
        return None
    return build_augmentation(
        recipe.data.augment, size=tuple(recipe.data.size), channels=inputs.dataset.channels, where="data.augment"
    )


def stage_optimizer(section: Training, steps: int) -> Any:
    """Build the optimizer of a stage with `steps` training steps per epoch."""
    rate = build_learning_rate(
        section.learning_rate_schedule,
        section.learning_rate,
        total_steps=section.epochs * steps,
        low=section.low_learning_rate,
        half_cycle_steps=section.half_cycle_steps,
    )
    return build_optimizer(section.optimizer, rate, **section.optimizer_options)
