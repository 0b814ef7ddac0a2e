"""Reading one picture or one mask from PNG, JPEG, TIFF, BMP or GIF, 8 or 16 bit, with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfprune.data.faults import FileFault
from tfprune.data.masks import ClassTable, MaskFault, decode_colours, decode_ids
from tfprune.data.run_length import RunLengthMask, decode_mask
from tfprune.records import IGNORE_ID

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
"""File names that are taken for pictures, in lower case."""

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR = ("RGB", "RGBA", "CMYK")
_PALETTE = ("P", "PA")
_EXIF_ORIENTATION = 274


def open_picture(path: str | Path) -> Image.Image:
    """Return the wholly decoded picture in the mode it is stored in.

    Raises:
        FileFault: the file is missing, empty, no picture, cut short, or in a mode such as LAB or 32-bit floats.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise FileFault("empty_file", path, "is empty (0 bytes)")
        with Image.open(path) as picture:
            picture.load()
    except FileFault:
        raise
    except FileNotFoundError:
        raise FileFault("missing_file", path, "does not exist") from None
    except UnidentifiedImageError:
        raise FileFault("not_an_image", path, "is not an image, whatever its name says") from None
    except Exception as error:  # Pillow's readers raise nearly anything on broken files
        raise FileFault("unreadable", path, f"cannot be decoded, it is cut short or damaged ({error})") from error
    if picture.mode not in (*_GREY, *_COLOUR, *_PALETTE):
        raise FileFault(
            "unsupported_mode",
            path,
            f"is stored in colour mode {picture.mode}; accepted are grey, palette, RGB and CMYK, 8 or 16 bit. "
            f"Convert it, for instance with Pillow: Image.open(path).convert('RGB').save(path)",
        )
    return picture


def read_image(path: str | Path, channels: int) -> np.ndarray:
    """Return the picture as uint8 (H, W, channels), with 1 (grey) or 3 (RGB) channels.

    16-bit values keep their high byte, that is, 0..65535 becomes 0..255. Transparency is dropped, and
    CMYK becomes RGB by Pillow's formula, without its colour profile.
    Pixels are taken as stored: an EXIF rotation is not applied, as masks are stored without one.

    Raises:
        FileFault: as `open_picture`, or when a 32-bit picture holds values above 16 bit.
    """
    return picture_pixels(open_picture(path), path, channels)


def picture_pixels(picture: Image.Image, path: str | Path, channels: int) -> np.ndarray:
    """Return an opened picture as uint8 (H, W, channels); `path` is for the message of a fault."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((_integers(picture, path) >> 8).astype(np.uint8))
    if picture.mode in _PALETTE:
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels[..., np.newaxis] if channels == 1 else pixels


def _integers(picture: Image.Image, path: str | Path) -> np.ndarray:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise FileFault(
            "unsupported_mode", path, f"holds values from {values.min()} to {values.max()}; at most 16 bit are read"
        )
    return values.astype(np.uint16)


def stored_channels(path: str | Path) -> int:
    """Return 1 when the file holds a grey picture and 3 otherwise.

    Raises:
        FileFault: as `open_picture`.
    """
    return 1 if open_picture(path).mode in _GREY else 3


def exif_rotation(picture: Image.Image) -> int:
    """Return the EXIF orientation (1 is upright) that viewers apply and `read_image` does not."""
    return int(picture.getexif().get(_EXIF_ORIENTATION, 1))


def is_rotated(path: str | Path) -> bool:
    """Return whether a file carries an EXIF rotation, without reading its pixels; False for what is no picture."""
    try:
        with Image.open(path) as picture:
            return exif_rotation(picture) != 1
    except Exception:  # Pillow's readers raise nearly anything on broken files
        return False


def read_mask(path: str | Path | RunLengthMask, classes: ClassTable, *, judged: str | Path | None = None) -> np.ndarray:
    """Return the mask as class ids uint8 (H, W), with ignored pixels as `records.IGNORE_ID`.

    Read are single-channel ids (8 or 16 bit, palette indices too), 0/255 when there are two classes, RGB or
    palette colours when the class table has colours, and the run lengths of a table. Where the picture `judged`
    is black, pixels are ignored too.

    Raises:
        FileFault: as `open_picture`; an id or colour in no class; an RGB mask and no colour table; `judged` is of
            another size.
    """
    ids = _read_runs(path, classes) if isinstance(path, RunLengthMask) else _read_ids(path, classes)
    if judged is not None:
        inside = _read_inside(judged)
        if inside.shape != ids.shape:
            sizes = [f"{width}x{height}" for height, width in (inside.shape, ids.shape)]
            raise FileFault("judged_size", judged, f"is {sizes[0]} pixels (width x height), its mask is {sizes[1]}")
        ids[~inside] = IGNORE_ID
    return ids


def _read_inside(path: str | Path) -> np.ndarray:
    """Return bool (H, W): where a picture is not black."""
    picture = open_picture(path)
    if picture.mode.startswith("I"):
        return _integers(picture, path) > 0
    return picture_pixels(picture, path, 3).any(axis=-1)


def _read_runs(mask: RunLengthMask, classes: ClassTable) -> np.ndarray:
    width, height = open_picture(mask.image).size
    try:
        return decode_mask(mask, classes, (height, width))
    except MaskFault as fault:
        raise FileFault(fault.kind, mask.table, f"{mask.image.name} {fault.message}") from None


def _read_ids(path: str | Path, classes: ClassTable) -> np.ndarray:
    picture = open_picture(path)
    try:
        if picture.mode in _COLOUR:
            return decode_colours(np.asarray(picture.convert("RGB")), classes)
        if picture.mode in _PALETTE and classes.colours is not None:
            return decode_colours(np.asarray(picture.convert("RGBA"))[..., :3], classes)
        return decode_ids(_mask_values(picture, path), classes)
    except MaskFault as fault:
        lossy = "; JPEG blurs ids, save masks as PNG" if picture.format == "JPEG" else ""
        raise FileFault(fault.kind, path, fault.message + lossy) from None


def _mask_values(picture: Image.Image, path: str | Path) -> np.ndarray:
    if picture.mode.startswith("I"):
        return _integers(picture, path)
    if picture.mode in ("LA", "PA"):
        picture = picture.getchannel(0)
    return np.asarray(picture).astype(np.uint8)
