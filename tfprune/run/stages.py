"""The stages of a run that train: the dense net and its masks, here or on several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.errors import InputError
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.cloning import copy_weights, unwrap_model
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.recipe.sections import Recipe
from tfprune.recipe.stages import Training
from tfprune.records import write_json
from tfprune.regularization.attaching import PenaltyLog
from tfprune.run.folder import save_model, shared_stage
from tfprune.run.inputs import (
    Inputs,
    Plans,
    build_recipe_augmentation,
    build_recipe_loss,
    stage_optimizer,
    train_at_net_size,
)
from tfprune.training.distribution import build_strategy, shard_batches
from tfprune.training.stage import StageResult, fit_stage
from tfprune.training.unfreezing import encoder_groups, only_open

Progress = Callable[[str, int, list[dict[str, float]]], None]


def start_strategy(recipe: Recipe) -> Any:
    """Return the strategy that a recipe's training is distributed by.

    Raises:
        InputError: when it cannot be had, or a batch cannot be shared evenly.
    """
    strategy = build_strategy(recipe.training.distribution)
    if recipe.data.batch_size % strategy.num_replicas_in_sync:
        raise InputError(
            f"data.batch_size is {recipe.data.batch_size}, and {strategy.num_replicas_in_sync} devices share each "
            "batch; give a multiple of their number"
        )
    return strategy


def train_dense(
    recipe: Recipe,
    dense: Any,
    plans: Plans,
    run_stage: Callable[..., StageResult],
    *,
    place: Path,
    shared: str | Path | None,
    scope: Callable[[], AbstractContextManager[Any]],
) -> list[StageResult]:
    """Train the dense net in place, with the recipe's regularizer and on its devices; return the stages, `train` last.

    With progressive unfreezing the stages in front of it are `frozen_0`, `frozen_1`, ...
    """
    section = recipe.training
    if section is None:
        return []
    with nullcontext(place) if shared is None else shared_stage(shared, recipe, place) as folder, scope():
        model = dense
        if plans.regularize is not None:
            model = plans.regularize(dense, first=True)
        elif section.distribution is not None:
            model = unwrap_model(dense)
        stages, epochs = [], section.epochs
        if section.unfreeze_every_epochs:
            groups = encoder_groups(model, section.unfreeze_groups)
            part = section.model_copy(update={"epochs": section.unfreeze_every_epochs})
            for opened in range(len(groups)):
                with only_open(groups, opened):
                    stages.append(run_stage(f"frozen_{opened}", part, model, folder=folder))
            epochs -= len(groups) * part.epochs
        stages.append(run_stage("train", section.model_copy(update={"epochs": epochs}), model, folder=folder))
    if model is not dense:
        copy_weights(model, dense)
    return stages


def prune_dense(
    recipe: Recipe,
    dense: Any,
    plans: Plans,
    inputs: Inputs,
    run_stage: Callable[..., StageResult],
    *,
    place: Path,
    scope: Callable[[], AbstractContextManager[Any]],
) -> tuple[Any, list[StageResult]]:
    """Return the net with zeros and the stages that it took, on the devices of the recipe."""
    with scope():
        regularized = plans.regularize(dense, first=recipe.training is None) if plans.regularize else dense
        controller = plans.controller(regularized)
        stages = prune_stages(recipe, controller, inputs, run_stage)
    pruned = controller.strip()
    save_model(pruned, place / "models" / "pruned.keras")
    write_sparsity(place, recipe, controller, stages)
    return pruned, stages


def train_longer(recipe: Recipe, dense: Any, run_stage: Callable[..., StageResult]) -> tuple[Any, StageResult]:
    """Return a copy of the dense net, trained on for the epochs of all stages after it, as the last of them says."""
    sections = [section for section in (recipe.pruning, recipe.fine_tuning, recipe.channels) if section is not None]
    section = sections[-1].model_copy(update={"epochs": sum(section.epochs for section in sections)})
    net = unwrap_model(dense)
    return net, run_stage("dense_longer", section, net)


def train_stage(
    recipe: Recipe,
    name: str,
    section: Training,
    model: Any,
    inputs: Inputs,
    folder: Path,
    *,
    progress: Progress | None,
    callbacks: Sequence[Any] = (),
    best_from_epoch: int = 0,
) -> StageResult:
    """Run one stage of the recipe on `model`, in place."""
    train, seed = inputs.arrays["train"], recipe.seed + sum(name.encode())
    steps = steps_per_epoch(len(train.images), recipe.data.batch_size)
    augment = build_recipe_augmentation(recipe, inputs)
    plateau = section.plateau_epochs or 5 if section.learning_rate_schedule == "on_plateau" else None
    return fit_stage(
        model,
        lambda first_epoch: shard_batches(
            training_batches(
                train,
                batch_size=recipe.data.batch_size,
                epochs=section.epochs,
                first_epoch=first_epoch,
                seed=seed,
                augment=augment,
            )
        ),
        epochs=section.epochs,
        steps_per_epoch=steps,
        loss=build_recipe_loss(recipe, inputs),
        optimizer=stage_optimizer(section, steps),
        validation=shard_batches(evaluation_batches(inputs.arrays["val"], batch_size=recipe.data.batch_size)),
        metrics=[MeanIoU(classes=len(inputs.dataset.classes.names))],
        name=name,
        folder=folder / "stages" / name,
        seed=seed,
        best_from_epoch=best_from_epoch,
        early_stop_epochs=section.early_stop_epochs,
        plateau_epochs=plateau,
        callbacks=[*callbacks, PenaltyLog()],
        tensorboard=True,
        report=None if progress is None else lambda stage, rows: progress(stage, section.epochs, rows),
    )


def prune_stages(
    recipe: Recipe, controller: MaskController, inputs: Inputs, run_stage: Callable[..., StageResult]
) -> list[StageResult]:
    """Ramp the masks up, take the batch-norm statistics anew, then fine-tune at fixed masks."""
    train = train_at_net_size(recipe, inputs)
    ramp_end = -(-controller.last_step // steps_per_epoch(len(train), recipe.data.batch_size))
    callbacks = [controller.callback()]
    stages = [
        run_stage("prune", recipe.pruning, controller.model, callbacks=callbacks, best_from_epoch=max(ramp_end - 1, 0))
    ]
    reestimate_batch_norm(controller.model, evaluation_batches(train, batch_size=recipe.data.batch_size))
    if recipe.fine_tuning is not None:
        stages.append(run_stage("fine_tune", recipe.fine_tuning, controller.model))
    return stages


def write_sparsity(folder: Path, recipe: Recipe, controller: MaskController, stages: Sequence[StageResult]) -> None:
    """Write `records/sparsity.json`: zeros per layer, and what stayed dense and why."""
    kernels = controller.sparsity()
    total = sum(layer.count_params() for layer in controller.strip().layers)
    history = [
        {"stage": stage.name, "epoch": row["epoch"], "sparsity": row["sparsity"]}
        for stage in stages
        for row in stage.history
        if "sparsity" in row
    ]
    write_json(
        folder / "records" / "sparsity.json",
        {
            "target": recipe.pruning.final_sparsity,
            "layers": kernels,
            "dense": controller.selection.dense,
            "wrapped_sparsity": controller.total_sparsity(),
            "total_sparsity": sum(row.weights - row.nonzero for row in kernels) / total,
            "history": history,
        },
    )
