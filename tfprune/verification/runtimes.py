"""One way to ask any .tflite file for the classes of a picture, whatever executes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import InputError, located, look_up
from tfprune.export import CLASS_MAPS, HEADS
from tfprune.export.card import read_card
from tfprune.verification.classes import classes_from_output
from tfprune.verification.engines import Engine, MissingRuntimeError, TensorInfo, start_engine
from tfprune.verification.graph import read_model_bytes
from tfprune.verification.remote import RemoteEngine


class TFLiteModel:
    """An opened .tflite file that takes uint8 pictures. Made by `open_runtime`; not for several threads at once.

    Attributes:
        path: the file.
        card: what the file says about itself, or None.
        head: a key of `tfprune.export.HEADS`.
        input_size: (H, W).
        channels: 1 or 3.
        outputs: K as the model was built, None for a class map without a card.
        quantization: (scale, zero point) of an integer output, (0.0, 0) otherwise.
        description: runtime, version, delegate, threads.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        *,
        card: dict[str, Any] | None,
        preprocessing: tuple[Any, Any] | None,
        head: str | None,
    ) -> None:
        self.path = path
        self.card = card
        self._engine = engine
        self._input, self._output = _single_tensors(engine, path)
        _, height, width, self.channels = self._input.shape
        self.input_size = (height, width)
        integer = not self._output.dtype.startswith("float")
        self.quantization = (self._output.scale, self._output.zero_point) if integer else (0.0, 0)
        self.head = card["head"] if card else _guess_head(self._output, head, path)
        channels = None if self.head in CLASS_MAPS else self._output.shape[-1]
        self.outputs = card["outputs"] if card else channels
        self._preprocessing = (1.0, 0.0) if card else _guess_preprocessing(self._input, preprocessing, path)
        self.description = engine.description

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Run one picture, uint8 (H, W, C), and return the file's answer as it is: (H, W, K), or (H, W) ids.

        Raises:
            InputError: the picture has another dtype or shape, or the runtime refuses an operator when it runs it.
        """
        wanted = (*self.input_size, self.channels)
        if image.dtype != np.uint8 or image.shape != wanted:
            raise InputError(f"{self.path} takes uint8 pictures of {wanted}, not {image.dtype} of {image.shape}")
        with located(str(self.path)):
            return self._engine.run(self._input_values(image)[None])[0]

    def time(self, image: np.ndarray) -> float:
        """Run one picture, uint8 (H, W, C), and return the seconds that the runtime took."""
        self.predict(image)
        return self._engine.seconds

    def classes_of(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids, uint8 (H, W), of one picture, uint8 (H, W, C); see `classes_from_output`."""
        return classes_from_output(self.predict(image), head=self.head, quantization=self.quantization)

    def _input_values(self, image: np.ndarray) -> np.ndarray:
        dtype, scale, zero_point = np.dtype(self._input.dtype), self._input.scale, self._input.zero_point
        if self._preprocessing is None:  # bytes are the quantized values
            return image if dtype == np.uint8 else (image.astype(np.int16) - 128).astype(np.int8)
        if dtype == np.uint8 and (scale, zero_point) == (1.0, 0) and self._preprocessing == (1.0, 0.0):
            return image
        factor, offset = (np.asarray(part, np.float32) for part in self._preprocessing)
        values = image.astype(np.float32) * factor + offset
        if dtype == np.float32:
            return values
        limits = np.iinfo(dtype)
        return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


@dataclass(frozen=True)
class Foreign:
    """What files of other tools among several take and give; see `open_runtime`. Those of tfprune say it themselves.

    Attributes:
        preprocessing: (scale, offset), numbers or one per channel.
        head: a key of `tfprune.export.HEADS`.
    """

    preprocessing: tuple[Any, Any] | None = None
    head: str | None = None

    def options_for(self, path: str | Path) -> dict[str, Any]:
        """Return the arguments of `open_runtime` for a file: none for one that says it itself."""
        return {} if read_card(Path(path)) else {"preprocessing": self.preprocessing, "head": self.head}


UNSAID = Foreign()
"""Nothing is said of files of other tools."""


def open_runtime(
    path: str | Path,
    *,
    runtime: str = "auto",
    threads: int = 1,
    python: str | Path | None = None,
    preprocessing: tuple[Any, Any] | None = None,
    head: str | None = None,
) -> TFLiteModel:
    """Open a .tflite file for uint8 pictures.

    A file written by tfprune says itself what it takes and gives. Of any other file with one input
    (1, H, W, 1 or 3) and one output at (1, H, W, K) or (1, H, W):

    - float input: `preprocessing` = (scale, offset) is required, pixels * scale + offset is what it gets;
    - integer input: without `preprocessing` the pixel bytes are taken for its quantized values (for int8
      less 128), which is how such files are made; with it, the same formula, then its quantization;
    - output of plain integers without scale: ids of a class map;
    - several channels: the largest wins, logits or probabilities alike;
    - one channel: probabilities when the scale is 1/256 (how TensorFlow Lite stores a sigmoid), else `head`
      must say "probabilities" or "logits".

    Args:
        path: the file.
        runtime: a key of `tfprune.verification.engines.RUNTIMES`, or "auto" for the first that is installed.
        threads: number of threads it may use.
        python: another Python whose runtime is to run the file, in a process of its own; a runtime that is named
            and that it lacks runs here.
        preprocessing: (scale, offset), numbers or one per channel; only for a file without a card.
        head: what a file without a card gives, a key of `tfprune.export.HEADS`.

    Raises:
        InputError: no such runtime or file, a damaged or foreign file, or one of the rules above is not met.
    """
    path = Path(path)
    content = read_model_bytes(path)
    card = read_card(path)
    if card and (preprocessing is not None or head is not None):
        raise InputError(f"{path} says itself what it takes and gives; leave out preprocessing and head")
    if head is not None:
        look_up("head", head, HEADS)
    with located(str(path)):
        engine = open_engine(content, runtime=runtime, threads=threads, python=python)
    return TFLiteModel(engine, path, card=card, preprocessing=preprocessing, head=head)


def open_engine(content: bytes, *, runtime: str, threads: int, python: str | Path | None = None) -> Engine:
    """Open a flatbuffer with a runtime of this Python or another; see `open_runtime`."""
    if python is not None:
        try:
            return RemoteEngine(content, python=python, runtime=runtime, threads=threads)
        except MissingRuntimeError:
            if runtime == "auto":
                raise
    return start_engine(content, runtime=runtime, threads=threads)


def _single_tensors(engine: Engine, path: Path) -> tuple[TensorInfo, TensorInfo]:
    """Return the one input and the one output, both known to be pictures."""
    inputs, outputs = engine.inputs, engine.outputs
    found = ", ".join(f"{item.dtype} {list(item.shape)}" for item in (*inputs, *outputs))
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs ({found}); one of each is needed")
    taken, given = inputs[0].shape, outputs[0].shape
    picture = len(taken) == 4 and taken[0] in (1, -1) and min(taken[1:]) > 0 and taken[3] in (1, 3)
    if not picture or len(given) not in (3, 4) or tuple(given[1:3]) != tuple(taken[1:3]):
        raise InputError(
            f"{path}: input and output are {found}; a segmentation file takes (1, H, W, 1 or 3) of a fixed size "
            "and gives (1, H, W, K) or (1, H, W) of the same size"
        )
    return inputs[0], outputs[0]


def _guess_head(output: TensorInfo, head: str | None, path: Path) -> str:
    if head is not None:
        return head
    channels = output.shape[-1] if len(output.shape) == 4 else None
    if channels is None or (not output.dtype.startswith("float") and not output.scale):
        return "class_map"
    if channels > 1:
        return "logits"
    if output.scale == 1 / 256:
        return "probabilities"
    raise InputError(
        f"{path} has no card and one output channel: say head 'probabilities' (class 1 above .5) or 'logits' (class 1 "
        "above 0), on the command line with --head"
    )


def _guess_preprocessing(
    taken: TensorInfo, preprocessing: tuple[Any, Any] | None, path: Path
) -> tuple[Any, Any] | None:
    """Return (scale, offset), or None when pixel bytes are the quantized values."""
    if preprocessing is not None:
        return preprocessing
    if taken.dtype in ("uint8", "int8"):
        return None
    raise InputError(
        f"{path} has no card and takes {taken.dtype}: give open_runtime preprocessing=(scale, offset), for example "
        "(1, 0) for raw pixels, (1 / 255, 0), or (1 / 127.5, -1); on the command line --scale 1/127.5 --offset -1"
    )
