"""Patches of floats with their masks in a table: the form of the CorroSeg data, converted to pictures.

A folder holds `images/NAME.npy`, float (H, W) or (H, W, 1), and `masks.csv` with a line NAME, H * W class ids for each,
row by row. A corrupt patch holds a sentinel far below every measurement. Each position of a patch has a scale
of its own, that of the sound train patches; what comes out is a set like any other, of 8-bit pictures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfprune.data.folders import SPLITS, WHOLE, Pair
from tfprune.data.run_length import TABLE
from tfprune.data.splits import Splits, make_splits
from tfprune.errors import InputError
from tfprune.records import atomic_path, write_json

SENTINEL_BELOW = -100.0
"""A patch with a value below this is corrupt."""

LIMIT = 4.0
"""Scaled values from -LIMIT to LIMIT become 0 to 255; what lies outside is cut off."""

GROUP_PATTERN = r"^(well_\d+)"
"""Patches of one well stay together: what one shows goes on in the next."""


def convert_patches(
    folder: str | Path,
    out: str | Path,
    *,
    class_names: tuple[str, ...] = ("background", "corrosion"),
    group_pattern: str = GROUP_PATTERN,
    val_share: float = 0.15,
    test_share: float = 0.2,
    seed: int = 0,
) -> Path:
    """Write the patches of `folder` as a set of grey pictures into `out`, split by whole groups; return `out`.

    Corrupt patches are left out of train; elsewhere they are black, and dataset.json lists them: a net that never
    saw one is to answer them with background. dataset.json also holds the scaling, for patches that come later.

    Args:
        folder: with `images/` and `masks.csv`, or with these in `train/` (and `val/`, `test/`).
        out: a new or empty folder.
        class_names: names of class 0, 1, ...
        group_pattern: regular expression; its first group in a name is what stays together.
        val_share: share of train held out where there is no val part.
        test_share: share held out where there is no test part.
        seed: which groups are held out.

    Raises:
        InputError: a file is missing or of another size, a row does not fit, or `out` holds something.
    """
    folder, out = Path(folder), Path(out)
    if any((out / name).exists() for name in ("dataset.json", "images", *SPLITS)):
        raise InputError(f"{out}: holds a set already; give a new or an empty folder")
    splits = _split(folder, group_pattern=group_pattern, val_share=val_share, test_share=test_share, seed=seed)
    patches = {name: _load(pairs) for name, pairs in splits.items()}
    masks = _read_masks({pair.mask for pairs in splits.values() for pair in pairs})
    corrupt = {name: is_corrupt(values) for name, values in patches.items()}
    sound = patches["train"][~corrupt["train"]]
    if not len(sound):
        raise InputError(f"{folder}: every train patch is corrupt (it holds a value below {SENTINEL_BELOW})")
    centre, scale = fit_scaling(sound)
    for name, pairs in splits.items():
        pictures = to_pictures(patches[name], centre, scale)
        pictures[corrupt[name]] = 0
        for pair, picture, is_bad in zip(pairs, pictures, corrupt[name], strict=True):
            if name != "train" or not is_bad:
                _write(out / name, pair.stem, picture, _mask_of(pair, masks, picture.shape, len(class_names)))
    write_json(
        out / "dataset.json",
        {
            "name": folder.resolve().name,
            "class_names": list(class_names),
            "channels": 1,
            "group_pattern": group_pattern,
            "corrupt": {
                name: [pair.stem for pair, bad in zip(splits[name], corrupt[name], strict=True) if bad]
                for name in splits
            },
            "scaling": {"limit": LIMIT, "centre": centre.ravel().tolist(), "scale": scale.ravel().tolist()},
        },
    )
    return out


def is_corrupt(patches: np.ndarray) -> np.ndarray:
    """Return bool (N,): which patches (N, H, W) hold a value below the sentinel's bound, or none at all."""
    return ~(patches.min(axis=(1, 2)) >= SENTINEL_BELOW)


def fit_scaling(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and the range between the quartiles of each position, (H, W) both; a range of 0 counts as 1.

    It is what scikit-learn's RobustScaler fits on flattened patches.
    """
    low, centre, high = np.percentile(patches.astype(np.float64), [25, 50, 75], axis=0)
    return centre, np.where(high > low, high - low, 1.0)


def to_pictures(patches: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return uint8 (N, H, W): scaled patches, cut off at `LIMIT`.

    >>> to_pictures(np.array([[[-9.0, 1.0, 3.0]]]), np.ones((1, 3)), np.ones((1, 3))).tolist()
    [[[0, 128, 191]]]
    """
    scaled = np.clip((patches - centre) / scale, -LIMIT, LIMIT)
    return np.floor((scaled / LIMIT + 1) * 127.5 + 0.5).astype(np.uint8)


def _split(folder: Path, **splitting: Any) -> Splits:
    parts = {}
    for part in (WHOLE, *SPLITS):
        inside = folder if part == WHOLE else folder / part
        found = sorted((inside / "images").glob("*.npy"))
        if found:
            parts[part] = tuple(Pair(path.stem, path, inside / TABLE) for path in found)
    if WHOLE in parts and len(parts) > 1:
        raise InputError(f"{folder}: holds images/ and also {[*parts][1]}/images/; keep one of the two forms")
    if WHOLE not in parts and "train" not in parts:
        raise InputError(f"{folder}: holds no patches; looked for images/*.npy and train/images/*.npy")
    splits, findings = make_splits(parts, **splitting)
    if findings:
        raise InputError(f"{folder}: {findings[0]}")
    return splits


def _load(pairs: tuple[Pair, ...]) -> np.ndarray:
    """Return float32 (N, H, W)."""
    patches = []
    for pair in pairs:
        try:
            patch = np.load(pair.image, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{pair.image}: cannot be read as an array ({error})") from error
        patch = patch[..., 0] if patch.ndim == 3 and patch.shape[-1] == 1 else patch
        if patch.ndim != 2 or (patches and patch.shape != patches[0].shape):
            wanted = f"as the others, {patches[0].shape}" if patches else "(H, W) or (H, W, 1)"
            raise InputError(f"{pair.image}: is of shape {patch.shape}; it must be {wanted}")
        patches.append(patch.astype(np.float32))
    return np.stack(patches) if patches else np.empty((0, 1, 1), np.float32)


def _read_masks(tables: set[Path]) -> dict[Path, dict[str, list[str]]]:
    return {table: dict(_rows(table)) for table in sorted(tables)}


def _rows(table: Path) -> Iterator[tuple[str, list[str]]]:
    if not table.is_file():
        raise InputError(f"{table}: there is no such table; it holds a line NAME, H * W class ids for each patch")
    with table.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            if row and row[0]:  # the first cell of a header is empty
                yield row[0].removesuffix(".npy"), row[1:]


def _mask_of(
    pair: Pair, masks: Mapping[Path, Mapping[str, list[str]]], size: tuple[int, ...], classes: int
) -> np.ndarray:
    cells = masks[pair.mask].get(pair.stem)
    if cells is None:
        raise InputError(f"{pair.mask}: has no row of {pair.stem}")
    try:
        ids = np.array([int(float(cell)) for cell in cells])
    except ValueError:
        ids = np.array([-1])
    if ids.size != size[0] * size[1] or ids.min() < 0 or ids.max() >= classes:
        raise InputError(
            f"{pair.mask}: the row of {pair.stem} holds {len(cells)} cells; {size[0] * size[1]} class ids "
            f"from 0 to {classes - 1} are needed"
        )
    return ids.astype(np.uint8).reshape(size)


def _write(folder: Path, stem: str, picture: np.ndarray, mask: np.ndarray) -> None:
    for part, pixels in (("images", picture), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / part / f"{stem}.png") as temporary:
            Image.fromarray(pixels).save(temporary)
