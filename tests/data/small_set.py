"""A small data folder on disk, made in a test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("background", "corrosion")


def write_set(
    folder: Path,
    counts: Mapping[str, int],
    *,
    class_names: Sequence[str] = CLASSES,
    size: tuple[int, int] = (24, 32),
    suffix: str = ".jpg",
    **description: object,
) -> Path:
    """Write pictures of noise with index masks; `counts` is per split, or {"": n} for a folder without splits."""
    rng = np.random.default_rng(5)
    number = 0
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for _ in range(count):
            stem = f"p{number:03d}"
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / split / "images" / f"{stem}{suffix}")
            mask = rng.integers(0, len(class_names), size, dtype=np.uint8)
            Image.fromarray(mask).save(folder / split / "masks" / f"{stem}.png")
            number += 1
    (folder / "dataset.json").write_text(json.dumps({"name": "small", "class_names": list(class_names)} | description))
    return folder
