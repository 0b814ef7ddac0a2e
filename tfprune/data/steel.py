"""The generated steel set: pictures of painted and bare steel with rust, and the exact masks they were drawn from.

`tfprune.data.steel_scene` draws; here is what a mask means, and the set on disk. Corrosion is drawn with a condition
level per pixel, and the mask is read from that level, never from the picture:

    level 0  sound surface, whatever its colour
    level 1  surface rust: stains, freckles and the streaks that run down from them; no loss of section
    level 2  thick, flaking scale
    level 3  pitting: craters, where metal is gone

What an inspector separates decides the classes. Two: corrosion or not. Three: rust that cleaning and paint cure
(levels 1 and 2) against `pitting`, where the remaining thickness has to be measured. Four: the condition states good,
fair, poor, severe of bridge inspection, one per level. The same seed gives the same pictures in every mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfprune.data.generated import Drawing, checked_size, write_drawings
from tfprune.data.steel_scene import draw_scene
from tfprune.errors import InputError

VERSION = 1
"""Version of the drawing; a change of any pixel raises it."""

CLASS_NAMES = {
    2: ("background", "corrosion"),
    3: ("background", "rust", "pitting"),
    4: ("good", "fair", "poor", "severe"),
}
_CLASS_OF_LEVEL = {2: (0, 1, 1, 1), 3: (0, 1, 1, 2), 4: (0, 1, 2, 3)}


def draw_steel(
    rng: np.random.Generator, *, classes: int = 3, size: tuple[int, int] = (96, 96)
) -> tuple[np.ndarray, np.ndarray]:
    """Return one picture (H, W, 3) and its mask (H, W) of class ids, both uint8.

    The picture does not depend on `classes`; a larger one of the same proportions shows the same scene.

    Raises:
        InputError: `classes` is not 2, 3 or 4, or a side is below 16 pixels.

    >>> image, mask = draw_steel(np.random.default_rng(0), classes=2, size=(32, 48))
    >>> image.shape, mask.shape, set(np.unique(mask)) <= {0, 1}
    ((32, 48, 3), (32, 48), True)
    """
    classes, size = _checked_classes(classes), checked_size("steel", size)
    image, level = draw_scene(rng, size)
    return image, np.asarray(_CLASS_OF_LEVEL[classes], np.uint8)[level]


def generate_steel(
    folder: str | Path,
    *,
    classes: int = 3,
    counts: Mapping[str, int],
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> Path:
    """Write a set (`tfprune.data.generated.write_drawings`) and return `folder`.

    Args:
        classes: 2 (corrosion), 3 (rust, pitting) or 4 (condition states).

    Raises:
        InputError: A parameter is out of range, or `folder` holds a set made with other parameters.
    """
    classes = _checked_classes(classes)
    drawing = Drawing(
        "steel",
        f"Generated steel surfaces with rust, streaks and pits, {classes} classes",
        VERSION,
        CLASS_NAMES[classes],
        lambda rng, size: draw_steel(rng, classes=classes, size=size),
    )
    return write_drawings(folder, drawing, counts=counts, size=size, seed=seed)


def _checked_classes(classes: int) -> int:
    if classes not in tuple(CLASS_NAMES):
        known = ", ".join(f"{count} ({', '.join(names)})" for count, names in CLASS_NAMES.items())
        raise InputError(f"steel: classes is {classes!r}; accepted: {known}.")
    return int(classes)
