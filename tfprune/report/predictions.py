"""Masks and overlays of pictures, as files, with numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tfprune.data.faults import FileFault
from tfprune.data.images import SUFFIXES, read_image
from tfprune.errors import InputError
from tfprune.records import atomic_path
from tfprune.report.overlays import class_colours, overlay_classes
from tfprune.report.tiles import classes_in_tiles
from tfprune.verification.answers import AS_IT_IS, PostProcessing, answer
from tfprune.verification.runtimes import TFLiteModel

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """Return the files given, and those in the folders given but for hidden ones, in order.

    Raises:
        InputError: when a place does not exist, a folder holds no picture, or two pictures share a stem.
    """
    found = []
    for place in map(Path, places):
        if place.is_dir():
            taken = (*SUFFIXES, *VIDEO_SUFFIXES)
            seen = [path for path in place.iterdir() if not path.name.startswith(".")]
            inside = sorted(path for path in seen if path.suffix.lower() in taken)
            if not inside:
                raise InputError(f"{place} holds no picture or video ({', '.join(taken)})")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(f"{place} does not exist; give picture files, videos, or folders of them")
    stems = [path.stem for path in found]
    if double := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise InputError(
            f"several pictures are named {double[0]}; their masks would overwrite each other; predict them apart"
        )
    return found


def read_frames(path: Path, channels: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, uint8 (H, W, channels)): a picture under its stem, a video's frames under STEM_000000 and on.

    Raises:
        FileFault: the file cannot be read, or it is a video and OpenCV is not installed.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        yield path.stem, read_image(path, channels)
        return
    try:
        import cv2
    except ImportError:
        raise FileFault("unreadable", path, "videos need OpenCV; pip install opencv-python-headless") from None
    video, count = cv2.VideoCapture(str(path)), 0
    try:
        while (read := video.read())[0]:
            colours = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
            frame = cv2.cvtColor(read[1], colours)
            yield f"{path.stem}_{count:06d}", frame.reshape(*frame.shape[:2], channels)
            count += 1
    finally:
        video.release()
    if not count:
        raise FileFault("unreadable", path, "OpenCV finds no frame in it; convert it, for instance to .avi with MJPG")


def write_predictions(
    models: Sequence[TFLiteModel],
    path: Path,
    out: str | Path,
    *,
    overlap: int | None = None,
    processing: PostProcessing = AS_IT_IS,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Write the mask and the overlay of a picture or of each frame, and yield its name with the share of each class.

    `out/masks/NAME.png` is an index PNG (pixel = class id, with a palette) of the picture's own size,
    `out/overlays/NAME.png` the picture with its classes tinted.

    Args:
        models: what answers; several answer by the mean of their probabilities.
        overlap: pixels by which tiles of the file's size overlap; None scales whole pictures to it.
        processing: what is done to each answer, at the files' size.

    Raises:
        FileFault: the file cannot be read.
        InputError: `overlap` is out of range.
    """
    out, model = Path(out), models[0]
    classify = partial(answer, models, processing=processing)
    names = model.card["classes"] if model.card else [f"class {index}" for index in range(max(model.outputs or 2, 2))]
    colours = class_colours(len(names))
    for name, image in read_frames(path, model.channels):
        if overlap is None:
            classes = _scaled_classes(classify, image, model.input_size)
        else:
            classes = classes_in_tiles(classify, image, size=model.input_size, overlap=overlap)
        _save_mask(out / "masks" / f"{name}.png", classes, colours)
        with atomic_path(out / "overlays" / f"{name}.png") as temporary:
            Image.fromarray(overlay_classes(image, classes, colours)).save(temporary)
        yield name, {label: float(np.mean(classes == index)) for index, label in enumerate(names)}


def _scaled_classes(
    classify: Callable[[np.ndarray], np.ndarray], image: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return class ids uint8 (H, W) of a picture of any size: resized to what is taken, and the ids back, nearest."""
    height, width = size
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
    classes = Image.fromarray(classify(np.ascontiguousarray(resized)))
    return np.asarray(classes.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))


def _save_mask(path: Path, classes: np.ndarray, colours: Sequence[tuple[int, int, int] | None]) -> None:
    picture = Image.fromarray(classes)
    picture.putpalette([value for colour in colours for value in (colour or (0, 0, 0))])
    with atomic_path(path) as temporary:
        picture.save(temporary)
