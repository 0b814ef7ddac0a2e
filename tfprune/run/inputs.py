"""What a run needs before it starts: data, the untrained net, and proof that every stage can be built."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures import build_model
from tfprune.architectures.files import ending_in_logits, load_model
from tfprune.channels import Plan, Removal, Selection, narrowed, remove_channels
from tfprune.criteria import CRITERIA, Criterion
from tfprune.data import GENERATORS
from tfprune.data.arrays import SegmentationArrays, load_arrays
from tfprune.data.augmentation import build_augmentation
from tfprune.data.copies import add_copies, drop_empty
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch
from tfprune.data.sets import SegmentationSet, open_set
from tfprune.errors import InputError, located
from tfprune.export import SCHEMES
from tfprune.export.calibration import spread
from tfprune.export.conversion import MINIMUM_CALIBRATION
from tfprune.objectives.losses import build_loss
from tfprune.pruning.channels import mask_channels
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import schedule_epochs
from tfprune.pruning.selection import Selection as LayerSelection
from tfprune.pruning.selection import select_layers
from tfprune.quantization.training import is_quantized
from tfprune.recipe.sections import Recipe
from tfprune.recipe.stages import Channels, Pruning, Regularization, Training
from tfprune.regularization.attaching import regularize_model
from tfprune.regularization.composite import Ramp
from tfprune.run.measures import activation_value_bytes, build_measures
from tfprune.targets.advice import export_untrained
from tfprune.training.distillation import distill
from tfprune.training.optimizers import build_learning_rate, build_optimizer
from tfprune.training.unfreezing import encoder_groups
from tfprune.verification.engines import AUTOMATIC, load_runtime
from tfprune.verification.runtimes import open_runtime

_MEASURED_ON = 100
"""Pictures that calibrate a file whose bytes or milliseconds are measured for a budget."""


@dataclass(frozen=True)
class Inputs:
    """The loaded data of a run; `arrays` has train, val and test."""

    dataset: SegmentationSet
    arrays: dict[str, SegmentationArrays]


def train_at_net_size(recipe: Recipe, inputs: Inputs) -> SegmentationArrays:
    """Return the train split at the net's size: its middle where it is larger, to be cropped at random."""
    train, (height, width) = inputs.arrays["train"], recipe.data.size
    top, left = (train.images.shape[1] - height) // 2, (train.images.shape[2] - width) // 2
    middle = (slice(None), slice(top, top + height), slice(left, left + width))
    return SegmentationArrays(train.stems, train.images[middle], train.masks[middle])


def load_inputs(recipe: Recipe, data: str | Path | None, model: str | Path | None, folder: Path) -> Inputs:
    """Open the set and read all its pictures at the net's size.

    Raises:
        InputError: when the recipe does not go with what is given, or with the data.
    """
    section = recipe.data
    if recipe.architecture is None and model is None:
        raise InputError("this recipe starts from a trained model: give it with --model FILE")
    if recipe.architecture is not None and model is not None:
        raise InputError("--model is given, and the recipe builds its own (architecture); drop one of them")
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
        merge_classes=section.merge_classes,
        stem_pattern=section.stem_pattern,
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
    if section.drop_empty:
        arrays["train"] = drop_empty(arrays["train"])
    arrays["train"] = add_copies(arrays["train"], section.copies, seed=recipe.seed)
    return Inputs(dataset, arrays)


def build_dense(recipe: Recipe, inputs: Inputs, model: str | Path | None, *, trust: bool = False) -> Any:
    """Build the untrained net of a recipe, or load the trained one that it starts from.

    Raises:
        InputError: when recipe, data and model do not fit together.
    """
    names = inputs.dataset.classes.names
    if model is not None:
        return _given_model(model, recipe, inputs, trust=trust)
    if recipe.architecture.head == "sigmoid" and len(names) != 2:
        raise InputError(
            f"architecture.head: sigmoid gives one output for two classes, and the set has {len(names)} "
            f"({', '.join(names)}); use softmax"
        )
    with located("architecture"):
        net = build_model(
            recipe.architecture.name,
            input_size=tuple(recipe.data.size),
            channels=inputs.dataset.channels,
            outputs=1 if recipe.architecture.head == "sigmoid" else len(names),
            seed=recipe.seed,
            **recipe.architecture.options,
        )
        ratio = recipe.architecture.width_ratio
        return net if ratio is None else narrowed(net, ratio, seed=recipe.seed)


def _given_model(path: str | Path, recipe: Recipe, inputs: Inputs, *, trust: bool) -> Any:
    model = ending_in_logits(load_model(path, trust=trust))
    if is_quantized(model):
        raise InputError(f"{path} was trained with the rounding of int8 already; give the model that it was made of")
    names, size = inputs.dataset.classes.names, (*recipe.data.size, inputs.dataset.channels)
    taken, outputs = model.input_shape[1:], model.output_shape[-1]
    if any(ours not in (None, theirs) for ours, theirs in zip(taken, size, strict=True)):
        raise InputError(f"{path} takes pictures (H, W, C) of {taken}, and the recipe and the data give {size}")
    if outputs != len(names) and not (outputs == 1 and len(names) == 2):
        raise InputError(f"{path} has {outputs} outputs, and the data has {len(names)} classes: {', '.join(names)}")
    return model


@dataclass(frozen=True)
class Plans:
    """What the later stages will do with the dense net; None where the recipe has no such stage.

    `regularize(model, first=...)` gives the model that is trained in its place; only a first stage has the ramp.
    `remove(model, selection, criterion=...)` removes what the recipe says, or what is asked for instead.
    """

    regularize: Callable[..., Any] | None
    controller: Callable[[Any], MaskController] | None
    remove: Callable[..., Removal] | None


def check_stages(recipe: Recipe, inputs: Inputs, model: Any) -> Plans:
    """Build everything that could fail later, and return how the later stages are built.

    Raises:
        InputError: when loss, optimizer, augmentation, pruning or channel removal cannot be built.
    """
    steps = steps_per_epoch(len(inputs.arrays["train"]), recipe.data.batch_size)
    _check_calibration(recipe, inputs)
    with located("verification"):
        _check_runtime(recipe, model)
    build_recipe_loss(recipe, inputs)
    build_recipe_augmentation(recipe, inputs)
    for name in ("training", "pruning", "fine_tuning", "channels", "quantization"):
        section = getattr(recipe, name)
        if section is not None:
            with located(name):
                stage_optimizer(section, steps)
    if recipe.training is not None and recipe.training.unfreeze_every_epochs:
        with located("training"):
            encoder_groups(model, recipe.training.unfreeze_groups)
    regularize = controller = remove = None
    if recipe.regularization is not None:
        regularize = partial(_regularize, recipe.regularization, steps)
        with located("regularization"):
            regularize(model, first=True)
    if recipe.pruning is not None:
        controller = partial(_mask, recipe.pruning, steps)
        with located("pruning"):
            controller(model)
    if recipe.channels is not None:
        remove = partial(_remove, recipe, inputs)
        with located("channels"):
            removal = remove(model, check=False)
            if recipe.channels.way == "gradual":
                gradual_masks(recipe.channels, steps, model, removal.plan)
            if recipe.channels.distillation is not None:
                distill(removal.model, model, **recipe.channels.distillation.model_dump())
    return Plans(regularize, controller, remove)


def _check_calibration(recipe: Recipe, inputs: Inputs) -> None:
    calibrated = [name for name in recipe.export.schemes if SCHEMES[name].calibrated]
    count = len(inputs.arrays["train"])
    if calibrated and count < MINIMUM_CALIBRATION:
        raise InputError(
            f"export.schemes: {', '.join(calibrated)} takes its ranges from at least {MINIMUM_CALIBRATION} train "
            f"pictures, and there are {count}; add pictures, turned ones with data.copies: [horizontal, vertical], "
            "or export other schemes, such as [float32, dynamic_int8]"
        )


def _check_runtime(recipe: Recipe, model: Any) -> None:
    """Find the runtime that will judge; one that does not run all that the converter writes opens untrained files."""
    section, size = recipe.verification, tuple(recipe.data.size)
    load_runtime(section.runtime)
    if section.runtime in ("auto", *AUTOMATIC):
        return
    with tempfile.TemporaryDirectory() as folder:
        for scheme in recipe.export.schemes:
            path = Path(folder, f"{scheme}.tflite")
            export_untrained(model, path, scheme=scheme, head=recipe.export.head, input_size=size)
            open_runtime(path, runtime=section.runtime).predict(np.zeros((*size, model.input_shape[-1]), np.uint8))


def _regularize(section: Regularization, steps: int, model: Any, *, first: bool) -> Any:
    return regularize_model(
        model,
        section.weights,
        section.gradients,
        ramp=Ramp(0, section.ramp_epochs * steps) if first and section.ramp_epochs else None,
        selection=layers_of(section, model),
    )


def layers_of(section: Pruning | Regularization, model: Any) -> LayerSelection:
    """Return which layers a section of a recipe acts on, and why the others are left alone."""
    return select_layers(model, min_weights=section.min_weights, include=section.include, exclude=section.exclude)


def _mask(section: Pruning, steps: int, model: Any) -> MaskController:
    schedule = schedule_epochs(
        section.schedule,
        section.final_sparsity,
        epochs=section.epochs,
        steps_per_epoch=steps,
        prunes=section.prunes,
        begin_epoch=section.begin_epoch,
        end_epoch=section.end_epoch,
        initial_sparsity=section.initial_sparsity,
    )
    return MaskController(
        model,
        schedule,
        criterion=section.criterion,
        selection=layers_of(section, model),
        granularity=section.granularity,
        scope=section.scope,
        normalize=section.normalize,
        layer_sparsity=section.layer_sparsity,
    )


def selection_of(section: Channels) -> Selection:
    """Return the selection that a recipe asks for."""
    return Selection(
        ratio=section.ratio,
        budget=section.budget or (),
        per_cost=section.per_cost,
        scope=section.scope,
        multiple_of=section.multiple_of,
        min_channels=section.min_channels,
        include=section.include,
        exclude=section.exclude,
    )


def gradual_masks(section: Channels, steps: int, model: Any, plan: Plan) -> MaskController | None:
    """Return the masks of the way gradual, with `steps` training steps per epoch; None where a plan takes nothing."""
    return mask_channels(
        model,
        plan,
        schedule=section.schedule or "polynomial",
        criterion=section.masked_by or section.criterion,
        steps=section.masked_epochs * steps,
    )


def _remove(
    recipe: Recipe,
    inputs: Inputs,
    model: Any,
    selection: Selection | None = None,
    *,
    criterion: str | Criterion | None = None,
    check: bool = True,
) -> Removal:
    section = recipe.channels
    criterion = criterion or section.criterion
    batches = loss = None
    if getattr(CRITERIA.get(criterion, criterion), "gathers", None) or section.sensitivity:
        batches = evaluation_batches(inputs.arrays["val"], batch_size=recipe.data.batch_size)
        loss = build_recipe_loss(recipe, inputs)
    return remove_channels(
        model,
        selection or selection_of(section),
        criterion=criterion,
        sensitivity=section.sensitivity and criterion == section.criterion,
        batches=batches,
        loss=loss,
        measures=build_measures(
            section.scheme,
            calibration=spread(train_at_net_size(recipe, inputs).images, _MEASURED_ON),
            head=recipe.export.head,
            input_size=tuple(recipe.data.size),
            threads=recipe.verification.threads,
        ),
        input_size=tuple(recipe.data.size),
        value_bytes=activation_value_bytes(section.scheme),
        check=check,
    )


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
    *_, height, width, channels = inputs.arrays["train"].images.shape
    return build_augmentation(
        recipe.data.augment,
        size=tuple(recipe.data.size),
        channels=channels,
        pictures=(height, width),
        where="data.augment",
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
