"""The class table of a data set, and the codecs from what mask files hold to class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfprune.errors import InputError, unknown_name
from tfprune.records import IGNORE_ID

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes in their order in memory, and how the files number or colour them.

    `names` never holds the ignored label. `ignore_index` is that label's number in the files. It takes
    no place among the classes: when it lies below the last class, the ids above it move down by one.
    `colours[i]` is the RGB of the file's id i, the ignored one included. `merged` is empty, or holds every
    class of the files and the position in `names` of the class that it becomes.
    """

    names: tuple[str, ...]
    ignore_index: int | None = None
    colours: tuple[Colour, ...] | None = None
    merged: tuple[tuple[str, int], ...] = ()

    @property
    def numbering(self) -> dict[int, tuple[str, int]]:
        """The number of each class in the files -> its name there, its position in `names`.

        >>> ClassTable(("road", "car"), ignore_index=0).numbering
        {1: ('road', 0), 2: ('car', 1)}
        """
        classes = self.merged or [(name, position) for position, name in enumerate(self.names)]
        numbers = [number for number in range(len(classes) + 1) if number != self.ignore_index]
        return dict(zip(numbers, classes, strict=False))


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
    merge_classes: Mapping[str, Sequence[str] | str] | None = None,
) -> ClassTable:
    """Return the table of names in the order of their ids in the files.

    A name at `ignore_index` is the ignored label's and is not a class. `merge_classes` maps a new class to the
    names that become it; one new class may have `rest`, all names that no other one has.

    Raises:
        InputError: fewer than two classes, a name twice, an id or a colour out of range.

    >>> build_class_table(["road", "car", "unlabelled"], ignore_index=2).names
    ('road', 'car')
    """
    given = list(class_names) if not isinstance(class_names, str) else [class_names]
    if not all(isinstance(name, str) and name.strip() and name.isprintable() for name in given):
        raise InputError(f"class names must be non-empty texts of one line, not {given!r}")
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
    table = ClassTable(names, ignore_index, _checked_colours(colours, given, ignore_index))
    return table if merge_classes is None else _merge(table, merge_classes)


REST = "rest"
"""In `merge_classes`: all names that no other class has."""


def _merge(table: ClassTable, merge_classes: Mapping[str, Sequence[str] | str]) -> ClassTable:
    if not isinstance(merge_classes, Mapping) or not all(isinstance(old, str | list) for old in merge_classes.values()):
        raise InputError(
            f"merge_classes maps each new class to the names that become it, such as {{corrosion: [fair, severe], "
            f"other: rest}}, and is {merge_classes!r}"
        )
    listed = {new: [old] if isinstance(old, str) else old for new, old in merge_classes.items()}
    taken = [name for names in listed.values() for name in names if name != REST]
    for name in taken:
        if name not in table.names:
            raise unknown_name("class", name, table.names, "merge_classes")
        if taken.count(name) > 1:
            raise InputError(f"merge_classes: '{name}' becomes more than one class; give it to one")
    left = [name for name in table.names if name not in taken]
    rests = [new for new, names in listed.items() if REST in names]
    if len(rests) > 1 or (left and not rests):
        raise InputError(
            f"merge_classes: {', '.join(left) or 'no class'} becomes nothing, and {len(rests)} classes are '{REST}'; "
            "list every class once, or give one new class 'rest'"
        )
    if len(listed) < 2:
        raise InputError("merge_classes: two classes are needed at least")
    position = {name: number for number, names in enumerate(listed.values()) for name in names}
    merged = tuple((name, position.get(name, position.get(REST, 0))) for name in table.names)
    return replace(table, names=tuple(listed), merged=merged)


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

    With two classes a mask that holds nothing but 0 and 255, or in 16 bit 65535, is read as 0 and 1.

    Raises:
        MaskFault: the mask holds ids that are in no class.

    >>> decode_ids(np.array([[0, 255]]), ClassTable(("steel", "rust")))
    array([[0, 1]], dtype=uint8)
    >>> decode_ids(np.array([[0, 65535]]), ClassTable(("steel", "rust")))
    array([[0, 1]], dtype=uint8)
    """
    counts = np.bincount(values.ravel())
    present = np.flatnonzero(counts).tolist()
    numbers = {number: position for number, (_, position) in classes.numbering.items()}
    is_white_on_black = set(present) <= {0, 255} or set(present) <= {0, 65535}
    if len(numbers) == 2 and classes.ignore_index != 255 and is_white_on_black:
        return np.asarray(list(numbers.values()), np.uint8)[(values > 0).astype(np.uint8)]
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
    known = ", ".join(f"{number} {name}" for number, (name, _) in classes.numbering.items())
    hint = (
        "; if 255 marks pixels to leave out, give ignore_index: 255 in dataset.json" if list(unknown) == [255] else ""
    )
    return f"holds class ids that are in no class: {shown} ({pixels} pixels). The classes are {known}{hint}"


def decode_colours(pixels: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return class ids uint8 (H, W) for an RGB mask uint8 (H, W, 3) by the table's colours.

    Raises:
        MaskFault: there is no colour table, or a colour is not in it.
    """
    if classes.colours is None:
        raise MaskFault(
            "rgb_mask",
            "is an RGB mask and there is no colour table; give `colours` in dataset.json (one [red, green, blue] "
            "per class) or save the mask as a single-channel PNG of class ids",
        )
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    values = np.full(packed.shape, len(classes.colours), np.uint32)
    for number, (red, green, blue) in enumerate(classes.colours):
        values[packed == red * 65536 + green * 256 + blue] = number
    unknown = packed[values == len(classes.colours)]
    if unknown.size:
        colours = [[int(c) >> 16, int(c) >> 8 & 255, int(c) & 255] for c in np.unique(unknown)[:5]]
        raise MaskFault("mask_colours", f"holds colours that are not in the colour table: {colours}")
    numbers = {number: position for number, (_, position) in classes.numbering.items()}
    table = np.array([numbers.get(number, IGNORE_ID) for number in range(len(classes.colours))], np.uint8)
    return table[values]
