"""The description a .tflite file carries behind its flatbuffer: a zip with `tfprune.json` and `labels.txt`.

Flatbuffer readers ignore bytes behind the root table, zip readers look at the end of a file, so that one
file is both. The standard library reads it on a board that has nothing else.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from tfprune.errors import InputError
from tfprune.records import atomic_path, plain

CARD_NAME = "tfprune.json"
LABELS_NAME = "labels.txt"
CARD_FORMAT = 1
CARD_FIELDS = ("format", "classes", "head", "scheme", "outputs", "input_size", "channels")


def write_card(path: str | Path, card: dict[str, Any]) -> None:
    """Append `card` to the .tflite file at `path`, with its class names as labels.txt, one a line.

    Timestamps, permissions and compression (none) are fixed: equal files stay equal byte for byte.

    Raises:
        InputError: the card lacks a field, or the file carries a zip already.
    """
    path = Path(path)
    _require_fields(card, path)
    if zipfile.is_zipfile(path):
        raise InputError(f"{path}: there is a card or another zip at the end of this file already; convert anew")
    labels = "".join(f"{name}\n" for name in card["classes"])
    text = json.dumps(plain(card), indent=1, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_bytes(path.read_bytes())
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_fixed_entry(CARD_NAME), text)
            archive.writestr(_fixed_entry(LABELS_NAME), labels)


def read_card(path: str | Path) -> dict[str, Any] | None:
    """Return the card of a .tflite file, or None when it carries none.

    Raises:
        InputError: the file is missing, or its card is damaged or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a .tflite file")
    if not zipfile.is_zipfile(path):
        if CARD_NAME.encode() in path.read_bytes():
            raise InputError(f"{path}: the end of this file is missing; copy it or convert the model again")
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if CARD_NAME not in archive.namelist():
                return None
            card = json.loads(archive.read(CARD_NAME))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: {CARD_NAME} at its end cannot be read ({error}); convert the model again") from error
    _require_fields(card, path)
    return card


def _require_fields(card: Any, path: Path) -> None:
    missing = [name for name in CARD_FIELDS if not isinstance(card, dict) or name not in card]
    if missing:
        raise InputError(f"{path}: {CARD_NAME} lacks {', '.join(missing)}")
    if card["format"] != CARD_FORMAT:
        raise InputError(
            f"{path}: {CARD_NAME} has format {card['format']!r} and this tfprune reads format {CARD_FORMAT}; "
            "use the version that wrote it, or convert the model again"
        )


def _fixed_entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
