"""A recipe as the trials of a search: what it costs by shape, what its run gives, and what runs share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfprune.data.sets import SegmentationSet
from tfprune.keras import keras
from tfprune.objectives.scores import score_confusions
from tfprune.recipe import check_recipe
from tfprune.recipe.ranges import put_values, searched_content
from tfprune.recipe.search import QUALITIES
from tfprune.recipe.sections import Recipe
from tfprune.records import read_json
from tfprune.report.wording import as_command, as_cost, as_score, describe_values
from tfprune.run import prepare, run_recipe
from tfprune.run.folder import check_folder_is_ours, claim_folder
from tfprune.run.inputs import Inputs, build_dense, load_inputs
from tfprune.search.searching import Task, say_nothing, search
from tfprune.search.tracking import log_as_they_end
from tfprune.search.trials import RejectedTrial, TrialRecord, bounded_costs, explain_broken, find_broken, find_limits
from tfprune.search.workers import search_with_workers
from tfprune.targets.advice import export_untrained
from tfprune.verification.arena import measure_arena
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.quality import measure_quality
from tfprune.verification.runtimes import open_runtime

SHAPED = ("macs", "parameters", "file_bytes", "activation_bytes", "arena_bytes")
"""The costs that an untrained net has already: no weight changes them."""
_RESUMING = ("state.npz", "best.npz")


def search_recipe(
    recipe: Recipe,
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    trust: bool = False,
    out: str | Path = "runs",
    workers: int = 1,
    mlflow: str | None = None,
    say: Callable[[str], None] = say_nothing,
) -> Path:
    """Search a recipe, or go on where an earlier start was stopped; return the folder of the search.

    Args:
        recipe: with a search section.
        data, model, trust: as `tfprune.run.run_recipe` takes them.
        out: the folder in which that of the search lies, under the recipe's name.
        workers: trials at a time, each in a process of its own.
        mlflow: address of an MLflow server that gets every trial as it ends; see `tfprune.search.tracking.log_trials`.
        say: called with one line of text as a trial starts and ends; with workers it must be importable.

    Raises:
        InputError: before anything is written, when the recipe as it is written cannot run, or MLflow
            cannot be reached.
    """
    folder = Path(out) / recipe.name
    check_folder_is_ours(folder, recipe)
    say("reading data")
    inputs, _, _ = prepare(recipe, data, model, folder, trust=trust)
    claim_folder(folder, recipe, inputs, model)
    run = RecipeTrial(recipe, inputs.dataset, folder, data=data, model=model, trust=trust)
    # Also says right away what cannot be exported or measured here, before trials fail of it one by one.
    costs = run.shape_costs(recipe, (*recipe.search.costs, *bounded_costs(recipe.search)))
    limits = find_limits(recipe.search, costs)
    run = replace(run, limits=limits)
    task = Task(recipe.search, run, folder, limits, recipe.seed, _most_epochs(recipe), say)
    if mlflow is not None:
        task = log_as_they_end(task, mlflow)
    if workers > 1:
        search_with_workers(task, workers)
    else:
        search(task)
    return folder


def trial_recipe(recipe: Recipe, name: str, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe of one trial, checked; it is named after the trial and searches nothing."""
    content = put_values(searched_content(recipe), values)
    return check_recipe({**content, "name": name, "about": {}}, where=name)


def picked_recipe(searched: Recipe, record: TrialRecord) -> Recipe:
    """Return the recipe of a trial to go on with: named after its search, saying where it comes from."""
    name = f"{searched.name}_{record.trial}"
    costs = [f"{cost} {as_cost(cost, record.figures[cost], unit=True)}" for cost in searched.search.costs]
    quality = searched.search.quality
    scores = [
        f"{split} {quality} {as_score(record.figures.get(key))}"
        for split, key in (("validation", quality), ("test", f"test_{quality}"))
    ]
    about = {
        "purpose": f"{record.trial} of the search {searched.name}: {describe_values(record.values)}",
        "source": searched.about.source,
        "result": f"in the search: {', '.join([*scores, *costs])}",
        "command": as_command("run", f"{name}.yaml", searched.model_dump(mode="json")),
    }
    content = put_values(searched_content(searched), record.values)
    return check_recipe({**content, "name": name, "about": about}, where=name)


def _most_epochs(recipe: Recipe) -> int | None:
    resource = recipe.search.resource
    return None if resource is None else getattr(recipe, resource.split(".")[0]).epochs


@dataclass(frozen=True)
class RecipeTrial:
    """Runs a trial of a recipe: `RecipeTrial(...)(values, folder)` gives its figures.

    Attributes:
        recipe: with its search section.
        dataset: its classes and channels are those of every trial.
        folder: of the search; dense stages that trials share lie in its `dense/`.
        data, model, trust: see `tfprune.run.run_recipe`.
        limits: see `tfprune.search.trials.find_limits`.
    """

    recipe: Recipe
    dataset: SegmentationSet
    folder: Path
    data: str | Path | None = None
    model: str | Path | None = None
    trust: bool = False
    limits: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def __call__(self, values: dict[str, Any], folder: Path) -> dict[str, float | None]:
        """Return the figures of a trial, whose run folder is `folder`.

        Raises:
            RejectedTrial: when its shape alone breaks a constraint.
            InputError: when the values do not go together.
        """
        keras.backend.clear_session()  # the net of the trial before
        recipe = trial_recipe(self.recipe, folder.name, values)
        bounded = [name for name in self.limits if name in SHAPED]
        if bounded and recipe.channels is None:
            costs = self.shape_costs(recipe, bounded)
            if find_broken(self.limits, costs):
                raise RejectedTrial(f"by shape alone: {explain_broken(self.limits, costs)}", costs)
        run_recipe(
            recipe,
            data=self.data,
            model=self.model,
            trust=self.trust,
            out=folder.parent,
            shared=self.folder / "dense",
        )
        figures = self._figures(recipe, folder)
        for path in folder.glob("stages/*/*.npz"):
            if path.name in _RESUMING:  # a run that is done never asks for them
                path.unlink()
        return figures

    def shape_costs(self, recipe: Recipe, names: Iterable[str]) -> dict[str, float]:
        """Return the costs of a recipe's dense net as an untrained file, those of `names` that it tells."""
        net = build_dense(recipe, Inputs(self.dataset, {}), self.model, trust=self.trust)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "untrained.tflite")
            export_untrained(net, path, scheme=self.recipe.search.scheme, head=recipe.export.head)
            return {name: cost for name, cost in file_costs(path, names).items() if name in SHAPED}

    def _figures(self, recipe: Recipe, folder: Path) -> dict[str, float | None]:
        """Return qualities on validation and test, and the costs, of the file that the run ended with."""
        settings = self.recipe.search
        rows = read_json(folder / "records" / "verification.json")["rows"]
        row = [row for row in rows if row["scheme"] == settings.scheme and row["variant"] not in recipe.controls][-1]
        path = folder / row["file"]
        inputs = load_inputs(recipe, self.data, self.model, folder)
        val, names = inputs.arrays["val"], inputs.dataset.classes.names
        opened = open_runtime(path, runtime=recipe.verification.runtime, threads=recipe.verification.threads)
        judged = measure_quality(opened.classes_of, val.images, val.masks, classes=len(names))
        return {
            **qualities(score_confusions(judged.confusions, names)),
            **{f"test_{name}": value for name, value in qualities(row["scores"]).items()},
            **file_costs(path, (*settings.costs, *self.limits)),
            "nonzero_parameters": row["footprint"]["nonzero_parameters"],
            "latency_ms": row["latency"]["median_ms"],
        }


def qualities(scores: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the scores that a search knows, under its names."""
    return {name: scores["mean_iou_foreground" if name == "iou" else name] for name in QUALITIES}


def file_costs(path: Path, names: Iterable[str]) -> dict[str, float]:
    """Return what a .tflite file costs, but for its time; the arena of TFLite Micro only when it is named."""
    found = measure_footprint(path)
    costs = {name: getattr(found, name) for name in ("macs", "parameters", "file_bytes", "gzip_bytes")}
    costs["activation_bytes"] = found.peak_activation_bytes
    if "arena_bytes" in set(names):
        costs["arena_bytes"] = measure_arena(path)
    return {name: float(cost) for name, cost in costs.items() if cost is not None}
