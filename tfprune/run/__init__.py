"""A recipe from data to report: every stage resumable, every result in the run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfprune.errors import InputError
from tfprune.export.calibration import spread
from tfprune.export.conversion import export_tflite
from tfprune.objectives.metrics import MeanIoU
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.recipe import Recipe, Training
from tfprune.records import atomic_path, write_json
from tfprune.report.page import write_report
from tfprune.run.folder import check_folder_is_ours, claim_folder, is_done, save_model
from tfprune.run.inputs import (
    Inputs,
    build_dense,
    build_recipe_augmentation,
    build_recipe_loss,
    check_stages,
    load_inputs,
    stage_optimizer,
)
from tfprune.training.stage import StageResult, fit_stage, set_determinism
from tfprune.verification.proof import ExportedFile, prove_files, sample_images

Progress = Callable[[str, list[dict[str, float]]], None]


def run_recipe(
    recipe: Recipe,
    *,
    data: str | Path | None = None,
    out: str | Path = "runs",
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Path:
    """Run a recipe, or go on where an earlier start of it was stopped; return the run folder.

    Args:
        recipe: a checked recipe (`tfprune.recipe.load_recipe`).
        data: the folder of the data; not needed for a generated set.
        out: the folder in which the run folder `recipe.name` lies.
        say: called with one line of text at each step.
        progress: called as `progress(stage, rows)` after each epoch.

    Raises:
        InputError: before anything is written, when recipe, data and model do not fit together.
    """
    folder = Path(out) / recipe.name
    check_folder_is_ours(folder, recipe)
    if is_done(folder):
        return folder
    set_determinism(recipe.seed)
    say("reading data")
    inputs, dense, build_controller = prepare(recipe, data, folder)
    claim_folder(folder, recipe, inputs)

    stages = [train_stage(recipe, "train", recipe.training, dense, inputs, folder, progress=progress)]
    save_model(dense, folder / "models" / "dense.keras")
    variants = {"dense": dense}
    if build_controller is not None:
        controller = build_controller(dense)
        stages += prune_stages(recipe, controller, inputs, folder, progress)
        variants["pruned"] = controller.strip()
        save_model(variants["pruned"], folder / "models" / "pruned.keras")
        write_sparsity(folder, recipe, controller, stages)
    say("exporting")
    files = export_variants(recipe, variants, inputs, folder)
    say("verifying the exported files on the test split")
    verify_variants(recipe, variants, files, inputs, folder)
    write_json(folder / "records" / "run.json", run_record(recipe, stages))
    write_report(folder)
    return folder


def prepare(recipe: Recipe, data: str | Path | None, folder: Path) -> tuple[Inputs, Any, Any]:
    """Return inputs, the untrained net and the builder of the mask controller; leave nothing behind on an error."""
    is_new = not folder.exists()
    try:
        inputs = load_inputs(recipe, data, folder)
        dense = build_dense(recipe, inputs)
        return inputs, dense, check_stages(recipe, inputs, dense)
    except InputError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


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
        lambda first_epoch: training_batches(
            train,
            batch_size=recipe.data.batch_size,
            epochs=section.epochs,
            first_epoch=first_epoch,
            seed=seed,
            augment=augment,
        ),
        epochs=section.epochs,
        steps_per_epoch=steps,
        loss=build_recipe_loss(recipe, inputs),
        optimizer=stage_optimizer(section, steps),
        validation=evaluation_batches(inputs.arrays["val"], batch_size=recipe.data.batch_size),
        metrics=[MeanIoU(classes=len(inputs.dataset.classes.names))],
        name=name,
        folder=folder / "stages" / name,
        seed=seed,
        best_from_epoch=best_from_epoch,
        early_stop_epochs=section.early_stop_epochs,
        plateau_epochs=plateau,
        callbacks=callbacks,
        tensorboard=True,
        report=progress,
    )


def prune_stages(
    recipe: Recipe, controller: MaskController, inputs: Inputs, folder: Path, progress: Progress | None
) -> list[StageResult]:
    """Ramp the masks up, take the batch-norm statistics anew, then fine-tune at fixed masks."""
    section = recipe.pruning
    ramp_end = (section.end_epoch or section.epochs) - 1
    run = partial(train_stage, recipe, inputs=inputs, folder=folder, model=controller.model, progress=progress)
    stages = [run("prune", section, callbacks=[controller.callback()], best_from_epoch=ramp_end)]
    train = evaluation_batches(inputs.arrays["train"], batch_size=recipe.data.batch_size)
    reestimate_batch_norm(controller.model, train)
    if recipe.fine_tuning is not None:
        stages.append(run("fine_tune", recipe.fine_tuning))
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


def export_variants(recipe: Recipe, variants: dict[str, Any], inputs: Inputs, folder: Path) -> list[ExportedFile]:
    """Export every variant in every scheme of the recipe."""
    calibration = spread(inputs.arrays["train"].images, recipe.export.calibration_images)
    files = []
    for variant, model in variants.items():
        for scheme in recipe.export.schemes:
            path = folder / "models" / f"{variant}_{scheme}.tflite"
            if not path.exists():
                export_tflite(
                    model,
                    path,
                    scheme=scheme,
                    head=recipe.export.head,
                    class_names=inputs.dataset.classes.names,
                    calibration=calibration,
                )
            files.append(ExportedFile(variant, scheme, path))
    return files


def verify_variants(
    recipe: Recipe, variants: dict[str, Any], files: list[ExportedFile], inputs: Inputs, folder: Path
) -> None:
    """Judge the files on the test split; write `records/verification.json` and `records/samples.npz`."""
    test, section = inputs.arrays["test"], recipe.verification
    record, predicted = prove_files(
        files,
        test.images,
        test.masks,
        class_names=inputs.dataset.classes.names,
        keras_classes={name: keras_class_maps(model, test.images) for name, model in variants.items()},
        runtime=section.runtime,
        threads=section.threads,
        latency_runs=section.latency_runs,
    )
    chosen = sample_images(len(test.images))
    with atomic_path(folder / "records" / "samples.npz") as temporary:
        np.savez_compressed(
            temporary,
            stems=np.asarray([test.stems[index] for index in chosen]),
            image=test.images[chosen],
            truth=test.masks[chosen],
            **{name: maps[chosen] for name, maps in predicted.items()},
        )
    record["dataset"]["name"] = inputs.dataset.name
    for row, file in zip(record["rows"], files, strict=True):
        row["file"] = file.path.relative_to(folder).as_posix()
    write_json(folder / "records" / "verification.json", record)


def keras_class_maps(model: Any, images: np.ndarray) -> np.ndarray:
    """Return the class maps (N, H, W) uint8 of a Keras model with logits at its end."""
    logits = model.predict(images.astype(np.float32), batch_size=8, verbose=0)
    return (logits[..., 0] > 0).astype(np.uint8) if logits.shape[-1] == 1 else logits.argmax(-1).astype(np.uint8)


def run_record(recipe: Recipe, stages: Sequence[StageResult]) -> dict[str, Any]:
    """Return the record of the stages of a finished run."""
    return {
        "name": recipe.name,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": sum(stage.seconds for stage in stages),
        "recipe": "recipe.yaml",
        "stages": [
            {
                "name": stage.name,
                "epochs": stage.epochs,
                "seconds": stage.seconds,
                "best_epoch": stage.best_epoch,
                "best_val_mean_iou": stage.best_val_mean_iou,
            }
            for stage in stages
        ],
    }
