"""The generated set of thin branching lines: a stand-in for vessels, cracks and wires.

Bright trees grow into the picture from its border or from within, thinner at each fork, on a textured ground
with soft bright bands, spots and short bars, which are background: brightness alone does not tell them apart.
The mask is read from the drawn geometry, never from the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfprune.data.generated import Drawing, checked_size, write_drawings
from tfprune.data.steel_scene import Scene
from tfprune.errors import InputError

VERSION = 1
"""Version of the drawing; a change of any pixel raises it."""

CLASS_NAMES = ("background", "branch")
_STEP, _THINNEST = 0.025, 0.006
Segment = tuple[float, float, float, float, float]
"""(y, x, y, x, half width) in units of the picture's short side."""


def draw_branches(rng: np.random.Generator, *, size: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray]:
    """Return one picture (H, W, 3) and its mask (H, W) of 0 and 1, both uint8.

    Raises:
        InputError: a side is below 16 pixels.

    >>> image, mask = draw_branches(np.random.default_rng(0), size=(32, 48))
    >>> image.shape, mask.shape, set(np.unique(mask)) <= {0, 1}
    ((32, 48, 3), (32, 48), True)
    """
    scene = Scene(rng, checked_size("branches", size))
    brightness = _draw_ground(scene)
    depth = np.full(scene.size, -1.0, np.float32)
    for _ in range(rng.integers(1, 4)):
        for segment in _grow(scene):
            _deepen(depth, segment, pixel=scene.pixel)
    contrast = scene.between(0.1, 0.3) * (1 + 0.35 * np.clip(scene.noise(3, octaves=2), -1.5, 1))
    brightness += scene.edge(depth) * contrast
    return _photograph(scene, brightness), (depth > 0).astype(np.uint8)


def generate_branches(
    folder: str | Path,
    *,
    classes: int = 2,
    counts: Mapping[str, int],
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> Path:
    """Write a set (`tfprune.data.generated.write_drawings`) and return `folder`.

    Args:
        classes: 2, there are no others.

    Raises:
        InputError: A parameter is out of range, or `folder` holds a set made with other parameters.
    """
    if classes != 2:
        raise InputError(f"branches: classes is {classes!r}; accepted: 2 ({', '.join(CLASS_NAMES)}).")
    drawing = Drawing(
        "branches",
        "Generated thin branching lines on a textured ground",
        VERSION,
        CLASS_NAMES,
        lambda rng, size: draw_branches(rng, size=size),
    )
    return write_drawings(folder, drawing, counts=counts, size=size, seed=seed)


def _draw_ground(scene: Scene) -> np.ndarray:
    """Return the brightness (H, W) of the ground with everything on it that is not a branch."""
    ground = scene.between(0.25, 0.45) + 0.06 * scene.noise(2) + scene.between(0.01, 0.04) * scene.noise(25, octaves=2)
    for _ in range(scene.rng.integers(0, 3)):  # broad bands
        depth = scene.box(scene.place(), (3.0, scene.between(0.05, 0.12)), scene.between(0, np.pi))
        ground += scene.between(0.05, 0.15) * scene.edge(depth, 0.1)
    for _ in range(scene.rng.integers(0, 6)):  # spots
        ground += scene.between(0.1, 0.3) * scene.edge(scene.between(0.01, 0.04) - scene.distance(scene.place()), 0.01)
    for _ in range(scene.rng.integers(0, 5)):  # bars as thin as a branch, too short and too straight for one
        half = (scene.between(0.02, 0.05), scene.between(0.008, 0.02))
        ground += scene.between(0.1, 0.25) * scene.edge(scene.box(scene.place(), half, scene.between(0, np.pi)))
    return ground


def _grow(scene: Scene) -> Iterator[Segment]:
    """Yield the segments of one tree."""
    y, x = scene.place(0)
    if scene.chance(0.8):  # from the border
        y, x = (y, 0.0) if scene.chance(0.5) else (0.0, x)
        y, x = (scene.tall - y, scene.wide - x) if scene.chance(0.5) else (y, x)
    inwards = np.arctan2(scene.tall / 2 - y, scene.wide / 2 - x)
    tips = [(y, x, inwards + scene.between(-0.5, 0.5), scene.between(0.014, 0.026))]
    while tips:
        y, x, angle, half = tips.pop()
        bend = scene.between(-0.08, 0.08)
        for _ in range(scene.rng.integers(5, 16)):
            angle += bend + 0.12 * float(scene.rng.standard_normal())
            to_y, to_x = y + _STEP * np.sin(angle), x + _STEP * np.cos(angle)
            yield y, x, to_y, to_x, half
            y, x = to_y, to_x
        is_inside = 0 < y < scene.tall and 0 < x < scene.wide
        for side in (-1, 1):
            thinner = half * scene.between(0.6, 0.9)
            if is_inside and thinner > _THINNEST:
                tips.append((y, x, angle + side * scene.between(0.2, 0.8), thinner))


def _deepen(depth: np.ndarray, segment: Segment, *, pixel: float) -> None:
    """Raise `depth` (H, W), how deep a pixel lies inside a branch, to what a segment makes of it, in place."""
    from_y, from_x, to_y, to_x, half = segment
    half = max(half, 0.75 * pixel)  # a thinner line would fall apart between the pixels
    reach = half + 2 * pixel
    corners = np.array([[min(from_y, to_y), min(from_x, to_x)], [max(from_y, to_y), max(from_x, to_x)]])
    low = np.maximum((corners[0] - reach) / pixel, 0).astype(int)
    high = np.clip(np.ceil((corners[1] + reach) / pixel), 0, depth.shape).astype(int)
    window = depth[low[0] : high[0], low[1] : high[1]]
    y = ((np.arange(low[0], max(high[0], low[0])) + 0.5) * pixel)[:, None]
    x = ((np.arange(low[1], max(high[1], low[1])) + 0.5) * pixel)[None, :]
    dy, dx = to_y - from_y, to_x - from_x
    along = np.clip(((y - from_y) * dy + (x - from_x) * dx) / (dy * dy + dx * dx), 0, 1)
    distance = np.hypot(y - from_y - along * dy, x - from_x - along * dx)
    np.maximum(window, half - distance, out=window, casting="same_kind")


def _photograph(scene: Scene, brightness: np.ndarray) -> np.ndarray:
    """Return the picture (H, W, 3) uint8: lighting, a tint, blur and noise."""
    from scipy import ndimage  # not there on a board, where `tfprune.data` only reads

    along, _ = scene.turned((scene.tall / 2, scene.wide / 2), scene.light_angle)
    lit = brightness * (1 + np.float32(scene.between(-0.4, 0.4)) * along)
    lit = ndimage.gaussian_filter(lit, 0.4 + scene.between(0, 0.004) / scene.pixel, truncate=3)
    image = lit[..., None] * scene.rng.uniform(0.75, 1.2, 3).astype(np.float32)
    image = image + np.float32(scene.between(0.01, 0.04)) * scene.rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
