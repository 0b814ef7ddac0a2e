"""The class table of a data set, and the codecs from what mask files hold to class ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError
from tfprune.records import IGNORE_ID

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes in their order in memory, and how the files number or colour them.

    `names` never holds the ignored label. `ignore_index` is that label's number in the files. It takes
    no place among the classes: when it lies below the last class, the ids above it move down by one.
    `colours[i]` is the RGB of the file's id i, the ignored one included.
    """

    names: tuple[str, ...]
    ignore_index: int | None = None
    colours: tuple[Colour, ...] | None = None

    @property
    def file_ids(self) -> tuple[int, ...]:
        """The number of each class in the files.

        >>> ClassTable(("road", "car"), ignore_index=0).file_ids
        (1, 2)
        """
        numbers = [number for number in range(len(self.names) + 1) if number != self.ignore_index]
        return tuple(numbers[: len(self.names)])


class MaskFault(ValueError):
    """The content of a mask does not fit its class table; `kind` names the finding."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def build_class_table(
    class_names: Sequence[str],
    *,
    ignore_index: int | None = None,
    colours: Sequence[Sequence[int]] | None = None,
) -> ClassTable:
    """Return the table of names in the order of their ids in the files.

    A name at `ignore_index` is the ignored label's and is not a class.

    Raises:
        InputError: fewer than two classes, a name twice, an id or a colour out of range.

    >>> build_class_table(["road", "car", "unlabelled"], ignore_index=2).names
    ('road', 'car')
    """
    given = list(class_names) if not isinstance(class_names, str) else [class_names]
    if not all(isinstance(name, str) and name for name in given):
        raise InputError(f"class names must be non-empty texts, not {given!r}")
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise InputError(f"class names must differ; given more than once: {', '.join(twice)}")
    if ignore_index is not None and (type(ignore_index) is not int or not 0 <= ignore_index < 65536):
        raise InputError(f"ignore_index must be a mask value from 0 to 65535, not {ignore_index!r}")
    names = tuple(name for number, name in enumerate(given) if number != ignore_index)
    if not 2 <= len(names) <= IGNORE_ID:
        raise InputError(
            f"{len(names)} class(es) given ({', '.join(names) or 'none'}); 2 to {IGNORE_ID} are needed: "
            "name the background too, in the order of the ids in the masks"
        )
    return ClassTable(names, ignore_index, _checked_colours(colours, given, ignore_index))


def _checked_colours(
    colours: Sequence[Sequence[int]] | None, names: Sequence[str], ignore_index: int | None
) -> tuple[Colour, ...] | None:
    if colours is None:
        return None
    table = []
    for colour in colours:
        parts = list(colour) if isinstance(colour, Sequence) and not isinstance(colour, str) else []
        if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
            raise InputError(f"a class colour is three numbers from 0 to 255 (red, green, blue), not {colour!r}")
        table.append((parts[0], parts[1], parts[2]))
    accepted = {len(names), len(names) + 1} if ignore_index == len(names) else {len(names)}
    if len(table) not in accepted:
        raise InputError(f"{len(table)} colours for {len(names)} class names; give one per name, in the same order")
    if len(set(table)) != len(table):
        raise InputError("two classes have the same colour; give each class its own")
    return tuple(table)


def decode_ids(values: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return class ids uint8 (H, W) for mask values (H, W) of any unsigned type; ignored pixels are `IGNORE_ID`.

    With two classes a mask that holds nothing but 0 and 255 is read as 0 and 1.

    Raises:
        MaskFault: the mask holds ids that are in no class.

    >>> decode_ids(np.array([[0, 255]]), ClassTable(("steel", "rust")))
    array([[0, 1]], dtype=uint8)
    """
    counts = np.bincount(values.ravel())
    present = np.flatnonzero(counts).tolist()
    if len(classes.names) == 2 and classes.ignore_index != 255 and set(present) <= {0, 255}:
        return (values > 0).astype(np.uint8)
    numbers = {number: position for position, number in enumerate(classes.file_ids)}
    if classes.ignore_index is not None:
        numbers[classes.ignore_index] = IGNORE_ID
    unknown = [number for number in present if number not in numbers]
    if unknown:
        raise MaskFault("class_ids", _unknown_ids(unknown, counts, classes))
    table = np.zeros(len(counts), np.uint8)
    for number in present:
        table[number] = numbers[number]
    return table[values]


def _unknown_ids(unknown: Sequence[int], counts: np.ndarray, classes: ClassTable) -> str:
    shown = ", ".join(str(number) for number in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    pixels = int(counts[list(unknown)].sum())
    known = ", ".join(f"{number} {name}" for number, name in zip(classes.file_ids, classes.names, strict=True))
    hint = "; if 255 marks pixels to leave out, give ignore_index: 255" if list(unknown) == [255] else ""
    return f"holds class ids that are in no class: {shown} ({pixels} pixels). The classes are {known}{hint}"


def decode_colours(pixels: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return class ids uint8 (H, W) for an RGB mask uint8 (H, W, 3) by the table's colours.

    Raises:
        MaskFault: there is no colour table, or a colour is not in it.
    """
    if classes.colours is None:
        raise MaskFault(
            "rgb_mask",
            "is an RGB mask and there is no colour table; give `colours` (one [red, green, blue] per class) "
            "or save the mask as a single-channel PNG of class ids",
        )
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    values = np.full(packed.shape, len(classes.colours), np.uint32)
    for number, (red, green, blue) in enumerate(classes.colours):
        values[packed == red * 65536 + green * 256 + blue] = number
    unknown = packed[values == len(classes.colours)]
    if unknown.size:
        colours = [[int(c) >> 16, int(c) >> 8 & 255, int(c) & 255] for c in np.unique(unknown)[:5]]
        raise MaskFault("mask_colours", f"holds colours that are not in the colour table: {colours}")
    numbers = dict(zip(classes.file_ids, range(len(classes.names)), strict=True))
    table = np.array([numbers.get(number, IGNORE_ID) for number in range(len(classes.colours))], np.uint8)
    return table[values]
