"""`tfprune data check`: every fault of a data folder as one named finding, and what the splits hold."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tfprune.data.arrays import class_shares, count_classes, mask_size_message
from tfprune.data.faults import FileFault, Finding
from tfprune.data.folders import SPLITS, WHOLE, Listing, Pair
from tfprune.data.images import exif_rotation, open_picture, picture_pixels, read_mask
from tfprune.data.masks import ClassTable
from tfprune.data.run_length import RunLengthMask, count_overlaps
from tfprune.data.sets import SegmentationSet, inspect_set

LOOK_ALIKE_BITS = 8
"""Two pictures may look alike when at most this many of their 128 hash bits differ ..."""
LOOK_ALIKE_CORRELATION = 0.95
"""... and do when their 16x16 thumbnails also correlate this well (smooth pictures share bits by chance)."""

_FULL = 2**14
"""A set of 16-bit pictures without a value as large as this uses less than a quarter of their levels."""


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds: pairs, pictures per "width x height", share (0-1) of each class in the judged pixels.

    A share is None where no mask could be read.
    """

    pairs: int
    sizes: dict[str, int]
    class_shares: dict[str, float | None]


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check: `findings` must be mended, `warnings` should be known."""

    name: str
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    splits: dict[str, SplitSummary]


@dataclass(frozen=True)
class _ImageFacts:
    size: tuple[int, int]
    digest: bytes
    bits: np.ndarray
    thumbnail: np.ndarray
    rotation: int
    deepest: int | None  # the largest value of a 16-bit picture


@dataclass(frozen=True)
class _MaskFacts:
    size: tuple[int, int]
    counts: dict[str, int]
    overlap_pixels: int


Facts = TypeVar("Facts", _ImageFacts, _MaskFacts)
Source = TypeVar("Source", bound=Hashable)
MaskFiles = tuple[Path | RunLengthMask, Path | None]
"""A mask, and what says where it is judged."""


def check_folder(folder: str | Path, **options: Any) -> CheckReport:
    """Read every picture and mask in `folder` and report what is wrong; takes the options of `open_set`.

    Findings are files without a partner, that cannot be read or do not fit each other, ids outside the
    class table, and exact copies (by pixels) across splits. Warnings are look-alikes across splits,
    classes absent from a split, EXIF rotations, run lengths of two classes over the same pixels, 16-bit pictures
    that are nearly black, and files that are not used.

    Raises:
        InputError: the folder as a whole, or an option, is not usable.
    """
    found, listing = inspect_set(folder, **options)
    places = _place_images(found, listing, given=WHOLE not in listing.parts and options.get("split_file") is None)
    masks: list[MaskFiles] = [(path, None) for _, path in listing.lone_masks]
    masks += [_mask_files(pair) for pairs in listing.parts.values() for pair in pairs]
    images, faults = _inspect(list(places), _inspect_image)
    mask_facts, mask_faults = _inspect(masks, lambda item: _inspect_mask(item, found.classes))
    findings = [*listing.findings]
    findings += [Finding(fault.kind, (listing.relative(fault.path),), fault.message) for fault in faults + mask_faults]
    for pair in (pair for pairs in listing.parts.values() for pair in pairs):
        mask = mask_facts.get(_mask_files(pair))
        if pair.image in images and mask is not None and images[pair.image].size != mask.size:
            message = mask_size_message(images[pair.image].size, mask.size)
            findings.append(Finding("mask_size", (listing.relative(pair.mask),), message))
    by_split = {split: [path for path in images if places[path] == split] for split in SPLITS}
    findings += _find_copies(listing, by_split, images)
    splits = {name: _summarize(found, name, images, mask_facts) for name in SPLITS}
    warnings = [*listing.warnings, *_find_look_alikes(listing, by_split, images), *_find_rotations(listing, images)]
    warnings += _find_overlaps(listing, mask_facts)
    warnings += _find_few_levels(listing, images)
    for name, summary in splits.items():
        absent = [label for label, share in summary.class_shares.items() if share == 0]
        if absent:
            warnings.append(Finding("absent_class", (), f"{name} holds no pixel of: {', '.join(absent)}"))
    return CheckReport(found.name, found.classes.names, tuple(findings), tuple(warnings), splits)


def _place_images(found: SegmentationSet, listing: Listing, *, given: bool) -> dict[Path, str]:
    """Return every image with its split, or "" for those in none; `given`: the folder's parts are the splits."""
    places = {pair.image: "" for pairs in listing.parts.values() for pair in pairs}
    places |= {path: part if given else "" for part, path in listing.lone_images}
    places |= {pair.image: name for name, pairs in found.splits.items() for pair in pairs}
    return places


def _inspect(sources: list[Source], inspect: Callable[[Source], Facts]) -> tuple[dict[Source, Facts], list[FileFault]]:
    """Return the facts of each source that can be read, and the faults of the others, in the order given."""

    def attempt(source: Source) -> Facts | FileFault:
        try:
            return inspect(source)
        except FileFault as fault:
            return fault

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(attempt, sources))
    facts = {source: item for source, item in zip(sources, outcomes, strict=True) if not isinstance(item, FileFault)}
    return facts, [item for item in outcomes if isinstance(item, FileFault)]


def _inspect_image(path: Path) -> _ImageFacts:
    picture = open_picture(path)
    pixels = picture_pixels(picture, path, 3)
    grey = Image.fromarray(pixels).convert("L")
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16)
    digest.update(str(pixels.shape).encode())
    thumbnail = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
    thumbnail = thumbnail - thumbnail.mean()
    return _ImageFacts(
        size=pixels.shape[:2],
        digest=digest.digest(),
        bits=difference_hash(grey),
        thumbnail=thumbnail / max(float(np.linalg.norm(thumbnail)), 1e-6),
        rotation=exif_rotation(picture),
        deepest=int(np.asarray(picture).max()) if picture.mode.startswith("I") else None,
    )


def difference_hash(grey: Image.Image) -> np.ndarray:
    """Return 128 bits: which of 8x8 neighbours in a 9x9 thumbnail is brighter, to the right and below (dHash)."""
    small = np.asarray(grey.resize((9, 9), Image.Resampling.BOX), np.int16)
    return np.concatenate([(small[:8, 1:] > small[:8, :8]).ravel(), (small[1:, :8] > small[:8, :8]).ravel()])


def _mask_files(pair: Pair) -> MaskFiles:
    return pair.mask, pair.judged


def _inspect_mask(files: MaskFiles, classes: ClassTable) -> _MaskFacts:
    path, judged = files
    mask = read_mask(path, classes, judged=judged)
    overlap_pixels = count_overlaps(path, mask.shape) if isinstance(path, RunLengthMask) else 0
    return _MaskFacts(mask.shape, count_classes(mask, classes), overlap_pixels)


def _find_copies(
    listing: Listing, by_split: dict[str, list[Path]], images: dict[Path, _ImageFacts]
) -> Iterator[Finding]:
    copies: dict[bytes, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, paths in by_split.items():
        for path in paths:
            copies[images[path].digest][split].append(listing.relative(path))
    for places in copies.values():
        if len(places) > 1:
            files = [name for split in reversed(SPLITS) for name in places.get(split, [])]
            message = f"has exactly the pixels of {', '.join(files[1:])}, in another split; keep it in one"
            yield Finding("copy_across_splits", tuple(files), message)


def _find_look_alikes(
    listing: Listing, by_split: dict[str, list[Path]], images: dict[Path, _ImageFacts]
) -> Iterator[Finding]:
    for first, second in combinations(SPLITS, 2):
        ours, theirs = ([images[path] for path in by_split[split]] for split in (second, first))
        if not ours or not theirs:
            continue
        alike = _alike(ours, theirs)
        rows = np.flatnonzero(alike.any(axis=1))
        if not len(rows):
            continue
        files = []
        for row in rows:
            files += [by_split[second][row], by_split[first][int(np.argmax(alike[row]))]]
        names = tuple(listing.relative(path) for path in files)
        yield Finding(
            "look_alikes",
            names,
            f"looks like {names[1]}; {len(rows)} of {len(ours)} pictures in {second} have such a twin in {first}, "
            "so scores will flatter; split by group (group_pattern or split_file)",
        )


def _alike(ours: list[_ImageFacts], theirs: list[_ImageFacts]) -> np.ndarray:
    """Return bool (len(ours), len(theirs)): which look alike and are not exact copies."""
    signs = [np.array([facts.bits for facts in side], np.float32) * 2 - 1 for side in (ours, theirs)]
    distance = (128 - signs[0] @ signs[1].T) / 2
    correlation = np.array([f.thumbnail for f in ours]) @ np.array([f.thumbnail for f in theirs]).T
    digests = [np.array([facts.digest for facts in side], dtype="V16") for side in (ours, theirs)]
    copies = digests[0][:, np.newaxis] == digests[1][np.newaxis]
    return (distance <= LOOK_ALIKE_BITS) & (correlation >= LOOK_ALIKE_CORRELATION) & ~copies


def _find_rotations(listing: Listing, images: dict[Path, _ImageFacts]) -> Iterator[Finding]:
    rotated = tuple(listing.relative(path) for path, facts in images.items() if facts.rotation != 1)
    if rotated:
        message = (
            f"carries an EXIF rotation that is not applied here ({len(rotated)} such picture(s)); "
            "look whether the mask fits the picture as stored, and save it upright"
        )
        yield Finding("exif_rotation", rotated, message)


def _find_overlaps(listing: Listing, masks: dict[MaskFiles, _MaskFacts]) -> Iterator[Finding]:
    by_table: dict[str, list[int]] = defaultdict(list)
    for (path, _), facts in masks.items():
        if facts.overlap_pixels:
            by_table[listing.relative(path)].append(facts.overlap_pixels)
    for table, pixels in by_table.items():
        message = (
            f"has {sum(pixels)} pixel(s) of {len(pixels)} picture(s) in runs of more than one class; "
            "a pixel has one class here, that of the higher number"
        )
        yield Finding("overlapping_runs", (table,), message)


def _find_few_levels(listing: Listing, images: dict[Path, _ImageFacts]) -> Iterator[Finding]:
    """Yield a warning when no 16-bit picture reaches the top quarter of 16 bit, as 12-bit cameras leave them."""
    deep = {path: facts.deepest for path, facts in images.items() if facts.deepest is not None}
    largest = max(deep.values(), default=_FULL)
    if largest < _FULL:
        message = (
            f"is stored in 16 bit, and no such picture ({len(deep)}) holds a value above {largest}: read as 0..65535, "
            f"they have {(largest >> 8) + 1} of 256 levels; scale them to 0..65535, or to 8 bit, before training"
        )
        yield Finding("few_levels", tuple(map(listing.relative, deep)), message)


def _summarize(
    found: SegmentationSet, split: str, images: dict[Path, _ImageFacts], masks: dict[MaskFiles, _MaskFacts]
) -> SplitSummary:
    pairs = found.splits[split]
    sizes = Counter(images[pair.image].size for pair in pairs if pair.image in images)
    counts = {name: 0 for name in found.classes.names}
    for facts in (masks[files] for files in map(_mask_files, pairs) if files in masks):
        for name, count in facts.counts.items():
            counts[name] += count
    by_size = {f"{width}x{height}": count for (height, width), count in sizes.most_common()}
    shares = class_shares(counts) if any(counts.values()) else dict.fromkeys(counts)
    return SplitSummary(len(pairs), by_size, shares)
