"""What lies in a data folder: pictures paired with masks by name, per part of the folder."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfprune.data.faults import Finding
from tfprune.data.images import SUFFIXES
from tfprune.data.run_length import TABLE, RunLengthMask, read_table
from tfprune.errors import InputError

SPLITS = ("train", "val", "test")
WHOLE = "all"
"""Name of the only part of a folder that has no train, val and test folders."""
JUDGED = "judged"
"""Name of the folder of pictures that are 0 where a pixel is not judged: outside the field of view, for instance."""


@dataclass(frozen=True)
class Pair:
    """One picture, its mask, and what says where it is judged; `stem` is the picture's name without suffix."""

    stem: str
    image: Path
    mask: Path | RunLengthMask
    judged: Path | None = None


@dataclass
class Listing:
    """The pairs of each part, the files without a partner, and what is wrong with either."""

    folder: Path
    parts: dict[str, tuple[Pair, ...]] = field(default_factory=dict)
    lone_images: list[tuple[str, Path]] = field(default_factory=list)
    lone_masks: list[tuple[str, Path]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def relative(self, path: Path | RunLengthMask) -> str:
        """Return the file's path inside the folder, with forward slashes."""
        path = path.table if isinstance(path, RunLengthMask) else path
        return path.relative_to(self.folder).as_posix()


def list_folder(folder: str | Path, *, stem_pattern: str | None = None) -> Listing:
    """Return what lies in `folder`: `images/` and `masks/`, or those inside `train/` (and `val/`, `test/`).

    A table `masks.csv` of run lengths may stand in place of `masks/`. A folder `judged/` may stand beside them, with
    a picture for each image. What belongs together has the same stem, or the same first group of `stem_pattern`,
    a regular expression.

    Raises:
        InputError: the folder is missing or has neither form, or the pattern is wrong or does not match a stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the folder that holds the images and masks")
    split_names = [name for name in SPLITS if (folder / name / "images").is_dir()]
    flat = (folder / "images").is_dir()
    if flat and split_names:
        raise InputError(f"{folder}: holds images/ and also {split_names[0]}/images/; keep one of the two forms")
    if not flat and "train" not in split_names:
        raise InputError(
            f"{folder}: holds no pictures in a known place; accepted are images/ + masks/, "
            "or train/images/ + train/masks/ (with val and test beside train where they exist)"
        )
    listing = Listing(folder)
    for name in [WHOLE] if flat else split_names:
        _list_part(listing, name, folder if flat else folder / name, first_group("stem_pattern", stem_pattern))
    if not any(listing.parts.values()) and not listing.lone_images:
        hint = (
            "; patches of floats (.npy) first go through `tfprune data convert`" if any(folder.rglob("*.npy")) else ""
        )
        inside = "".join(f"; {warning}" for warning in listing.warnings if warning.files[0].split("/")[-2] == "images")
        raise InputError(f"{folder}: holds no images; looked for files ending in {', '.join(SUFFIXES)}{inside}{hint}")
    return listing


def spelt(name: str) -> str:
    """Return a name in one spelling: macOS writes a letter and its accent as two characters, others as one.

    >>> len("u\u0308"), len(spelt("u\u0308"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", name)


def first_group(option: str, given: str | None) -> Callable[[str], str]:
    """Return stem -> what the first group of a regular expression finds in it; the stem itself without one.

    Raises:
        InputError: `given` is no expression or has no group; or later, when it does not match a stem.
    """
    if given is None:
        return lambda stem: stem
    try:
        pattern = re.compile(str(given))
    except re.error as error:
        raise InputError(f"{option} {given!r} is not a regular expression ({error})") from error
    if not pattern.groups:
        raise InputError(f"{option} {given!r} has no (group); put the part that names the group in brackets")

    def group_of(stem: str) -> str:
        match = pattern.search(stem)
        if match is None or match.group(1) is None:
            raise InputError(f"{option} {given!r} does not match the file stem '{stem}'")
        return match.group(1)

    return group_of


def _list_part(listing: Listing, part: str, folder: Path, key_of: Callable[[str], str]) -> None:
    images = _list_files(listing, folder / "images", key_of)
    if images and not (folder / "masks").is_dir() and not (folder / TABLE).is_file():
        raise InputError(
            f"{folder}: holds images/ and neither masks/ nor {TABLE}; put the masks into {folder / 'masks'}"
        )
    if images and (folder / TABLE).is_file():
        _pair_with_table(listing, part, folder, images)
    else:
        _pair_with_masks(listing, part, images, _list_files(listing, folder / "masks", key_of))
    if (folder / JUDGED).is_dir():
        _add_judged(listing, part, images, _list_files(listing, folder / JUDGED, key_of))


def _pair_with_masks(listing: Listing, part: str, images: dict[str, Path], masks: dict[str, Path]) -> None:
    for key in sorted(images.keys() - masks.keys()):
        path = images[key]
        wanted = f"masks/{key}.png"
        listing.lone_images.append((part, path))
        listing.findings.append(
            Finding("missing_mask", (listing.relative(path),), f"has no mask; looked for {wanted} or another suffix")
        )
    for key in sorted(masks.keys() - images.keys()):
        path = masks[key]
        listing.lone_masks.append((part, path))
        listing.findings.append(
            Finding("missing_image", (listing.relative(path),), f"is a mask without its image images/{key}.*")
        )
    common = sorted(images.keys() & masks.keys())
    listing.parts[part] = tuple(Pair(spelt(images[key].stem), images[key], masks[key]) for key in common)


def _add_judged(listing: Listing, part: str, images: dict[str, Path], judged: dict[str, Path]) -> None:
    """Give each pair of a part the picture that says where it is judged."""
    by_image = {images[key]: judged[key] for key in images.keys() & judged.keys()}
    for pair in listing.parts[part]:
        if pair.image not in by_image:
            message = f"has no picture in {JUDGED}/ that says where it is judged; the others have one"
            listing.findings.append(Finding("missing_judged", (listing.relative(pair.image),), message))
    for key in sorted(judged.keys() - images.keys()):
        message = f"says where an image is judged, and there is no image images/{key}.*"
        listing.findings.append(Finding("missing_image", (listing.relative(judged[key]),), message))
    listing.parts[part] = tuple(replace(pair, judged=by_image.get(pair.image)) for pair in listing.parts[part])


def _pair_with_table(listing: Listing, part: str, folder: Path, images: dict[str, Path]) -> None:
    """Pair pictures with their rows of a table; a picture without rows shows background alone."""
    if (folder / "masks").is_dir():
        raise InputError(f"{folder}: holds masks/ and also {TABLE}; keep one of the two forms")
    table = folder / TABLE
    rows = {spelt(name): runs for name, runs in read_table(table).items()}
    names = {spelt(path.name) for path in images.values()}
    for name in sorted(rows.keys() - names):
        message = f"has rows of {name}, and there is no image images/{name}"
        listing.findings.append(Finding("missing_image", (listing.relative(table),), message))
    listing.parts[part] = tuple(
        Pair(spelt(path.stem), path, RunLengthMask(table, path, rows.get(spelt(path.name), ())))
        for path in sorted(images.values(), key=lambda path: path.stem)
    )


def _list_files(listing: Listing, folder: Path, key_of: Callable[[str], str]) -> dict[str, Path]:
    by_key: dict[str, list[Path]] = defaultdict(list)
    other = []
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        if path.name.startswith(".") or path.name == "Thumbs.db":
            continue
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            by_key[key_of(spelt(path.stem))].append(path)
        else:
            other.append(listing.relative(path))
    for key, paths in by_key.items():
        if len(paths) > 1:
            names = tuple(listing.relative(path) for path in paths)
            listing.findings.append(
                Finding("duplicate_stem", names, f"has the same stem '{key}' as {', '.join(names[1:])}; keep one")
            )
    if other:
        message = f"{len(other)} folder(s) or file(s) of other kinds lie here and are not used"
        listing.warnings.append(Finding("unused_files", tuple(other), message))
    return {key: paths[0] for key, paths in by_key.items()}
