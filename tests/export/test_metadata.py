"""Android's metadata: read back field by field, and by Google's own displayer where it can be installed."""

from __future__ import annotations

import json
import subprocess
import sys

import flatbuffers
import numpy as np
import pytest
from flatbuffers.number_types import Float32Flags, Uint8Flags, Uint32Flags

from tests.export.nets import exported, pictures
from tfprune.export import HEADS
from tfprune.verification.graph import load_schema
from tfprune.verification.runtimes import open_runtime


class Table:
    """A flatbuffer table, read by the numbers that its fields have in the schema."""

    def __init__(self, data, position):
        self.table = flatbuffers.table.Table(data, position)

    def at(self, field):
        offset = self.table.Offset(4 + 2 * field)
        return offset and offset + self.table.Pos

    def text(self, field):
        return self.table.String(self.at(field)).decode()

    def number(self, field, flags):
        return self.table.Get(flags, self.at(field))

    def child(self, field):
        return Table(self.table.Bytes, self.table.Indirect(self.at(field)))

    def children(self, field):
        offset = self.at(field) - self.table.Pos
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return [Table(self.table.Bytes, self.table.Indirect(start + 4 * index)) for index in range(count)]

    def floats(self, field):
        return self.table.GetVectorAsNumpy(Float32Flags, self.at(field) - self.table.Pos).tolist()


def metadata_of(path):
    schema = load_schema()
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (entry,) = [item for item in model.metadata if item.name == b"TFLITE_METADATA"]
    data = bytes(bytearray(model.buffers[entry.buffer].data))
    assert data[4:8] == b"M001"
    return Table(data, int.from_bytes(data[:4], "little"))


@pytest.mark.parametrize("head", HEADS)
def test_the_metadata_says_what_goes_in_and_comes_out(head):
    root = metadata_of(exported("plain", 3, "int8", head))
    assert "steel, rust, scratch" in root.text(1) and root.text(7) == "1.0.0"
    (graph,) = root.children(3)
    (taken,), (given,) = graph.children(2), graph.children(3)
    assert taken.text(0) == "image"
    content = taken.child(3)
    assert content.number(0, Uint8Flags) == 2  # ImageProperties
    image = content.child(1)
    assert image.number(0, Uint8Flags) == 1  # RGB
    assert [image.child(1).number(field, Uint32Flags) for field in (0, 1)] == [32, 32]
    (unit,) = taken.children(4)
    assert unit.number(0, Uint8Flags) == 1 and unit.child(1).floats(0) == [0] and unit.child(1).floats(1) == [1]
    assert taken.child(5).floats(0) == [255]
    (labels,) = given.children(6)
    assert labels.text(0) == "labels.txt"
    assert labels.number(2, Uint8Flags) == (3 if "class_map" in head else 2)  # of values, or along an axis


def test_every_constant_is_aligned():
    schema, data = load_schema(), exported("plain", 3, "int8", "probabilities").read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    places = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            places.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(places) > 8 and all(place % 16 == 0 for place in places)


DISPLAY = """
import json, sys
from tflite_support import metadata
shown = metadata.MetadataDisplayer.with_model_file(sys.argv[1])
print(json.dumps({"json": json.loads(shown.get_metadata_json()), "files": shown.get_packed_associated_file_list(),
                  "labels": shown.get_associated_file_buffer("labels.txt").decode()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-support has wheels up to Python 3.11")
def test_googles_displayer_reads_it(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "numpy<2", "tflite-support"]
    subprocess.run(pip, check=True, capture_output=True)
    path = exported("plain", 3, "int8", "probabilities")
    done = subprocess.run([python, "-c", DISPLAY, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "labels.txt" in found["files"] and found["labels"].split() == ["steel", "rust", "scratch"]
    (graph,) = found["json"]["subgraph_metadata"]
    assert graph["input_tensor_metadata"][0]["content"]["content_properties"]["color_space"] == "RGB"
    (labels,) = graph["output_tensor_metadata"][0]["associated_files"]
    assert labels["type"] == "TENSOR_AXIS_LABELS"


def test_the_file_still_runs():
    model = open_runtime(exported("plain", 3, "int8", "probabilities"))
    answers = np.stack([model.predict(image) for image in pictures(2)])
    assert answers.shape == (2, 32, 32, 3) and answers.std() > 0
