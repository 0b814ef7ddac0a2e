"""Frozen results as JSON on disk, and writes that are whole or absent.

A record is a frozen dataclass of plain values with units in its field names.
Readers of a run folder (report, search, people) get it back as a `dict`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

IGNORE_ID = 255
"""Mask value of a pixel that is neither trained on nor judged, everywhere in memory."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error.

    The temporary file lies in the same folder and keeps the suffix, so that writers which
    choose a format by it (Keras, Pillow) do the right thing. After an error nothing is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically, creating the folder when needed."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` atomically, creating the folder when needed."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types; NaN and infinities become None.

    >>> plain({"iou": np.float32("nan"), "shape": np.zeros((2, 1))})
    {'iou': None, 'shape': [[0.0], [0.0]]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: str | Path, record: Any) -> None:
    """Write a record (dataclass, dict or list) as indented JSON, atomically."""
    write_text(path, json.dumps(plain(record), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Return what `write_json` wrote, in JSON's own types."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
