"""Opening a data folder: its classes, its pairs and its splits, without reading pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.data.faults import FileFault, raise_findings
from tfprune.data.folders import Listing, Pair, list_folder
from tfprune.data.images import stored_channels
from tfprune.data.masks import ClassTable, build_class_table
from tfprune.data.splits import make_splits, read_split_file
from tfprune.errors import InputError, nearest

_DESCRIPTION = "dataset.json"
_DESCRIBED = (
    *("name", "class_names", "ignore_index", "colours", "merge_classes"),
    *("stem_pattern", "group_pattern", "channels"),
)
"""What is read of a description; whatever else stands there is for people."""
_CHOSEN = ("split_file", "val_share", "test_share")
"""What is chosen for each run, and stands in no description."""
_MISSPELT = 0.75


@dataclass(frozen=True)
class SegmentationSet:
    """A data set as it is trained on: classes, channels (1 grey, 3 RGB) and the pairs of train, val and test."""

    name: str
    classes: ClassTable
    channels: int
    splits: dict[str, tuple[Pair, ...]]


def open_set(
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    colours: Sequence[Sequence[int]] | None = None,
    merge_classes: Mapping[str, Sequence[str] | str] | None = None,
    stem_pattern: str | None = None,
    channels: int | None = None,
    split_file: str | Path | None = None,
    group_pattern: str | None = None,
    val_share: float = 0.15,
    test_share: float = 0.2,
    seed: int = 0,
) -> SegmentationSet:
    """Return the data set in `folder`, which holds `images/` and `masks/`, or those in `train/`, `val/`, `test/`.

    In place of `masks/` there may be `masks.csv`, a table of run lengths; beside it `judged/`, pictures that are
    black where a pixel is neither trained on nor judged. What is not given comes from the folder's
    dataset.json (`class_names`, `ignore_index`, `colours`, `merge_classes`, `stem_pattern`, `group_pattern`,
    `channels`); the channels else from the first picture. `class_names` are in the order of the ids in the
    masks; a name at `ignore_index` is no class. `merge_classes` maps new classes to the names that become them,
    one of them to `rest`. `stem_pattern` is a regular expression whose first group is what a picture and its mask
    have in common, by default the whole stem. `split_file` (JSON, relative to `folder`) lists the
    stems of each split. `group_pattern` is a regular expression whose first group in a stem names what
    must stay together. A missing test part is `test_share` of the pairs, a missing val part
    `val_share` of the train part, both chosen by `seed`.

    Raises:
        InputError: the folder is missing, files lack partners, or there are no class names.
    """
    found, listing = inspect_set(
        folder,
        class_names=class_names,
        ignore_index=ignore_index,
        colours=colours,
        merge_classes=merge_classes,
        stem_pattern=stem_pattern,
        channels=channels,
        split_file=split_file,
        group_pattern=group_pattern,
        val_share=val_share,
        test_share=test_share,
        seed=seed,
    )
    raise_findings(listing.folder, listing.findings)
    return found


def inspect_set(
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    colours: Sequence[Sequence[int]] | None = None,
    merge_classes: Mapping[str, Sequence[str] | str] | None = None,
    stem_pattern: str | None = None,
    channels: int | None = None,
    split_file: str | Path | None = None,
    group_pattern: str | None = None,
    **splitting: Any,
) -> tuple[SegmentationSet, Listing]:
    """Return the set made of the usable pairs, and the listing with its findings; takes what `open_set` takes.

    Raises:
        InputError: the folder as a whole, or an option, is not usable.
    """
    described = _read_description(Path(folder))
    listing = list_folder(folder, stem_pattern=stem_pattern or described.get("stem_pattern"))
    names = class_names if class_names is not None else described.get("class_names")
    if not names:
        raise InputError(
            f"{listing.folder}: no class names; give class_names (`--classes` on the command line), or write "
            f"them into {_DESCRIPTION}: "
            '{"class_names": ["background", "corrosion"]}'
        )
    classes = build_class_table(
        names,
        ignore_index=ignore_index if ignore_index is not None else described.get("ignore_index"),
        colours=colours if colours is not None else described.get("colours"),
        merge_classes=merge_classes if merge_classes is not None else described.get("merge_classes"),
    )
    listed = read_split_file(listing.folder / split_file) if split_file is not None else None
    group_pattern = group_pattern if group_pattern is not None else described.get("group_pattern")
    splits, findings = make_splits(listing.parts, listed=listed, group_pattern=group_pattern, **splitting)
    listing.findings += findings
    channels = channels if channels is not None else described.get("channels")
    if channels is None:
        channels = _guess_channels(listing)
    if channels not in (1, 3):
        raise InputError(f"{listing.folder}: channels must be 1 (grey) or 3 (RGB), not {channels!r}")
    name = described.get("name") or listing.folder.resolve().name
    return SegmentationSet(str(name), classes, channels, splits), listing


def _guess_channels(listing: Listing) -> int:
    for pair in (pair for pairs in listing.parts.values() for pair in pairs):
        try:
            return stored_channels(pair.image)
        except FileFault:  # told by who loads or checks the pictures
            continue
    return 3


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("class_names", []), list):
        raise InputError(f'{path}: must hold an object such as {{"class_names": ["background", "corrosion"]}}')
    for key in content.keys() - set(_DESCRIBED):
        if key in _CHOSEN:
            raise InputError(f"{path}: {key} is not read from here; give it in the recipe (data.{key})")
        guess = nearest(key, _DESCRIBED, cutoff=_MISSPELT)
        if guess:
            raise InputError(
                f"{path}: unknown key '{key}'; did you mean '{guess}'? Read are {', '.join(_DESCRIBED)}; "
                "give a note of your own another name"
            )
    return content
