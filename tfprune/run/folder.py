"""The run folder: what it may hold, what identifies it, and when it is done."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tfprune.architectures.files import model_files
from tfprune.data.arrays import describe_set
from tfprune.errors import InputError
from tfprune.recipe import recipe_difference, recipe_text
from tfprune.recipe.sections import Recipe
from tfprune.records import atomic_path, read_json, write_bytes, write_json, write_text
from tfprune.run.inputs import Inputs


def is_done(folder: Path) -> bool:
    """Return whether a run folder holds a finished run."""
    return (folder / "report.html").exists()


def check_folder_is_ours(folder: Path, recipe: Recipe) -> None:
    """Refuse a run folder that holds the results of another recipe.

    Raises:
        InputError: with the lines in which the two differ.
    """
    kept = folder / "recipe.yaml"
    if not kept.exists():
        held = [path.name for path in folder.glob("*") if not path.name.startswith(".")]
        if set(held) - {"data"}:
            raise InputError(
                f"{folder} exists and is not a run folder (it holds {held[0]}). Choose another --out, or another name."
            )
        return
    difference = recipe_difference(kept.read_text(encoding="utf-8"), recipe_text(recipe))
    if difference:
        raise InputError(
            f"{folder} holds a run of another recipe; results are never mixed. It differs (- there, + here):\n"
            f"{difference}\nChoose another --out, change the recipe's name, or delete the folder."
        )


def claim_folder(folder: Path, recipe: Recipe, inputs: Inputs, model: str | Path | None = None) -> None:
    """Write what identifies the run, or check it against an earlier start.

    Raises:
        InputError: when the run was started on other pictures or another model.
    """
    write_text(folder / "recipe.yaml", recipe_text(recipe))
    description = describe_set(inputs.dataset, inputs.arrays) | {"fingerprint": fingerprint(inputs, model)}
    kept = folder / "data.json"
    if kept.exists() and read_json(kept)["fingerprint"] != description["fingerprint"]:
        raise InputError(
            f"{folder} was started on other data or another model than now (pictures, masks or weights differ). "
            "Choose another --out, or delete the folder."
        )
    write_json(kept, description)
    write_json(folder / "environment.json", environment_record())


DENSE_SECTIONS = ("seed", "data", "architecture", "loss", "class_weights", "training", "regularization")
"""The sections of a recipe that shape its dense stage."""


def dense_key(recipe: Recipe) -> str:
    """Return a name for the dense stage of a recipe: the same for recipes that differ in later stages alone."""
    content = recipe.model_dump(mode="json", include=set(DENSE_SECTIONS), exclude_none=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def shared_stage(shared: str | Path, recipe: Recipe, folder: Path) -> Iterator[Path]:
    """Yield the folder whose dense stage all runs with this dense configuration share; one run at a time.

    Who comes second waits, and finds the stage trained. The histories are copied into the run folder afterwards.
    The lock is the system's (flock): it ends with the process that holds it, however that ends.
    """
    import fcntl  # not there on Windows, where the rest of this module works

    place = Path(shared) / dense_key(recipe)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "recipe.yaml").exists():
            content = recipe.model_dump(mode="json", include=set(DENSE_SECTIONS))
            write_text(place / "recipe.yaml", yaml.safe_dump(content, sort_keys=False))
        yield place
    for history in place.glob("stages/*/history.csv"):
        write_bytes(folder / history.relative_to(place), history.read_bytes())


def fingerprint(inputs: Inputs, model: str | Path | None = None) -> str:
    """Return a hash of all pictures and masks as the net sees them, and of the model file that is given."""
    digest = hashlib.sha256()
    for file in model_files(model) if model is not None else ():
        digest.update(file.read_bytes())
    for split in ("train", "val", "test"):
        arrays = inputs.arrays[split]
        digest.update(repr((split, arrays.stems, arrays.images.shape)).encode())
        digest.update(arrays.images.tobytes())
        digest.update(arrays.masks.tobytes())
    return digest.hexdigest()


def save_model(model: Any, path: Path) -> None:
    """Save a Keras model atomically, once."""
    if not path.exists():
        with atomic_path(path) as temporary:
            model.save(temporary)


def environment_record() -> dict[str, Any]:
    """Return versions and machine, as a result should name them."""
    packages = ("tfprune", "tensorflow", "tf_keras", "tensorflow-model-optimization", "segmentation-models")
    packages += ("albumentations", "ai-edge-litert", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), **versions, "cpu": cpu_name(), "cores": os.cpu_count()}


def cpu_name() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
