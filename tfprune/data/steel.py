"""The generated steel set: pictures of painted and bare steel with rust, and the exact masks they were drawn from.

`tfprune.data.steel_scene` draws; here is what a mask means, and the set on disk. Corrosion is drawn with a condition
level per pixel, and the mask is read from that level, never from the picture:

    level 0  sound surface, whatever its colour
    level 1  surface rust: stains, freckles and the streaks that run down from them; no loss of section
    level 2  thick, flaking scale
    level 3  pitting: craters, where metal is gone

What an inspector separates decides the classes. Two: corrosion or not. Three: rust that cleaning and paint cure
(levels 1 and 2) against `pitting`, where the remaining thickness has to be measured. Four: the condition states good,
fair, poor, severe of bridge inspection, one per level. The same seed gives the same pictures in every mode.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tfprune.data.steel_scene import draw_scene
from tfprune.errors import InputError
from tfprune.records import atomic_path, plain, read_json, write_json

VERSION = 1
"""Version of the drawing; a change of any pixel raises it."""

SPLITS = ("train", "val", "test")
CLASS_NAMES = {
    2: ("background", "corrosion"),
    3: ("background", "rust", "pitting"),
    4: ("good", "fair", "poor", "severe"),
}
_CLASS_OF_LEVEL = {2: (0, 1, 1, 1), 3: (0, 1, 1, 2), 4: (0, 1, 2, 3)}
_SMALLEST_SIDE = 16


def draw_steel(
    rng: np.random.Generator, *, classes: int = 3, size: tuple[int, int] = (96, 96)
) -> tuple[np.ndarray, np.ndarray]:
    """Return one picture (H, W, 3) and its mask (H, W) of class ids, both uint8.

    The picture does not depend on `classes`; a larger one of the same proportions shows the same scene.

    Raises:
        InputError: `classes` is not 2, 3 or 4, or a side is below 16 pixels.

    >>> image, mask = draw_steel(np.random.default_rng(0), classes=2, size=(32, 48))
    >>> image.shape, mask.shape, set(np.unique(mask)) <= {0, 1}
    ((32, 48, 3), (32, 48), True)
    """
    classes, size = _checked_classes(classes), _checked_size(size)
    image, level = draw_scene(rng, size)
    return image, np.asarray(_CLASS_OF_LEVEL[classes], np.uint8)[level]


def generate_steel(
    folder: str | Path,
    *,
    classes: int = 3,
    counts: Mapping[str, int],
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> Path:
    """Write a set as `folder`/{train,val,test}/{images,masks}/NNNN.png with its `dataset.json`; return `folder`.

    Picture i of a split depends on (seed, split, i) alone. A set that was interrupted is completed by a second call;
    one that is complete with the same parameters is left as it is.

    Args:
        folder: Where to write; created when missing.
        classes: 2 (corrosion), 3 (rust, pitting) or 4 (condition states).
        counts: Pictures of "train", "val" and "test", at least one of each.
        size: (H, W) in pixels.
        seed: Any whole number from 0.

    Raises:
        InputError: A parameter is out of range, or `folder` holds a set made with other parameters.
    """
    classes, size, counts = _checked_classes(classes), _checked_size(size), _checked_counts(counts)
    seed = _whole_number("seed", seed, least=0)
    folder = Path(folder)
    record = _describe(classes=classes, size=size, counts=counts, seed=seed)
    complete, begun = folder / "dataset.json", folder / "dataset.json.partial"
    if complete.exists():
        _same_parameters(complete, record)
        return folder
    if begun.exists():
        _same_parameters(begun, record)
    elif any((folder / split).exists() for split in SPLITS):
        raise InputError(f"{folder}: holds pictures that are not of a generated set; give a new or an empty folder.")
    else:
        write_json(begun, record)
    for number, split in enumerate(SPLITS):
        _write_split(folder / split, counts[split], key=(seed, number), classes=classes, size=size)
    os.replace(begun, complete)
    return folder


def _write_split(folder: Path, count: int, *, key: tuple[int, int], classes: int, size: tuple[int, int]) -> None:
    """Write the pairs that are not there yet. The mask comes second, so that its presence means a whole pair."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for left_over in (folder / part).glob(".*.png"):  # temporary files of a killed run
            left_over.unlink()
    for index in range(count):
        name = f"{index:04d}.png"
        if (folder / "masks" / name).exists():
            continue
        pair = draw_steel(np.random.default_rng((*key, index)), classes=classes, size=size)
        for part, pixels in zip(("images", "masks"), pair, strict=True):
            with atomic_path(folder / part / name) as temporary:
                Image.fromarray(pixels).save(temporary, compress_level=4)


def _describe(*, classes: int, size: tuple[int, int], counts: dict[str, int], seed: int) -> dict[str, object]:
    """Return what dataset.json says."""
    return plain(
        {
            "name": "steel",
            "title": f"Generated steel surfaces with rust, streaks and pits, {classes} classes",
            "licence": "generated",
            "class_names": CLASS_NAMES[classes],
            "ignore_index": None,
            "resolution": (size[1], size[0]),
            "channels": 3,
            "splits": counts,
            "generator": {"name": "steel", "version": VERSION, "seed": seed},
        }
    )


def _same_parameters(path: Path, wanted: dict[str, object]) -> None:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give another folder or delete this one.") from error
    found = found if isinstance(found, dict) else {}
    different = [
        f"{key} is {found.get(key)} there, {value} asked for"
        for key, value in wanted.items()
        if key != "title" and found.get(key) != value
    ]
    if different:
        raise InputError(
            f"{path}: made with other parameters ({'; '.join(different)}); give another folder or delete this one."
        )


def _whole_number(name: str, value: object, *, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InputError(f"steel: {name} is {value!r}; give a whole number from {least}.")
    return number


def _checked_classes(classes: int) -> int:
    if classes not in tuple(CLASS_NAMES):
        known = ", ".join(f"{count} ({', '.join(names)})" for count, names in CLASS_NAMES.items())
        raise InputError(f"steel: classes is {classes!r}; accepted: {known}.")
    return int(classes)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InputError(f"steel: size is {size!r}; give (height, width) in pixels.")
    height, width = (_whole_number("a side of size", side, least=_SMALLEST_SIDE) for side in size)
    return height, width


def _checked_counts(counts: Mapping[str, int]) -> dict[str, int]:
    if not isinstance(counts, Mapping) or set(counts) != set(SPLITS):
        raise InputError(f"steel: counts is {counts!r}; give the number of pictures of each of {', '.join(SPLITS)}.")
    return {split: _whole_number(f"counts of {split}", counts[split], least=1) for split in SPLITS}
