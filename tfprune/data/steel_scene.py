"""The scenes of the generated steel set: layers of surface, corrosion and things in the way, then light and camera.

What is drawn as corrosion is written down as a condition level per pixel while it is drawn: 0 sound surface,
1 surface rust (stains, freckles, the streaks that run down from them), 2 thick flaking scale, 3 pitting.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image


def _colours(hexadecimal: str) -> np.ndarray:
    """Return RGB triples (n, 3) in 0..1, float32."""
    return np.frombuffer(bytes.fromhex(hexadecimal), np.uint8).reshape(-1, 3).astype(np.float32) / 255


_RUST = _colours("321c14 5c3420 96522a ba7038 ca9660")  # from old and dark to fresh and light
_PAINTS = _colours(
    "cdcdc8 969b9e 60686e c4bea8 5c8068 587696 bca046 46544c c8ccbe "
    "803e30 b08c6c ac5e38"  # red oxide, tan, orange-brown
)
_OBJECTS = _colours("e2ded4 d4be78 d6ac28 ce6228 a87448 3c60aa be2c2c 343436")  # light ones first
# of each level of corrosion: tone, its spread, contrast, grain (cells per short side)
_LOOK_OF_LEVEL = {1: (0.64, 0.25, 0.16, 12), 2: (0.42, 0.08, 0.13, 11), 3: (0.02, 0.08, 0.06, 24)}


class Scene:
    """One picture being drawn; lengths are in units of its short side, so that features grow with the picture.

    `albedo` (H, W, 3) and `shade` (H, W) are float32 around 0..1 and are multiplied at the end, so that rust keeps
    the relief it lies on; `level` (H, W) is the condition level of each pixel.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.size = size
        short = min(size)
        self.tall, self.wide = size[0] / short, size[1] / short
        self.area = self.tall * self.wide
        self.y = ((np.arange(size[0], dtype=np.float32) + 0.5) / short)[:, None]
        self.x = ((np.arange(size[1], dtype=np.float32) + 0.5) / short)[None, :]
        self.pixel = 1.0 / short
        self.albedo = np.zeros((*size, 3), np.float32)
        self.shade = np.ones(size, np.float32)
        self.level = np.zeros(size, np.uint8)
        self.light_angle = rng.uniform(0, 2 * np.pi)
        self.rust_tone = rng.uniform(-0.14, 0.14)
        self.bolts: list[tuple[float, float, float]] = []

    def chance(self, probability: float) -> bool:
        """Return True with `probability`."""
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        """Return a uniform number."""
        return float(self.rng.uniform(low, high))

    def place(self, margin: float = 0.05) -> tuple[float, float]:
        """Return a random (y, x) at least `margin` from the border."""
        return self.between(margin, self.tall - margin), self.between(margin, self.wide - margin)

    def noise(self, cells: float, *, octaves: int = 3, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """Return smooth noise (H, W), mean 0 and deviation near 1; its coarsest octave has `cells` per short side."""
        total = np.zeros(self.size, np.float32)
        weight, power = 1.0, 0.0
        for _ in range(octaves):
            rows, columns = cells * self.tall * stretch[0], cells * self.wide * stretch[1]
            grid = self.rng.standard_normal((int(rows) + 2, int(columns) + 2), np.float32)
            picture = Image.fromarray(grid).resize(self.size[::-1], Image.Resampling.BICUBIC, (0, 0, columns, rows))
            total += weight * np.asarray(picture)
            power += weight * weight
            weight, cells = weight * 0.6, cells * 2
        return total / np.float32(0.75 * power**0.5)

    def turned(self, centre: tuple[float, float], angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates along and across a direction, with their origin at `centre`."""
        dy, dx = self.y - centre[0], self.x - centre[1]
        sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        return dx * cosine + dy * sine, dy * cosine - dx * sine

    def box(self, centre: tuple[float, float], half: tuple[float, float], angle: float) -> np.ndarray:
        """Return how deep each pixel lies inside a turned rectangle (H, W), negative outside."""
        along, across = self.turned(centre, angle)
        return np.minimum(half[0] - np.abs(along), half[1] - np.abs(across))

    def distance(self, centre: tuple[float, float]) -> np.ndarray:
        """Return the distance of each pixel from a point."""
        return np.hypot(self.y - np.float32(centre[0]), self.x - np.float32(centre[1]))

    def edge(self, depth: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Return an opacity that is 0.5 where `depth` is 0 and rises over `softness` (at least one pixel)."""
        return np.clip(depth / np.float32(max(softness, self.pixel)) + 0.5, 0, 1)

    def inside(self, depth: np.ndarray, softness: float) -> np.ndarray:
        """Return an opacity of 0 outside, so that no faint rust lies beyond its mask, and 0.5 to 1 inside."""
        return (depth > 0) * np.clip(0.5 + 0.5 * depth / np.float32(softness), 0, 1)

    def relief(self, height: np.ndarray, strength: float) -> np.ndarray:
        """Return the shading of a height field lit from the side (H, W), 0 where it is flat."""
        dy, dx = np.gradient(height)
        slope = dy * np.float32(np.sin(self.light_angle)) + dx * np.float32(np.cos(self.light_angle))
        return np.clip(slope * np.float32(strength / self.pixel), -0.6, 0.6)

    def paint(self, opacity: np.ndarray, colour: np.ndarray) -> None:
        """Lay a colour (3,) or (H, W, 3) over the surface."""
        self.albedo += opacity[..., None] * (colour - self.albedo)

    def cover(self, opacity: np.ndarray, colour: np.ndarray) -> None:
        """Lay a thing on top: it hides relief and corrosion."""
        self.paint(opacity, colour)
        self.shade += opacity * (1 - self.shade)
        self.level[opacity > 0.5] = 0

    def rust_colour(self, tone: np.ndarray) -> np.ndarray:
        """Return the rust palette at `tone` (0 old and dark, 1 fresh and light), (..., 3)."""
        position = (np.clip(tone + self.rust_tone, 0, 0.999) * (len(_RUST) - 1)).astype(np.float32)
        below = position.astype(np.intp)
        part = (position - below)[..., None]
        return _RUST[below] * (1 - part) + _RUST[below + 1] * part

    def rust_tone_unlike(self, where: np.ndarray, middle: float, *, spread: float) -> float:
        """Return the one of two random tones that differs more from what is there, so that rust on brown shows."""
        below = self.albedo[where].mean(0) if where.any() else np.zeros(3, np.float32)
        tones = self.rng.uniform(middle - spread, middle + spread, 2)
        return float(tones[np.argmax(np.abs(self.rust_colour(tones) - below).sum(1))])

    def rusty_colour(self) -> np.ndarray:
        """Return one flat colour (3,) from the same palette as rust: what a colour rule stumbles over."""
        return self.rust_colour(np.float32(self.between(0.1, 1.0))) * self.rng.uniform(0.92, 1.08, 3).astype(np.float32)


def draw_paint_coat(scene: Scene) -> None:
    """Paint the plate, in one colour or two."""
    colour = _PAINTS[scene.rng.integers(len(_PAINTS))] * scene.rng.uniform(0.9, 1.1, 3).astype(np.float32)
    tone = 1 + 0.05 * scene.noise(2, octaves=2) + scene.between(0.01, 0.05) * scene.noise(30, octaves=2)
    scene.albedo += colour * tone[..., None]
    if scene.chance(0.3):  # a second coat below or beside the first
        other = _PAINTS[scene.rng.integers(len(_PAINTS))]
        scene.paint(scene.edge(scene.box(scene.place(), (3, scene.between(0.2, 0.5)), scene.between(-0.1, 1.6))), other)


def draw_bare_metal(scene: Scene) -> None:
    """Draw brushed steel, sometimes with mill scale."""
    along, across = scene.turned((0, 0), scene.between(0, np.pi))
    lines = scene.rng.standard_normal(512).astype(np.float32)
    brushed = lines[((across + 0.004 * along) * scene.between(60, 140)).astype(np.intp) % 512]
    grey = scene.between(0.38, 0.62)
    tint = np.array([1.0, scene.between(0.97, 1.02), scene.between(0.95, 1.08)], np.float32)
    tone = grey + scene.between(0.01, 0.04) * brushed + 0.03 * scene.noise(3) + 0.02 * scene.noise(40, octaves=1)
    scene.albedo += tone[..., None] * tint
    if scene.chance(0.4):  # mill scale: dark, bluish or brown, and sound
        scale = np.array([0.24, 0.25, 0.29] if scene.chance(0.5) else [0.33, 0.26, 0.22], np.float32)
        scene.paint(0.75 * scene.edge(scene.noise(2.5, octaves=2) - scene.between(0.2, 1.0), 0.3), scale)


def draw_tread_plate(scene: Scene) -> None:
    """Raise the lozenges of a tread plate."""
    count = scene.between(5, 9)
    along, across = scene.turned(scene.place(), scene.between(0.6, 1.0))
    row, column = np.floor(along * count), np.floor(across * count)
    u, v = along * count - row - 0.5, across * count - column - 0.5
    swap = (row + column) % 2 == 0
    long, wide = np.where(swap, u, v), np.where(swap, v, u)
    height = np.clip(1 - (long / 0.42) ** 2 - (wide / 0.13) ** 2, 0, None)
    scene.shade += scene.relief(height, scene.between(0.02, 0.035))


def draw_seam(scene: Scene) -> None:
    """Draw a weld, or the edge where one plate laps another."""
    along, across = scene.turned(scene.place(0.2), scene.between(-0.05, 0.05) + (np.pi / 2 if scene.chance(0.5) else 0))
    if scene.chance(0.5):  # a weld: a ridge of ripples
        half = scene.between(0.012, 0.03)
        ridge = np.clip(1 - (across / half) ** 2, 0, None) * (1 + 0.25 * np.sin(along / half * 2.5 + 8 * across / half))
        scene.shade += scene.relief(ridge, 0.012)
    else:  # a lap: one plate before the other, with its shadow
        scene.albedo *= 1 + scene.edge(across)[..., None] * np.float32(scene.between(-0.15, 0.1))
        scene.shade *= 1 - 0.5 * np.exp(-np.clip(across, 0, None) / 0.015) * (across > 0)


def draw_bolt_row(scene: Scene) -> None:
    """Draw a row of bolt heads and remember where they are."""
    radius, step = scene.between(0.025, 0.055), scene.between(0.16, 0.4)
    angle = scene.between(-0.05, 0.05) + (np.pi / 2 if scene.chance(0.5) else 0)
    (y, x), six = scene.place(0.12), scene.chance(0.6)
    for k in range(scene.rng.integers(1, 5)):
        centre = (y + k * step * np.sin(angle), x + k * step * np.cos(angle))
        if centre[0] > scene.tall or centre[1] > scene.wide:
            break
        dy, dx = scene.y - np.float32(centre[0]), scene.x - np.float32(centre[1])
        away = np.hypot(dy, dx)
        if six:
            away = away * np.cos(np.arctan2(dy, dx) % (np.pi / 3) - np.pi / 6)
        dome = np.clip((radius - away) / (0.35 * radius), 0, 1)
        scene.shade *= 1 - 0.4 * np.exp(-np.abs(away - radius) / (0.15 * radius)) * (away > 0.8 * radius)
        scene.shade += scene.relief(dome, 0.012)
        scene.bolts.append((*centre, radius))


def draw_paint_patch(scene: Scene) -> None:
    """Paint a flat patch, mostly in a colour of rust: a rectangle or a spill with runs."""
    colour = scene.rusty_colour() if scene.chance(0.75) else _PAINTS[scene.rng.integers(len(_PAINTS))]
    centre, size = scene.place(), (scene.between(0.06, 0.3), scene.between(0.05, 0.16))
    if scene.chance(0.5):
        depth = scene.box(centre, size, scene.between(0, np.pi))
    else:
        depth = size[1] * (1 + 0.3 * scene.noise(4, octaves=1)) - scene.distance(centre)
        for _ in range(scene.rng.integers(0, 4)):
            run = (centre[0] + size[0] / 2, centre[1] + scene.between(-0.7, 0.7) * size[1])
            depth = np.maximum(depth, scene.box(run, (size[0] / 2, scene.between(0.008, 0.016)), np.pi / 2))
    tone = 1 + scene.between(0.0, 0.04) * scene.noise(8)
    scene.paint(scene.between(0.88, 1) * scene.edge(depth), colour * tone[..., None])


def draw_primer(scene: Scene) -> None:
    """Draw brush strokes of red-lead primer."""
    centre, angle = scene.place(), scene.between(0, np.pi)
    along, across = scene.turned(centre, angle)
    length, half = scene.between(0.12, 0.4), scene.between(0.05, 0.14)
    bristles = scene.rng.standard_normal(64).astype(np.float32)[((across / half + 1) * 12).astype(np.intp) % 64]
    depth = np.minimum(length + 0.03 * bristles - np.abs(along), half + 0.01 * scene.noise(6) - np.abs(across))
    colour = np.array([scene.between(0.5, 0.75), scene.between(0.2, 0.32), scene.between(0.12, 0.22)], np.float32)
    scene.paint(0.92 * scene.edge(depth), colour * (1 + 0.06 * bristles)[..., None])


def draw_dirt(scene: Scene) -> None:
    """Draw grime, or water marks that run like rust does."""
    dark = np.array([(0.14, 0.13, 0.12), (0.22, 0.24, 0.16), (0.3, 0.25, 0.2)][scene.rng.integers(3)], np.float32)
    if scene.chance(0.5):  # water marks, which run like rust does
        field = scene.noise(14, octaves=2, stretch=(0.12, 1)) + scene.noise(2, octaves=1) - scene.between(0.8, 1.6)
    else:
        field = scene.noise(3, octaves=4) - scene.between(0.5, 1.3)
    scene.paint(scene.between(0.25, 0.65) * np.clip(field, 0, 1), dark)


def draw_holes(scene: Scene) -> None:
    """Draw drilled holes or splashes of oil: round, dark and sound."""
    for _ in range(scene.rng.integers(1, 6)):
        away, radius = scene.distance(scene.place()), scene.between(0.01, 0.035)
        scene.paint(scene.between(0.7, 1) * scene.edge(radius - away), np.full(3, 0.08, np.float32))


def draw_scratches(scene: Scene) -> None:
    """Draw bright scratches that have not rusted."""
    for _ in range(scene.rng.integers(1, 6)):
        half = (scene.between(0.04, 0.3), scene.between(0.003, 0.008))
        depth = scene.box(scene.place(), half, scene.between(0, np.pi))
        scene.paint(0.8 * scene.edge(depth), np.full(3, scene.between(0.6, 0.85), np.float32))


def draw_tape(scene: Scene) -> None:
    """Stick a strip of tape on."""
    colour = _OBJECTS[scene.rng.integers(len(_OBJECTS))] if scene.chance(0.6) else scene.rusty_colour()
    depth = scene.box(scene.place(), (scene.between(0.12, 0.8), scene.between(0.025, 0.06)), scene.between(0, np.pi))
    scene.cover(scene.edge(depth), colour * (1 + 0.03 * scene.noise(12))[..., None])


def draw_label(scene: Scene) -> None:
    """Stick a label with lines of text on."""
    centre, angle, half = (
        scene.place(),
        scene.between(-0.3, 0.3),
        (scene.between(0.07, 0.14), scene.between(0.04, 0.09)),
    )
    scene.cover(scene.edge(scene.box(centre, half, angle)), _OBJECTS[scene.rng.integers(3)])
    along, across = scene.turned(centre, angle)
    letters = scene.rng.random((8, 24)) < 0.65
    row = ((across / half[1] + 1) * 4).astype(np.intp).clip(0, 7)
    column = ((along / half[0] + 1) * 12).astype(np.intp).clip(0, 23)
    inside = np.minimum(0.8 * half[0] - np.abs(along), 0.7 * half[1] - np.abs(across)) > 0
    scene.paint(0.8 * (inside & letters[row, column] & (row % 2 == 1)), np.full(3, 0.12, np.float32))


def draw_marker(scene: Scene) -> None:
    """Stick a black and white square marker on."""
    half, centre, angle = scene.between(0.05, 0.11), scene.place(), scene.between(-0.6, 0.6)
    along, across = scene.turned(centre, angle)
    bits = np.zeros((6, 6), np.float32)
    bits[1:5, 1:5] = scene.rng.random((4, 4)) < 0.5
    row = ((across / half + 1) * 3).astype(np.intp).clip(0, 5)
    column = ((along / half + 1) * 3).astype(np.intp).clip(0, 5)
    scene.cover(scene.edge(scene.box(centre, (half, half), angle)), (0.06 + 0.84 * bits[row, column])[..., None])


def draw_chalk(scene: Scene) -> None:
    """Draw a chalk ring or cross; what is below stays visible."""
    colour = np.array([(0.95, 0.95, 0.92), (0.95, 0.85, 0.3), (0.85, 0.4, 0.3)][scene.rng.integers(3)], np.float32)
    grain = np.clip(0.6 + 0.35 * scene.noise(48, octaves=1), 0, 1)
    if scene.chance(0.5):  # a ring around something
        depth = 0.009 - np.abs(
            scene.distance(scene.place()) * (1 + 0.06 * scene.noise(2, octaves=1)) - scene.between(0.1, 0.25)
        )
    else:
        start = scene.place()
        depth = np.maximum.reduce(
            [scene.box(start, (scene.between(0.04, 0.15), 0.008), scene.between(0, np.pi)) for _ in range(3)]
        )
    scene.paint(grain * scene.edge(depth), colour)


def draw_plank(scene: Scene) -> None:
    """Lay a wooden plank with its shadow on the plate."""
    centre, angle, half = scene.place(0), scene.between(0, np.pi), scene.between(0.05, 0.14)
    along, across = scene.turned(centre, angle)
    wave = scene.between(20, 50) * (across + 0.02 * np.sin(along * scene.between(2, 8) + across * 20))
    grain = 0.5 + 0.25 * np.sin(wave * 6) + 0.12 * scene.noise(10)
    depth = scene.box(centre, (scene.between(0.25, 1.5), half), angle)
    scene.shade *= 1 - 0.5 * scene.edge(depth + 0.02, 0.04)
    light, dark = scene.rusty_colour(), scene.rusty_colour() * np.float32(0.8)
    scene.cover(scene.edge(depth), dark + grain[..., None] * (light - dark))


def _corrode(scene: Scene, depth: np.ndarray, level: int) -> None:
    """Draw rust of one level where `depth` is positive and nothing worse is, and write the level there."""
    depth = np.where(scene.level > level, -1, depth)
    middle, spread, contrast, cells = _LOOK_OF_LEVEL[level]
    grain = scene.noise(cells, octaves=4)
    tone = scene.rust_tone_unlike(depth > 0, middle, spread=spread)
    opacity = scene.inside(depth, 0.012)
    if level == 1:  # the surface shows through
        opacity *= np.clip(scene.between(0.75, 0.95) * (1 + 0.28 * np.clip(grain, -1.5, 0.8)), 0.35, 1)
    scene.paint(opacity, scene.rust_colour(tone + np.float32(contrast) * grain))
    if level == 2:
        flakes = np.round(1.2 * grain + 0.3 * scene.noise(30, octaves=1))
        scene.shade += scene.edge(depth) * scene.relief(flakes, 0.004)
    if level == 3:
        scene.shade += scene.edge(depth + 0.012) * scene.relief(-scene.edge(depth, 0.03), 0.025)
    scene.level[depth > 0] = level


def draw_streaks(scene: Scene, start: tuple[float, float], reach: float) -> None:
    """Draw run-off below `start`, from within `reach` to either side of it."""
    for _ in range(scene.rng.integers(1, 4)):
        x, half = start[1] + scene.between(-0.7, 0.7) * reach, scene.between(0.016, 0.04)
        length = scene.between(0.12, 0.5)
        down = (scene.y - np.float32(start[0])) / np.float32(length)
        sway = 0.01 * scene.noise(2, octaves=1)
        side = half * (1 - 0.6 * np.clip(down, 0, 1)) - np.abs(scene.x + sway - np.float32(x))
        fingers = scene.noise(20, octaves=1, stretch=(0.1, 1))
        depth = np.minimum(side + 0.006 * fingers, 0.1 * np.minimum(down + 0.1, 1 + 0.2 * fingers - down))
        depth = np.where(scene.level > 1, -1, depth)
        tone = scene.rust_tone_unlike(depth > 0, 0.65, spread=0.25)
        colour = scene.rust_colour(tone + np.float32(0.08) * fingers)
        fade = scene.between(0.7, 0.9) - 0.3 * np.clip(down, 0, 1)
        scene.paint(fade * scene.inside(depth, 0.01), colour)
        scene.level[depth > 0] = 1


def draw_stain(scene: Scene) -> None:
    """Draw one spot of corrosion, from a stain to a pitted area, with run-off below many of them."""
    severity = int(scene.rng.choice((1, 2, 3), p=(0.33, 0.2, 0.47)))
    centre, radius = scene.place(), scene.between(0.06, 0.16) * (1 + 0.2 * severity)
    if scene.bolts and scene.chance(0.5):
        y, x, head = scene.bolts[scene.rng.integers(len(scene.bolts))]
        centre, radius = (y, x), head * scene.between(1.3, 3)
    angle, aspect = scene.between(0, np.pi), scene.between(1, 2.2)
    if scene.chance(0.25):  # along an edge or a seam
        angle, aspect, radius = (np.pi / 2 if scene.chance(0.5) else 0.0), scene.between(4, 10), 0.5 * radius
    along, across = scene.turned(centre, angle)
    shape = 1 - np.hypot(along / aspect, across) / np.float32(radius) + 0.28 * scene.noise(0.9 / radius)
    if scene.chance(0.6):
        draw_streaks(scene, centre, radius)
    _corrode(scene, shape * radius, 1)
    if severity > 1:
        _corrode(scene, (shape - scene.between(0.1, 0.35) + 0.15 * scene.noise(8)) * radius, 2)
    if severity > 2:
        draw_pits(scene, shape, centre, radius * aspect**0.5)


def draw_pits(scene: Scene, shape: np.ndarray, centre: tuple[float, float], reach: float) -> None:
    """Draw craters, single and grown together, inside a stain."""
    depth = np.full(scene.size, -1, np.float32)
    for _ in range(scene.rng.integers(6, 18)):
        spread, turn = reach * scene.between(0, 0.75), scene.between(0, 2 * np.pi)
        spot = (centre[0] + spread * np.sin(turn), centre[1] + spread * np.cos(turn))
        depth = np.maximum(depth, scene.between(0.02, 0.065) - scene.distance(spot))
    _corrode(scene, np.minimum(depth + 0.006 * scene.noise(16, octaves=2), 0.2 * shape), 3)


def draw_freckles(scene: Scene) -> None:
    """Draw many small rust spots."""
    envelope = 1 - scene.distance(scene.place()) / np.float32(scene.between(0.2, 0.6))
    spots = scene.noise(scene.between(7, 12), octaves=2) - scene.between(1.0, 1.5)
    _corrode(scene, 0.04 * np.minimum(spots, 3 * envelope), 1)


def draw_rusted_scratch(scene: Scene) -> None:
    """Draw a scratch through the paint that has begun to rust."""
    depth = scene.box(scene.place(), (scene.between(0.1, 0.3), scene.between(0.014, 0.024)), scene.between(0, np.pi))
    _corrode(scene, depth + 0.008 * scene.noise(12), 1)


Layer = Callable[[Scene], None]
BUILT: tuple[Layer, ...] = (draw_tread_plate, draw_seam, draw_bolt_row, draw_bolt_row)
STAINED: tuple[Layer, ...] = (draw_paint_patch, draw_paint_patch, draw_primer, draw_dirt, draw_holes, draw_scratches)
CORRODED: tuple[Layer, ...] = (draw_stain, draw_stain, draw_stain, draw_stain, draw_freckles, draw_rusted_scratch)
LAID_ON: tuple[Layer, ...] = (draw_tape, draw_label, draw_marker, draw_chalk, draw_plank)


def _draw_layers(scene: Scene, layers: tuple[Layer, ...], count: int) -> None:
    for choice in scene.rng.integers(len(layers), size=count):
        layers[choice](scene)


def _light(scene: Scene) -> None:
    """Draw a lighting gradient and shadows into the shade."""
    along, _ = scene.turned((scene.tall / 2, scene.wide / 2), scene.light_angle)
    scene.shade *= 1 + np.float32(scene.between(-0.45, 0.45)) * along / np.float32(scene.area)
    for _ in range(scene.rng.integers(0, 3)):
        half = (3.0, scene.between(0.02, 0.3))
        depth = scene.box(scene.place(), half, scene.between(0, np.pi)) + 0.01 * scene.noise(3, octaves=1)
        scene.shade *= 1 - np.float32(scene.between(0.25, 0.6)) * scene.edge(depth, scene.between(0.005, 0.1))


def _photograph(scene: Scene) -> np.ndarray:
    """Return the picture a camera takes: exposure, colour cast, blur, noise, coarse chroma; uint8 (H, W, 3)."""
    from scipy import ndimage  # not there on a board, where `tfprune.data` only reads

    rng = scene.rng
    gain = scene.between(0.8, 1.2) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    image = np.clip(scene.albedo, 0, 1) * np.clip(scene.shade, 0.05, 1.8)[..., None] * gain
    blur = 0.4 + scene.between(0, 0.006) / scene.pixel
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=3)
    image = image + np.float32(scene.between(0.006, 0.035)) * rng.standard_normal(image.shape, np.float32)
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    chroma = (image - grey[..., None]) * np.float32(scene.between(0.65, 1.25))
    rows, columns = scene.size
    padded = np.pad(chroma, ((0, rows % 2), (0, columns % 2), (0, 0)), "edge")
    coarse = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    step = np.float32(scene.between(0.01, 0.04))
    chroma = (np.round(coarse / step) * step).repeat(2, 0).repeat(2, 1)[:rows, :columns]
    return (np.clip(grey[..., None] + chroma, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) and the condition level of its pixels (H, W), both uint8.

    What is drawn where depends on `rng` and the picture's proportions, not on its number of pixels; the noise does.
    """
    scene = Scene(rng, size)
    (draw_bare_metal if scene.chance(0.35) else draw_paint_coat)(scene)
    _draw_layers(scene, BUILT, scene.rng.integers(0, 3))
    _draw_layers(scene, STAINED, scene.rng.poisson(1.6 * scene.area))
    if scene.chance(0.88):
        _draw_layers(scene, CORRODED, 1 + scene.rng.poisson(0.9 * scene.area))
    _draw_layers(scene, LAID_ON, scene.rng.poisson(0.9 * scene.area))
    _light(scene)
    return _photograph(scene), scene.level
