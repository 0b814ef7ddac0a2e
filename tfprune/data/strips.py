"""The generated steel strips: a stand-in for hot-rolled strip seen by a line camera, with its defects as run lengths.

Half of the strips show no defect. The four kinds look like those of the Severstal competition: clusters of `pits`, thin
`cracks` across the strip, bundles of `scratches` along it, and rough `scale` in large patches. Rolling marks, stains,
seams and the dark beyond the strip's end lie everywhere and are background. Masks are drawn with a margin, as
annotators draw them, and read from the geometry, never from the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tfprune.data.generated import Drawing, checked_size, write_drawings
from tfprune.data.steel_scene import Scene
from tfprune.errors import InputError

VERSION = 1
"""Version of the drawing; a change of any pixel raises it."""

CLASS_NAMES = ("background", "pits", "cracks", "scratches", "scale")
_FREQUENCY = (0.2, 0.14, 0.42, 0.24)
SOUND_SHARE = 0.5
"""How many strips show no defect."""


def draw_strip(rng: np.random.Generator, *, size: tuple[int, int] = (256, 1600)) -> tuple[np.ndarray, np.ndarray]:
    """Return one grey picture and its mask of 0 to 4, (H, W) both, uint8.

    Raises:
        InputError: a side is below 16 pixels.

    >>> image, mask = draw_strip(np.random.default_rng(0), size=(32, 200))
    >>> image.shape, mask.shape, image.dtype, set(np.unique(mask)) <= set(range(5))
    ((32, 200), (32, 200), dtype('uint8'), True)
    """
    scene = Scene(rng, checked_size("strips", size))
    brightness = _draw_ground(scene)
    mask = np.zeros(scene.size, np.uint8)
    if not scene.chance(SOUND_SHARE):
        kinds = scene.rng.choice(4, 2 if scene.chance(0.15) else 1, replace=False, p=_FREQUENCY)
        for kind in kinds:
            depth = _DEFECTS[kind](scene, brightness)
            mask[depth > 0] = kind + 1
    if scene.chance(0.25):  # the strip's end: nothing can be seen beyond it
        _, across = scene.turned((0.0, scene.between(0.03, 0.25) * scene.wide), np.pi / 2 + scene.between(-0.05, 0.05))
        beyond = across if scene.chance(0.5) else across + np.float32(0.7 * scene.wide)
        beyond = beyond if beyond.mean() < 0 else -beyond
        brightness *= 1 - 0.95 * scene.edge(beyond, 0.02)
        mask[beyond > 0] = 0
    noise = 0.025 * scene.rng.standard_normal(scene.size, np.float32)
    return (np.clip(brightness + noise, 0, 1) * 255 + 0.5).astype(np.uint8), mask


def generate_strips(
    folder: str | Path,
    *,
    classes: int = 5,
    counts: Mapping[str, int],
    size: tuple[int, int] = (256, 1600),
    seed: int = 0,
) -> Path:
    """Write a set of grey strips with `masks.csv`, a table of run lengths, in place of masks; return `folder`.

    Args:
        classes: 5, there are no others.

    Raises:
        InputError: A parameter is out of range, or `folder` holds a set made with other parameters.
    """
    if classes != 5:
        raise InputError(f"strips: classes is {classes!r}; accepted: 5 ({', '.join(CLASS_NAMES)}).")
    drawing = Drawing(
        "strips",
        "Generated steel strips with four kinds of defects, half of them without any",
        VERSION,
        CLASS_NAMES,
        lambda rng, size: draw_strip(rng, size=size),
        channels=1,
        run_lengths=True,
    )
    return write_drawings(folder, drawing, counts=counts, size=size, seed=seed)


def _draw_ground(scene: Scene) -> np.ndarray:
    """Return the brightness (H, W) of rolled steel with all that is no defect."""
    ground = scene.between(0.28, 0.5) + 0.05 * scene.noise(1, octaves=2)
    ground = ground + 0.03 * scene.noise(14, octaves=2, stretch=(1.0, 0.06))  # rolled along the strip
    ground = ground + 0.02 * scene.noise(30, octaves=1)
    ground = ground * (1 - scene.between(0, 0.5) * np.abs(scene.y / scene.tall - scene.between(0.3, 0.7)))
    for _ in range(scene.rng.integers(0, 4)):  # marks of the rolls, straight across and faint
        depth = np.float32(scene.between(0.004, 0.03)) - np.abs(scene.x - np.float32(scene.between(0, scene.wide)))
        ground = ground + scene.between(-0.05, 0.05) * scene.edge(depth, 0.02)
    for _ in range(scene.rng.integers(0, 5)):  # soft stains
        depth = scene.between(0.05, 0.2) - scene.distance(scene.place()) * (1 + 0.2 * scene.noise(3))
        ground = ground + scene.between(-0.07, 0.05) * scene.edge(depth, 0.15)
    if scene.chance(0.15):  # a seam between two strips
        depth = np.float32(0.02) - np.abs(scene.x - np.float32(scene.between(0.1, 0.9) * scene.wide))
        ground = ground + 0.25 * scene.edge(depth, 0.02)
    return ground.astype(np.float32)


def _pits(scene: Scene, brightness: np.ndarray) -> np.ndarray:
    """Draw dark dots with bright rims in a cluster; return how deep each pixel lies in their surroundings."""
    surroundings = np.full(scene.size, -1.0, np.float32)
    centre = scene.place(0.15)
    for _ in range(scene.rng.integers(6, 20)):
        at = (centre[0] + 0.16 * scene.rng.standard_normal(), centre[1] + 0.3 * scene.rng.standard_normal())
        radius = scene.between(0.012, 0.032)
        distance = scene.distance(at)
        brightness += 0.12 * scene.edge(1.7 * radius - distance, 0.02) - 0.4 * scene.edge(radius - distance, 0.01)
        np.maximum(surroundings, np.float32(radius + 0.022) - distance, out=surroundings)
    return surroundings


def _cracks(scene: Scene, brightness: np.ndarray) -> np.ndarray:
    """Draw thin dark lines across the strip."""
    surroundings = np.full(scene.size, -1.0, np.float32)
    y, x = scene.place(0.2)
    for number in range(scene.rng.integers(1, 4)):
        middle = (y + scene.between(-0.1, 0.1), x + 0.12 * number)
        along, across = scene.turned(middle, np.pi / 2 + scene.between(-0.15, 0.15))
        across = across + np.float32(0.02) * scene.noise(2)
        half = (scene.between(0.15, 0.4), scene.between(0.006, 0.012))
        depth = np.minimum(half[0] - np.abs(along), half[1] - np.abs(across))
        brightness -= 0.3 * scene.edge(depth, 0.008)
        np.maximum(surroundings, depth + np.float32(0.025), out=surroundings)
    return surroundings


def _scratches(scene: Scene, brightness: np.ndarray) -> np.ndarray:
    """Draw bundles of bright and dark lines along the strip."""
    surroundings = np.full(scene.size, -1.0, np.float32)
    for _ in range(scene.rng.integers(1, 4)):
        half = (scene.between(0.2, 1.1), scene.between(0.03, 0.11))
        depth = scene.box(scene.place(0.1), half, scene.between(-0.06, 0.06)) + np.float32(0.012) * scene.noise(6)
        lines = scene.noise(22, octaves=1, stretch=(1.0, 0.07))
        brightness += scene.between(0.1, 0.22) * scene.edge(depth, 0.02) * (lines + scene.between(-0.3, 0.6))
        np.maximum(surroundings, depth + np.float32(0.01), out=surroundings)
    return surroundings


def _scale(scene: Scene, brightness: np.ndarray) -> np.ndarray:
    """Draw a large rough patch, darker than the steel around it."""
    centre, half = scene.place(0.2), (scene.between(0.2, 0.45), scene.between(0.2, 0.7))
    dy, dx = (scene.y - np.float32(centre[0])) / half[0], (scene.x - np.float32(centre[1])) / half[1]
    depth = np.float32(0.25) * (1 - np.hypot(dy, dx) + np.float32(0.25) * scene.noise(4))
    rough = 0.09 * scene.noise(16, octaves=3) - scene.between(0.1, 0.2)
    brightness += scene.edge(depth, 0.03) * rough
    return depth


_DEFECTS: tuple[Callable[[Scene, np.ndarray], np.ndarray], ...] = (_pits, _cracks, _scratches, _scale)
