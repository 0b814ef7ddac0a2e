"""Masks as run lengths in a table, `ImageId_ClassId,EncodedPixels`: the form of the Severstal competition.

A run is a start and a length; pixels are counted from 1, down the columns, the first column first.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfprune.data.masks import ClassTable, MaskFault
from tfprune.errors import InputError
from tfprune.records import atomic_path

TABLE = "masks.csv"
"""Name of the table that stands in place of the folder of masks."""

_FORMS = {("ImageId_ClassId", "EncodedPixels"), ("ImageId", "ClassId", "EncodedPixels")}


@dataclass(frozen=True)
class RunLengthMask:
    """The mask of one picture, as a table holds it: pairs of (class number, runs)."""

    table: Path
    image: Path
    runs: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        return f"{self.table} (rows of {self.image.name})"


def encode_runs(mask: np.ndarray) -> str:
    """Return the runs of the pixels of a mask (H, W) that are not zero.

    >>> encode_runs(np.array([[1, 0, 1], [1, 0, 1]]))
    '1 2 5 2'
    """
    flat = np.concatenate([[0], (np.asarray(mask) != 0).ravel(order="F"), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))


def decode_runs(runs: str, size: tuple[int, int]) -> np.ndarray:
    """Return bool (H, W): the pixels of runs.

    Raises:
        MaskFault: the runs are no pairs of numbers, or leave the picture.

    >>> decode_runs("1 2 5 2", (2, 3)).astype(int)
    array([[1, 0, 1],
           [1, 0, 1]])
    """
    try:
        starts, lengths = np.array([int(number) for number in runs.split()], np.int64).reshape(-1, 2).T
    except ValueError:
        raise MaskFault("run_lengths", f"holds runs that are no pairs of whole numbers: {runs[:40]!r}") from None
    pixels = size[0] * size[1]
    if len(starts) and (min(starts.min(), lengths.min()) < 1 or (starts + lengths).max() > pixels + 1):
        raise MaskFault("run_lengths", f"holds runs outside pixels 1 to {pixels} of a picture {size[1]}x{size[0]}")
    changes = np.zeros(pixels + 1, np.int64)
    np.add.at(changes, starts - 1, 1)
    np.add.at(changes, starts - 1 + lengths, -1)
    return (np.cumsum(changes[:-1]) > 0).reshape(size, order="F")


def decode_mask(mask: RunLengthMask, classes: ClassTable, size: tuple[int, int]) -> np.ndarray:
    """Return class ids uint8 (H, W); what no run covers is class 0, where two classes overlap the higher one counts.

    Raises:
        MaskFault: the runs cannot be read, or are of a class that the table does not know.
    """
    numbering = classes.numbering
    ids = np.full(size, numbering[0][1] if 0 in numbering else 0, np.uint8)
    for number, runs in sorted(mask.runs):
        if number not in numbering:
            known = ", ".join(f"{one} {name}" for one, (name, _) in numbering.items())
            raise MaskFault("class_ids", f"has runs of class {number}, which is none. The classes are {known}")
        ids[decode_runs(runs, size)] = numbering[number][1]
    return ids


def count_overlaps(mask: RunLengthMask, size: tuple[int, int]) -> int:
    """Return the number of pixels that lie in runs of more than one class.

    Raises:
        MaskFault: the runs cannot be read.
    """
    covered = np.zeros(size, np.int64)
    for _, runs in mask.runs:
        covered += decode_runs(runs, size)
    return int((covered > 1).sum())


def read_table(path: Path) -> dict[str, tuple[tuple[int, str], ...]]:
    """Return picture name -> (class number, runs), of the rows that have runs; a picture may have none.

    Raises:
        InputError: the table has other columns, or a row without a class.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header not in _FORMS:
            forms = " or ".join(",".join(form) for form in sorted(_FORMS))
            raise InputError(f"{path}: the first line is {','.join(header)!r}; it must be {forms}")
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for number, row in enumerate(rows, start=2):
            name, separator, label = row[0].rpartition("_") if len(header) == 2 else (row[0], "_", row[1])
            if len(row) != len(header) or not separator or not label.isdecimal():
                raise InputError(f"{path}:{number}: {','.join(row)[:60]!r} names no picture and class")
            if row[-1].strip():
                found[name].append((int(label), row[-1]))
            else:
                found[name] += []
    return {name: tuple(runs) for name, runs in found.items()}


def write_table(path: Path, masks: Mapping[str, np.ndarray], classes: int) -> Path:
    """Write masks (H, W) of class ids by picture name, one row for each class from 1, empty where there is none.

    Args:
        path: of the table.
        masks: picture name with its suffix -> mask.
        classes: number of classes, the background included.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId_ClassId", "EncodedPixels"])
        for name, mask in masks.items():
            for number in range(1, classes):
                writer.writerow([f"{name}_{number}", encode_runs(mask == number)])
    return path
