"""A recipe from data to report: every stage resumable, every result in the run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.arrays import count_classes
from tfprune.errors import InputError
from tfprune.export import SCHEMES
from tfprune.export.calibration import choose_calibration
from tfprune.export.conversion import export_tflite
from tfprune.quantization.training import describe_quantized, quantize_model
from tfprune.recipe.sections import Recipe
from tfprune.records import atomic_path, write_json
from tfprune.report.page import write_report
from tfprune.run.folder import check_folder_is_ours, claim_folder, is_done, save_model
from tfprune.run.inputs import (
    Inputs,
    Plans,
    build_dense,
    check_stages,
    layers_of,
    load_inputs,
    train_at_net_size,
)
from tfprune.run.shrinking import Shrinker
from tfprune.run.stages import Progress, prune_dense, start_strategy, train_dense, train_longer, train_stage
from tfprune.targets import find_target
from tfprune.targets.advice import check_tool, measure_on
from tfprune.targets.lint import gathered, lint_file
from tfprune.training.distribution import is_chief, own_folder
from tfprune.training.stage import StageResult, set_determinism
from tfprune.verification.answers import PostProcessing
from tfprune.verification.proof import ExportedFile, prove_files, sample_images


def run_recipe(
    recipe: Recipe,
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    trust: bool = False,
    out: str | Path = "runs",
    shared: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> Path:
    """Run a recipe, or go on where an earlier start of it was stopped; return the run folder.

    Args:
        recipe: a checked recipe (`tfprune.recipe.load_recipe`).
        data: the folder of the data; not needed for a generated set.
        model: the trained Keras model that a recipe without architecture starts from.
        trust: run code in the model file, such as Lambda layers.
        out: the folder in which the run folder `recipe.name` lies.
        shared: a folder where runs that train the same dense net share its stage: the first trains it.
        say: called with one line of text at each step.
        progress: called as `progress(stage, epochs, rows)` after each of the stage's epochs.

    Raises:
        InputError: before anything is written, when recipe, data and model do not fit together.
    """
    if recipe.search is not None:
        raise InputError(
            "this recipe has a search section: start it with `tfprune search run`, or run it as it is written with "
            "--set search=null"
        )
    folder = Path(out) / recipe.name
    check_folder_is_ours(folder, recipe)
    if is_done(folder):
        return folder
    distribution = recipe.training.distribution if recipe.training is not None else None
    with own_folder(folder, distribution) as place:
        scope = nullcontext if distribution is None else start_strategy(recipe).scope
        set_determinism(recipe.seed)
        say("reading data")
        inputs, dense, plans = prepare(recipe, data, model, place, trust=trust)
        claim_folder(place, recipe, inputs, model)
        tell_absent_classes(inputs, say)
        run_stage = partial(train_stage, recipe, inputs=inputs, folder=place, progress=progress)
        stages = train_dense(recipe, dense, plans, run_stage, place=place, shared=shared, scope=scope)
        save_model(dense, place / "models" / "dense.keras")
        variants = {"dense": dense}
        if plans.controller is not None:
            variants["pruned"], pruned = prune_dense(recipe, dense, plans, inputs, run_stage, place=place, scope=scope)
            stages += pruned
    if not is_chief(distribution):
        return folder
    if recipe.regularization is not None:
        write_regularization(folder, recipe, dense)
    if plans.remove is not None:
        shrinker = Shrinker(recipe, inputs, dense, plans.remove, run_stage, folder)
        stages += shrink(shrinker, variants)
    if "dense_longer" in recipe.controls:
        variants["dense_longer"], stage = train_longer(recipe, dense, run_stage)
        stages.append(stage)
        save_model(variants["dense_longer"], folder / "models" / "dense_longer.keras")
    pictures = calibrate(recipe, dense, inputs, folder)
    if recipe.quantization is not None:
        stages.append(quantize(recipe, variants, pictures, run_stage, folder))
    say("exporting")
    files = export_variants(recipe, variants, inputs, pictures, folder)
    say("verifying the exported files on the test split")
    verify_variants(recipe, variants, files, inputs, folder)
    if recipe.verification.target is not None:
        say(f"holding the files against {recipe.verification.target}")
        write_json(folder / "records" / "target.json", target_record(recipe.verification.target, files))
    write_json(folder / "records" / "run.json", run_record(recipe, stages))
    write_report(folder)
    return folder


def prepare(
    recipe: Recipe, data: str | Path | None, model: str | Path | None, folder: Path, *, trust: bool = False
) -> tuple[Inputs, Any, Plans]:
    """Return inputs, the dense net and the plans of the later stages; leave nothing behind on an error."""
    if recipe.verification.target is not None:
        check_tool(recipe.verification.target)
    is_new, is_first = not folder.exists(), not folder.parent.exists()
    try:
        inputs = load_inputs(recipe, data, model, folder)
        dense = build_dense(recipe, inputs, model, trust=trust)
        return inputs, dense, check_stages(recipe, inputs, dense)
    except InputError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        if is_first:
            with suppress(OSError):  # another run has begun there since
                folder.parent.rmdir()
        raise


def tell_absent_classes(inputs: Inputs, say: Callable[[str], None]) -> None:
    """Say which classes no net can learn, or be judged by, as a part of the data shows them nowhere."""
    for split, arrays in inputs.arrays.items():
        absent = [name for name, count in count_classes(arrays.masks, inputs.dataset.classes).items() if not count]
        if absent:
            say(f"{split} holds no pixel of: {', '.join(absent)} (at this size; see `tfprune data check`)")


def shrink(shrinker: Shrinker, variants: dict[str, Any]) -> list[StageResult]:
    """Add the shrunk net and the controls beside it to `variants`; return their stages."""
    model = variants.get("pruned", shrinker.dense)
    variants["shrunk"], stages = shrinker.shrink(model)
    controls = shrinker.controls(model, variants["shrunk"])
    for name, (net, stage) in controls.items():
        variants[name] = net
        stages.append(stage)
    for name in ("shrunk", *controls):
        save_model(variants[name], shrinker.folder / "models" / f"{name}.keras")
    return stages


def quantize(
    recipe: Recipe,
    variants: dict[str, Any],
    pictures: np.ndarray,
    run_stage: Callable[..., StageResult],
    folder: Path,
) -> StageResult:
    """Train the last net with the rounding of its int8 files; add it to `variants` and return the stage."""
    origin = next(name for name in ("shrunk", "pruned", "dense") if name in variants)
    net = quantize_model(variants[origin], pictures, keep_zeros=recipe.quantization.keep_zeros)
    stage = run_stage("quantize", recipe.quantization, net)
    variants["quantized"] = net
    save_model(net, folder / "models" / "quantized.keras")
    write_json(
        folder / "records" / "quantization.json",
        {"origin": origin, "keep_zeros": recipe.quantization.keep_zeros, **describe_quantized(net)},
    )
    return stage


def write_regularization(folder: Path, recipe: Recipe, dense: Any) -> None:
    """Write `records/regularization.json`: the strengths, the layers, and what was left alone and why."""
    section = recipe.regularization
    layers = layers_of(section, dense)
    write_json(
        folder / "records" / "regularization.json",
        {
            "weights": section.weights,
            "gradients": section.gradients or {},
            "ramp_epochs": section.ramp_epochs,
            "layers": layers.masked,
            "left_alone": layers.dense,
        },
    )


def calibrate(recipe: Recipe, dense: Any, inputs: Inputs, folder: Path) -> np.ndarray | None:
    """Choose the pictures that set the ranges of integer files; write `records/calibration.json`.

    Returns:
        uint8 (N, H, W, C), or None when the recipe exports no integer file.
    """
    if not any(SCHEMES[scheme].calibrated for scheme in recipe.export.schemes):
        return None
    train = train_at_net_size(recipe, inputs)
    chosen = choose_calibration(
        train.images,
        train.masks,
        class_names=inputs.dataset.classes.names,
        count=recipe.export.calibration_images,
        model=dense,
    )
    write_json(folder / "records" / "calibration.json", {**chosen.record, "clip": recipe.export.clip})
    return chosen.pictures


def export_variants(
    recipe: Recipe, variants: dict[str, Any], inputs: Inputs, pictures: np.ndarray | None, folder: Path
) -> list[ExportedFile]:
    """Export every variant in every scheme of the recipe, the quantized one in those that it trained for."""
    files = []
    for variant, model in variants.items():
        for scheme in recipe.export.schemes:
            row = SCHEMES[scheme]
            if variant == "quantized" and row.activations != "int8":
                continue
            calibrated = row.calibrated and variant != "quantized"
            path = folder / "models" / f"{variant}_{scheme}.tflite"
            if not path.exists():
                export_tflite(
                    model,
                    path,
                    scheme=scheme,
                    head=recipe.export.head,
                    resize_v2=recipe.export.resize_v2,
                    class_names=inputs.dataset.classes.names,
                    calibration=pictures,
                    clip=recipe.export.clip if calibrated else 0.0,
                    keep_float=recipe.export.keep_float if calibrated and row.activations == "int8" else 0,
                    input_size=tuple(recipe.data.size),
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
        also=section.also,
        threads=section.threads,
        latency_runs=section.latency_runs,
        processing=PostProcessing(
            section.min_pixels,
            tuple(section.random_walker) if section.random_walker else None,
            section.blank_is_empty,
        ),
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


def target_record(target: str, files: Sequence[ExportedFile]) -> dict[str, Any]:
    """Return what a target makes of the files in its scheme: what maps, what falls back, and what they cost there."""
    chosen = find_target(target)
    paths = {file.variant: file.path for file in files if file.scheme == chosen.scheme}
    figures, said = measure_on(target, paths)
    rows = []
    for row in figures:
        verdict = lint_file(paths[row.variant], target)
        findings = [{**asdict(found), "count": len(places)} for found, places in gathered(verdict.findings)]
        counts = {"operators": len(verdict.operators), "unmapped": len(verdict.unmapped)}
        rows.append({**asdict(row), **counts, "scheme": chosen.scheme, "findings": findings})
    return {"target": target, "summary": chosen.summary, "said": said, "rows": rows}


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
