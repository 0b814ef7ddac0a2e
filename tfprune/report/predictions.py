"""Masks and overlays of pictures, as files, with numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tfprune.data.images import read_image
from tfprune.errors import InputError
from tfprune.records import atomic_path
from tfprune.report.overlays import class_colours, overlay_classes
from tfprune.verification.runtimes import TFLiteModel

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """Return the files given, and those in the folders given, in order.

    Raises:
        InputError: when a place does not exist, or a folder holds no picture.
    """
    found = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise InputError(f"{place} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(f"{place} does not exist; give picture files or folders of them")
    return found


def write_predictions(
    model: TFLiteModel, images: Sequence[Path], out: str | Path
) -> Iterator[tuple[Path, dict[str, float]]]:
    """Write the mask and the overlay of each picture, and yield its path with the share of each class, 0-1.

    `out/masks/STEM.png` is an index PNG (pixel = class id, with a palette) of the picture's own size,
    `out/overlays/STEM.png` the picture with its classes tinted.

    Raises:
        InputError: when two pictures share a stem, or one cannot be read.
    """
    stems = [path.stem for path in images]
    if double := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise InputError(f"several pictures are named {double[0]}; their masks would overwrite each other")
    out = Path(out)
    names = model.card["classes"] if model.card else [f"class {index}" for index in range(max(model.outputs or 2, 2))]
    colours = class_colours(len(names))
    for path in images:
        image = read_image(path, model.channels)
        classes = predict_classes(model, image)
        _save_mask(out / "masks" / f"{path.stem}.png", classes, colours)
        with atomic_path(out / "overlays" / f"{path.stem}.png") as temporary:
            Image.fromarray(overlay_classes(image, classes, colours)).save(temporary)
        yield path, {name: float(np.mean(classes == index)) for index, name in enumerate(names)}


def predict_classes(model: TFLiteModel, image: np.ndarray) -> np.ndarray:
    """Return the class map uint8 (H, W) of a picture uint8 (H, W, C) of any size.

    The picture is resized to what the file takes, and the class map back, each pixel the nearest one.
    """
    height, width = model.input_size
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
    classes = Image.fromarray(model.classes_of(np.ascontiguousarray(resized)))
    return np.asarray(classes.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))


def _save_mask(path: Path, classes: np.ndarray, colours: Sequence[tuple[int, int, int] | None]) -> None:
    picture = Image.fromarray(classes)
    picture.putpalette([value for colour in colours for value in (colour or (0, 0, 0))])
    with atomic_path(path) as temporary:
        picture.save(temporary)
