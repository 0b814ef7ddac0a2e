"""A generated set on disk: drawn picture by picture, resumable, and refused when its parameters are others."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tfprune.data.folders import SPLITS
from tfprune.data.run_length import TABLE, write_table
from tfprune.errors import InputError
from tfprune.records import atomic_path, plain, read_json, write_json

_SMALLEST_SIDE = 16

Draw = Callable[[np.random.Generator, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""(generator of random numbers, (H, W)) -> picture (H, W, 3) or (H, W) and mask (H, W), both uint8."""


@dataclass(frozen=True)
class Drawing:
    """What a generated set shows, and how it is drawn; `version` rises with a change of any pixel.

    With `run_lengths` the masks of a split become the rows of a table.
    """

    name: str
    title: str
    version: int
    class_names: tuple[str, ...]
    draw: Draw
    channels: int = 3
    run_lengths: bool = False


def write_drawings(
    folder: str | Path, drawing: Drawing, *, counts: Mapping[str, int], size: tuple[int, int], seed: int
) -> Path:
    """Write a set as `folder`/{train,val,test}/{images,masks}/NNNN.png with its `dataset.json`; return `folder`.

    Picture i of a split depends on (seed, split, i) alone. A set that was interrupted is completed by a second call;
    one that is complete with the same parameters is left as it is.

    Args:
        folder: Where to write; created when missing.
        counts: Pictures of "train", "val" and "test", at least one of each.
        size: (H, W) in pixels.
        seed: Any whole number from 0.

    Raises:
        InputError: A parameter is out of range, or `folder` holds a set made with other parameters.
    """
    size, counts = checked_size(drawing.name, size), checked_counts(drawing.name, counts)
    seed = whole_number(drawing.name, "seed", seed, least=0)
    folder = Path(folder)
    record = _describe(drawing, size=size, counts=counts, seed=seed)
    complete, begun = folder / "dataset.json", folder / "dataset.json.partial"
    if complete.exists():
        same_parameters(complete, record)
        return folder
    if begun.exists():
        same_parameters(begun, record)
    elif any((folder / split).exists() for split in SPLITS):
        raise InputError(f"{folder}: holds pictures that are not of a generated set; give a new or an empty folder.")
    else:
        write_json(begun, record)
    for number, split in enumerate(SPLITS):
        write = _write_with_table if drawing.run_lengths else _write_split
        write(folder / split, counts[split], key=(seed, number), drawing=drawing, size=size)
    os.replace(begun, complete)
    return folder


def checked_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) as whole numbers.

    Raises:
        InputError: It is no such pair, or a side is below 16 pixels.
    """
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InputError(f"{name}: size is {size!r}; give (height, width) in pixels.")
    height, width = (whole_number(name, "a side of size", side, least=_SMALLEST_SIDE) for side in size)
    return height, width


def _write_split(folder: Path, count: int, *, key: tuple[int, int], drawing: Drawing, size: tuple[int, int]) -> None:
    """Write the pairs that are not there yet. The mask comes second, so that its presence means a whole pair."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for left_over in (folder / part).glob(".*.png"):  # temporary files of a killed run
            left_over.unlink()
    for index in range(count):
        name = f"{index:04d}.png"
        if (folder / "masks" / name).exists():
            continue
        pair = drawing.draw(np.random.default_rng((*key, index)), size)
        for part, pixels in zip(("images", "masks"), pair, strict=True):
            _save(folder / part / name, pixels)


def _write_with_table(
    folder: Path, count: int, *, key: tuple[int, int], drawing: Drawing, size: tuple[int, int]
) -> None:
    """Write pictures, and in place of masks a table of run lengths, which comes last."""
    if (folder / TABLE).exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    masks = {}
    for index in range(count):
        name = f"{index:04d}.png"
        pixels, masks[name] = drawing.draw(np.random.default_rng((*key, index)), size)
        _save(folder / "images" / name, pixels)
    write_table(folder / TABLE, masks, len(drawing.class_names))


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, compress_level=4)


def _describe(drawing: Drawing, *, size: tuple[int, int], counts: dict[str, int], seed: int) -> dict[str, object]:
    """Return what dataset.json says."""
    return plain(
        {
            "name": drawing.name,
            "title": drawing.title,
            "licence": "generated",
            "class_names": drawing.class_names,
            "ignore_index": None,
            "resolution": (size[1], size[0]),
            "channels": drawing.channels,
            "splits": counts,
            "generator": {"name": drawing.name, "version": drawing.version, "seed": seed},
        }
    )


def same_parameters(path: Path, wanted: dict[str, object]) -> None:
    """Refuse a set on disk whose description differs from the wanted one."""
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


def whole_number(owner: str, name: str, value: object, *, least: int) -> int:
    """Return a number as an int; refuse what is no whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InputError(f"{owner}: {name} is {value!r}; give a whole number from {least}.")
    return number


def checked_counts(owner: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of pictures of each split; refuse what is not at least one of each."""
    if not isinstance(counts, Mapping) or set(counts) != set(SPLITS):
        raise InputError(f"{owner}: counts is {counts!r}; give the number of pictures of each of {', '.join(SPLITS)}.")
    return {split: whole_number(owner, f"counts of {split}", counts[split], least=1) for split in SPLITS}
