"""The generated wells: a stand-in for ultrasound maps of pipe walls, in patches of floats, as the CorroSeg data are.

A well is one strip of wall, cut into patches from top to bottom: grooves run on into the neighbouring patches. Each
position around the pipe has a level and a spread of its own, which the scaling per position takes away; each well has
its own wall. Corroded are grooves and pits, where the wall is thinner; joints, noise and drift are not. Some patches
are corrupt: they hold the sentinel.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfprune.data.folders import SPLITS
from tfprune.data.generated import checked_counts, checked_size, same_parameters, whole_number
from tfprune.data.patches import convert_patches
from tfprune.data.run_length import TABLE
from tfprune.data.steel_scene import Scene
from tfprune.errors import InputError
from tfprune.records import atomic_path, read_json, write_json

VERSION = 1
"""Version of the drawing; a change of any value raises it."""

CLASS_NAMES = ("background", "corrosion")
SENTINEL = -999.25
"""What a corrupt patch holds where nothing was measured."""

CORRUPT_SHARE = 0.04
PATCHES_PER_WELL = 40


def draw_well(
    rng: np.random.Generator, *, patches: int = PATCHES_PER_WELL, size: tuple[int, int] = (36, 36)
) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches of one well, float32 (N, H, W), and their masks, uint8 (N, H, W) of 0 and 1.

    Raises:
        InputError: a side is below 16 pixels.

    >>> values, masks = draw_well(np.random.default_rng(0), patches=3)
    >>> values.shape, values.dtype, masks.shape, set(np.unique(masks)) <= {0, 1}
    ((3, 36, 36), dtype('float32'), (3, 36, 36), True)
    """
    height, width = checked_size("wells", size)
    scene = Scene(rng, (patches * height, width))
    loss, depth = _draw_corrosion(scene)
    around = np.tile(np.random.default_rng(7).uniform(-0.6, 0.6, (height, width)), (patches, 1)).astype(np.float32)
    spread = np.tile(np.random.default_rng(8).uniform(0.5, 2.0, (height, width)), (patches, 1)).astype(np.float32)
    wall = scene.between(-0.3, 0.3) + 0.3 * scene.noise(0.15, octaves=2) + 0.22 * scene.noise(5, octaves=3)
    wall = wall + 0.15 * scene.rng.standard_normal(scene.size, np.float32)
    for joint in np.arange(scene.between(2, 6), scene.tall, scene.between(7, 10)):  # joints of pipes, all around
        wall = wall + 1.2 * scene.edge(np.float32(0.06) - np.abs(scene.y - np.float32(joint)), 0.04)
    values = (around + spread * (wall - loss)).astype(np.float32).reshape(patches, height, width)
    masks = (depth > 0).astype(np.uint8).reshape(patches, height, width)
    for patch in np.flatnonzero(scene.rng.random(patches) < CORRUPT_SHARE):
        rows = slice(None) if scene.chance(0.5) else slice(int(scene.between(0, height - 4)), None)
        values[patch, rows], masks[patch] = SENTINEL, 0
    return values, masks


def generate_wells(
    folder: str | Path,
    *,
    classes: int = 2,
    counts: Mapping[str, int],
    size: tuple[int, int] = (36, 36),
    seed: int = 0,
) -> Path:
    """Write `folder`/patches, in the form of the CorroSeg data, and the set of pictures that it becomes.

    Every well lies in one split. A set that was interrupted is written anew by a second call; one that is
    complete with the same parameters is left as it is.

    Args:
        folder: where to write; created when missing.
        classes: 2, there are no others.
        counts: patches of "train", "val" and "test"; corrupt ones are left out of train later.
        size: (H, W) of a patch in pixels.
        seed: any whole number from 0.

    Raises:
        InputError: a parameter is out of range, or `folder` holds a set made with other parameters.
    """
    if classes != 2:
        raise InputError(f"wells: classes is {classes!r}; accepted: 2 ({', '.join(CLASS_NAMES)}).")
    size, counts = checked_size("wells", size), checked_counts("wells", counts)
    seed = whole_number("wells", "seed", seed, least=0)
    folder = Path(folder)
    record = {"generator": {"name": "wells", "version": VERSION, "seed": seed, "size": list(size), "patches": counts}}
    complete, begun = folder / "dataset.json", folder / "dataset.json.partial"
    if complete.exists():
        same_parameters(complete, record)
        return folder
    if begun.exists():
        same_parameters(begun, record)
        for part in ("patches", *SPLITS):
            shutil.rmtree(folder / part, ignore_errors=True)
    elif any((folder / part).exists() for part in ("patches", *SPLITS)):
        raise InputError(f"{folder}: holds patches that are not of a generated set; give a new or an empty folder.")
    write_json(begun, record)
    _write_patches(folder / "patches", counts, size=size, seed=seed)
    convert_patches(folder / "patches", folder, class_names=CLASS_NAMES)
    described = read_json(complete)
    write_json(complete, {**described, **record, "name": "wells", "licence": "generated"})
    begun.unlink()
    return folder


def _write_patches(folder: Path, counts: Mapping[str, int], *, size: tuple[int, int], seed: int) -> None:
    well = 0
    for split in SPLITS:
        (folder / split / "images").mkdir(parents=True)
        with atomic_path(folder / split / TABLE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["", *range(size[0] * size[1])])
            for first in range(0, counts[split], PATCHES_PER_WELL):
                well += 1
                number = min(PATCHES_PER_WELL, counts[split] - first)
                values, masks = draw_well(np.random.default_rng((seed, well)), patches=number, size=size)
                for patch, (value, mask) in enumerate(zip(values, masks, strict=True)):
                    name = f"well_{well}_patch_{patch}"
                    np.save(folder / split / "images" / f"{name}.npy", value)
                    writer.writerow([name, *mask.ravel().tolist()])


def _draw_corrosion(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the wall that is lost (H, W), and how deep each pixel lies inside a groove or a pit."""
    deepest = np.full(scene.size, -1.0, np.float32)
    loss = np.zeros(scene.size, np.float32)
    for _ in range(max(1, round(scene.tall * scene.between(0.12, 0.3)))):  # grooves, along the pipe
        middle, half = scene.between(0, scene.tall), scene.between(0.4, 2.5)
        bend = scene.between(0.02, 0.15) * np.sin(scene.y * np.float32(scene.between(0.5, 2)) + scene.between(0, 6))
        across = np.abs(scene.x - np.float32(scene.between(0, scene.wide)) - bend)
        depth = np.minimum(half - np.abs(scene.y - np.float32(middle)), scene.between(0.05, 0.1) - across)
        deepest, loss = _deepen(scene, deepest, loss, depth + np.float32(0.012) * scene.noise(8))
    for _ in range(scene.rng.poisson(0.5 * scene.tall)):  # pits
        depth = np.float32(scene.between(0.05, 0.13)) - scene.distance(scene.place(0))
        deepest, loss = _deepen(scene, deepest, loss, depth + np.float32(0.015) * scene.noise(8))
    return loss, deepest


def _deepen(scene: Scene, deepest: np.ndarray, loss: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lost = np.float32(scene.between(0.5, 1.4)) * scene.edge(depth, 0.06)
    return np.maximum(deepest, depth), np.maximum(loss, lost)
