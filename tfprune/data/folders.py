"""What lies in a data folder: pictures paired with masks by their stem, per part of the folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tfprune.data.faults import Finding
from tfprune.data.images import SUFFIXES
from tfprune.errors import InputError

SPLITS = ("train", "val", "test")
WHOLE = "all"
"""Name of the only part of a folder that has no train, val and test folders."""


@dataclass(frozen=True)
class Pair:
    """One picture and its mask, which share a stem."""

    stem: str
    image: Path
    mask: Path


@dataclass
class Listing:
    """The pairs of each part, the files without a partner, and what is wrong with either."""

    folder: Path
    parts: dict[str, tuple[Pair, ...]] = field(default_factory=dict)
    lone_images: list[tuple[str, Path]] = field(default_factory=list)
    lone_masks: list[tuple[str, Path]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """Return the file's path inside the folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()


def list_folder(folder: str | Path) -> Listing:
    """Return what lies in `folder`: `images/` and `masks/`, or those inside `train/` (and `val/`, `test/`).

    Raises:
        InputError: the folder is missing or has neither form.
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
        _list_part(listing, name, folder if flat else folder / name)
    if not any(listing.parts.values()) and not listing.lone_images:
        raise InputError(f"{folder}: holds no images; looked for files ending in {', '.join(SUFFIXES)}")
    return listing


def _list_part(listing: Listing, part: str, folder: Path) -> None:
    images = _list_files(listing, folder / "images")
    masks = _list_files(listing, folder / "masks")
    for stem in sorted(images.keys() - masks.keys()):
        path = images[stem]
        wanted = f"masks/{stem}.png"
        listing.lone_images.append((part, path))
        listing.findings.append(
            Finding("missing_mask", (listing.relative(path),), f"has no mask; looked for {wanted} or another suffix")
        )
    for stem in sorted(masks.keys() - images.keys()):
        path = masks[stem]
        listing.lone_masks.append((part, path))
        listing.findings.append(
            Finding("missing_image", (listing.relative(path),), f"is a mask without its image images/{stem}.*")
        )
    common = sorted(images.keys() & masks.keys())
    listing.parts[part] = tuple(Pair(stem, images[stem], masks[stem]) for stem in common)


def _list_files(listing: Listing, folder: Path) -> dict[str, Path]:
    by_stem: dict[str, list[Path]] = defaultdict(list)
    other = []
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        if path.name.startswith(".") or path.name == "Thumbs.db":
            continue
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            by_stem[path.stem].append(path)
        else:
            other.append(listing.relative(path))
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            names = tuple(listing.relative(path) for path in paths)
            listing.findings.append(
                Finding("duplicate_stem", names, f"has the same stem '{stem}' as {', '.join(names[1:])}; keep one")
            )
    if other:
        listing.warnings.append(
            Finding("unused_files", tuple(other), f"{len(other)} file(s) of other kinds lie here and are not used")
        )
    return {stem: paths[0] for stem, paths in by_stem.items()}
