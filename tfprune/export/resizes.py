"""Resizes as compilers of version 2 know them: without half-pixel centres, which version 3 brought."""

from __future__ import annotations

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_RESIZES = (schema.BuiltinOperator.RESIZE_BILINEAR, schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR)
_VERSION = 2


def without_half_pixels(flatbuffer: bytes) -> bytes:
    """Return a .tflite file whose resizes are of version 2, for compilers that read no newer ones.

    Enlarging by a whole number, a nearest resize gives the same bits with and without half-pixel centres. A bilinear
    one moves the picture by half a pixel of the larger size, less half a pixel of the smaller: values change.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    newer = set()
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) in _RESIZES and code.version > _VERSION:
            code.version = _VERSION
            newer.add(index)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator.opcodeIndex in newer:
                operator.builtinOptions.halfPixelCenters = False
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
