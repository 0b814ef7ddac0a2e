"""Masks drawn over the images they belong to, with numpy and Pillow alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tfprune.errors import InputError
from tfprune.records import IGNORE_ID

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (0, 158, 255),
    (255, 176, 0),
    (0, 200, 140),
    (214, 60, 170),
    (240, 228, 66),
    (120, 94, 240),
    (213, 94, 0),
    (150, 220, 255),
)
"""Colours told apart with the common kinds of colour blindness (after Okabe and Ito, brightened for photographs)."""

OUTCOME_COLOURS: dict[str, Colour] = {
    "found": (255, 255, 255),
    "false alarm": (230, 40, 40),
    "missed": (255, 208, 0),
}
"""Colours of true positives, false positives and false negatives, as in the pictures of arXiv 2210.07451."""

IGNORED_COLOUR: Colour = (128, 128, 128)


def class_colours(classes: int) -> tuple[Colour | None, ...]:
    """Return one colour per class; class 0 has none, so that its pixels show the image.

    After the palette is used up it comes again, darker each time.

    >>> class_colours(3)
    (None, (0, 158, 255), (255, 176, 0))
    """
    colours: list[Colour | None] = [None]
    for index in range(classes - 1):
        round_, place = divmod(index, len(PALETTE))
        red, green, blue = (int(value * 0.62**round_) for value in PALETTE[place])
        colours.append((red, green, blue))
    return tuple(colours[:classes])


def overlay_classes(
    image: np.ndarray,
    classes_map: np.ndarray,
    colours: Sequence[Colour | None] | None = None,
    *,
    opacity: float = 0.55,
) -> np.ndarray:
    """Return the image with every class tinted in its colour and outlined, uint8 (H, W, 3).

    `image` is uint8 (H, W, 1 or 3) or (H, W), `classes_map` class ids (H, W). A class whose colour is None,
    by default class 0, stays as it is; pixels with `IGNORE_ID` are striped grey.

    Raises:
        InputError: the two differ in size, or an id has no colour.

    >>> overlay_classes(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), [None, (0, 200, 100)], opacity=1).tolist()
    [[[0, 0, 0], [0, 200, 100]]]
    """
    if image.shape[:2] != classes_map.shape:
        raise InputError(
            f"the image is {image.shape[:2]} and the mask {classes_map.shape} (height, width); they must be equal"
        )
    judged = classes_map != IGNORE_ID
    highest = int(classes_map[judged].max(initial=0))
    if colours is None:
        colours = class_colours(highest + 1)
    if highest >= len(colours):
        raise InputError(
            f"the mask holds class id {highest}, but there are colours for ids 0 to {len(colours) - 1} only"
        )
    drawn = as_rgb(image).astype(np.float32)
    inside = _interior(classes_map)
    for index, colour in enumerate(colours):
        if colour is None:
            continue
        region = classes_map == index
        strength = np.where(inside, opacity, 1.0)[region][:, None]
        drawn[region] = drawn[region] * (1 - strength) + np.float32(colour) * strength
    rows, columns = np.indices(classes_map.shape)
    striped = ~judged & ((rows + columns) // 3 % 2 == 0)
    drawn[striped] = IGNORED_COLOUR
    return np.rint(drawn).astype(np.uint8)


def overlay_outcomes(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the image at half its brightness with class 1 found, false alarm or missed, uint8 (H, W, 3).

    Pixels whose truth is `IGNORE_ID` are not judged and striped grey.
    """
    outcome = np.where(predicted == 1, np.where(truth == 1, 1, 2), np.where(truth == 1, 3, 0)).astype(np.uint8)
    outcome[truth == IGNORE_ID] = IGNORE_ID
    return overlay_classes(image // 2, outcome, [None, *OUTCOME_COLOURS.values()])


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a grey or RGB image as (H, W, 3)."""
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def fit_for_screen(image: np.ndarray, *, shortest: int = 192, longest: int = 320) -> np.ndarray:
    """Return an image or class map at a size that shows well in a page.

    Small ones grow by a whole factor, large ones shrink. Images (uint8, 3 axes) are interpolated, class maps
    (2 axes) never, and both land on the same grid.

    >>> fit_for_screen(np.zeros((96, 64), np.uint8)).shape
    (288, 192)
    """
    height, width = image.shape[:2]
    factor = max(1, -(-shortest // min(height, width)))
    if max(height, width) * factor > longest:
        factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if image.ndim == 2:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST))
    return np.asarray(Image.fromarray(as_rgb(image)).resize(size, Image.Resampling.BICUBIC))


def as_data_uri(image: np.ndarray) -> str:
    """Return an image uint8 (H, W, 3) as a JPEG data URI with full colour resolution."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=86, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _interior(classes_map: np.ndarray) -> np.ndarray:
    """Return where all four neighbours have the pixel's own class; the rest is drawn as outline."""
    inside = np.ones(classes_map.shape, bool)
    for axis in (0, 1):
        same = np.diff(classes_map.astype(np.int16), axis=axis) == 0
        before = [(0, 0), (0, 0)]
        after = [(0, 0), (0, 0)]
        before[axis], after[axis] = (1, 0), (0, 1)
        inside &= np.pad(same, before, constant_values=True) & np.pad(same, after, constant_values=True)
    return inside
