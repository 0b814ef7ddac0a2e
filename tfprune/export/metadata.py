"""What Android's tools read in a .tflite file: the input's pixels, the output, and where the labels are.

The tables are those of TensorFlow Lite Support's metadata schema (identifier M001). They are written field by
field, as the package tflite-support cannot be installed beside TensorFlow.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune import __version__
from tfprune.export import CLASS_MAPS, HEADS
from tfprune.export.card import LABELS_NAME

_BUFFER_NAME = b"TFLITE_METADATA"
_IDENTIFIER = b"M001"
_ALIGNMENT = 16
_FEATURES, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # AssociatedFileType
_COLOURS = {3: 1, 1: 2}  # ColorSpaceType by channels


class AlignedBuffer:
    """A constant of a flatbuffer at an address that processors without unaligned loads can read.

    The schema asks for 16 bytes, which its generated Python writer does not see to.
    """

    def __init__(self, data: np.ndarray | None) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:
        """Write the buffer; the schema's generated code calls this name."""
        if self.data is not None and len(self.data):
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head = builder.Head() - len(self.data)
            builder.Bytes[builder.Head() : builder.Head() + len(self.data)] = np.asarray(self.data, np.uint8).tobytes()
            data = builder.EndVector()
        schema.BufferStart(builder)
        if self.data is not None and len(self.data):
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def add_metadata(flatbuffer: bytes, card: dict[str, Any]) -> bytes:
    """Return the file with its metadata inside and every constant aligned to 16 bytes.

    Args:
        flatbuffer: a .tflite file without a card.
        card: what `tfprune.export.card` writes; the labels are the file it appends.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _BUFFER_NAME, len(model.buffers)
    model.metadata = [*(model.metadata or []), entry]
    constants = [buffer.data for buffer in model.buffers]
    described = np.frombuffer(describe_model(card), np.uint8)
    model.buffers = [AlignedBuffer(data) for data in (*constants, described)]
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def describe_model(card: dict[str, Any]) -> bytes:
    """Return the metadata flatbuffer of a file with this card."""
    write = _Tables()
    height, width = card["input_size"]
    colour = {1: "grey", 3: "RGB"}[card["channels"]]
    size = write.table(uint32={0: width, 1: height})
    picture = write.table(offsets={1: size}, int8={0: _COLOURS[card["channels"]]})
    neutral = write.table(offsets={0: write.floats([0.0]), 1: write.floats([1.0])})
    taken = write.table(
        offsets={
            0: write.text("image"),
            1: write.text(f"One {colour} picture, {height} x {width}, raw pixels 0..255; nothing to normalize."),
            3: write.table(offsets={1: picture}, uint8={0: _IMAGE}),
            4: write.offsets([write.table(offsets={1: neutral}, uint8={0: _NORMALIZATION})]),
            5: write.table(offsets={0: write.floats([255.0]), 1: write.floats([0.0])}),
        }
    )
    is_map = card["head"] in CLASS_MAPS
    labels = write.table(
        offsets={0: write.text(LABELS_NAME), 1: write.text("Names of the classes, in the order of their ids.")},
        int8={2: _VALUE_LABELS if is_map else _AXIS_LABELS},
    )
    given = write.table(
        offsets={
            0: write.text(card["head"]),
            1: write.text(f"For every pixel: {HEADS[card['head']]}."),
            3: write.table(offsets={1: write.table()}, uint8={0: _FEATURES}),
            6: write.offsets([labels]),
        }
    )
    graph = write.table(offsets={2: write.offsets([taken]), 3: write.offsets([given])})
    root = write.table(
        offsets={
            0: write.text("tfprune segmentation"),
            1: write.text(f"One of these classes for every pixel: {', '.join(card['classes'])}."),
            2: write.text(__version__),
            3: write.offsets([graph]),
            7: write.text("1.0.0"),
        }
    )
    return write.finish(root)


class _Tables:
    """Writes tables by the numbers of their fields; what a table refers to is written before it."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def text(self, text: str) -> int:
        return self._builder.CreateString(text)

    def floats(self, values: list[float]) -> int:
        return self._builder.CreateNumpyVector(np.asarray(values, np.float32))

    def offsets(self, tables: list[int]) -> int:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        return self._builder.EndVector()

    def table(
        self,
        *,
        offsets: dict[int, int] | None = None,
        uint32: dict[int, int] | None = None,
        uint8: dict[int, int] | None = None,
        int8: dict[int, int] | None = None,
    ) -> int:
        builder = self._builder
        kinds = (
            (offsets, builder.PrependUOffsetTRelativeSlot),
            (uint32, builder.PrependUint32Slot),
            (uint8, builder.PrependUint8Slot),
            (int8, builder.PrependInt8Slot),
        )
        builder.StartObject(1 + max((slot for fields, _ in kinds for slot in fields or {}), default=-1))
        for fields, prepend in kinds:
            for slot, value in (fields or {}).items():
                prepend(slot, value, 0)
        return builder.EndObject()

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, _IDENTIFIER)
        return bytes(self._builder.Output())
