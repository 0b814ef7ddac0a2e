"""The working memory that TFLite Micro needs for a file: found by trying, as its Python package does not tell."""

from __future__ import annotations

from pathlib import Path

from tfprune.errors import InputError
from tfprune.silence import quiet_stderr
from tfprune.verification.engines import ARENAS_BYTES, load_runtime, start_in_arena
from tfprune.verification.graph import read_model_bytes, unpack_model

_STEP_BYTES = 16
_LARGEST_BYTES = ARENAS_BYTES[-1]


def measure_arena(path: str | Path) -> int:
    """Return the smallest arena, in bytes, in which TFLite Micro opens a file, to 16 bytes.

    It is that of this machine: a microcontroller's pointers have 4 bytes instead of 8, so that the share that is
    not activations (a few per cent) is smaller there; kernels with buffers of their own (CMSIS-NN) need more.

    Raises:
        InputError: tflite-micro is not installed, or cannot open the file, say for an operator it lacks.
    """
    content = read_model_bytes(path)
    _, module = load_runtime("micro")
    unpack_model(content)
    try:
        start_in_arena(module, content)
    except RuntimeError as error:
        raise InputError(f"{path}: TFLite Micro cannot open this file ({error})") from None
    high = _LARGEST_BYTES
    while _fits(module, content, high // 2):  # from above: Micro dies in an arena that is far too small
        high //= 2
    low = high // 2
    while high - low > _STEP_BYTES:
        middle = (low + high) // 2 // _STEP_BYTES * _STEP_BYTES
        low, high = (low, middle) if _fits(module, content, middle) else (middle, high)
    return high


def _fits(module: object, content: bytes, size_bytes: int) -> bool:
    with quiet_stderr():
        try:
            module.Interpreter.from_bytes(content, arena_size=size_bytes)
        except RuntimeError:
            return False
    return True
