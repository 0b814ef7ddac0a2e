"""The operators and tensors of a .tflite file, read from its flatbuffer."""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfprune.errors import InputError, located

_IDENTIFIER = b"TFL3"
_SCHEMAS = ("ai_edge_litert.schema_py_generated", "tflite_micro.tensorflow.lite.micro.python.schema_py_generated")
_DAMAGE = (struct.error, ValueError, TypeError, IndexError, AttributeError, OverflowError, MemoryError)
_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor: `shape` holds -1 where it is open; `values` is None unless it is a constant of a plain dtype."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    zero_points: np.ndarray
    channel_axis: int
    quantized: bool
    constant: bool
    values: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator: the schema's name (a custom op's own) and version, its tensors (None where left out), options."""

    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any


def read_operators(path: str | Path) -> tuple[Operator, ...] | None:
    """Return the operators of the main subgraph in order, or None where no package has the format's schema.

    Raises:
        InputError: the file is missing, truncated, or no TensorFlow Lite file.
    """
    data = read_model_bytes(path)
    with located(str(path)):
        return operators_of(data)


def operators_of(data: bytes) -> tuple[Operator, ...] | None:
    """Return the operators of a flatbuffer; see `read_operators`."""
    unpacked = unpack_model(data)
    if unpacked is None:
        return None
    try:
        return _operators(*unpacked)
    except _DAMAGE as error:
        raise _damaged(error) from error


def unpack_model(data: bytes) -> tuple[Any, ModuleType] | None:
    """Return a flatbuffer as objects, with the schema; None where no package has the schema.

    Raises:
        InputError: it is damaged.
    """
    schema = load_schema()
    if schema is None:
        return None
    try:
        return schema.ModelT.InitFromPackedBuf(data), schema
    except _DAMAGE as error:
        raise _damaged(error) from error


def custom_operators(data: bytes) -> list[str]:
    """Return the names of a flatbuffer's custom operators, as far as it can be read."""
    try:
        unpacked = unpack_model(data)
        codes = unpacked[0].operatorCodes if unpacked else []
        return sorted({code.customCode.decode(errors="replace") for code in codes if code.customCode})
    except (InputError, TypeError):
        return []


def _damaged(error: Exception) -> InputError:
    return InputError(f"this .tflite file is damaged ({error}); convert or copy it again")


def read_model_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file that has at least the mark of a TensorFlow Lite flatbuffer.

    Raises:
        InputError: the file is missing, empty or of another kind.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a .tflite file") from error
    if data[4:8] != _IDENTIFIER:
        kind = "is empty" if not data else "is not a TensorFlow Lite model (the identifier TFL3 is missing)"
        raise InputError(f"{path}: the file {kind}; give a .tflite file")
    return data


def load_schema() -> ModuleType | None:
    """Return the generated module of the format's schema, or None where no package has it."""
    for name in _SCHEMAS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _operators(model: Any, schema: ModuleType) -> tuple[Operator, ...]:
    operator_names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name.isupper()}
    type_names = {number: name for name, number in vars(schema.TensorType).items() if name.isupper()}
    graph = model.subgraphs[0]
    tensors = [_tensor(index, given, model.buffers, type_names) for index, given in enumerate(graph.tensors)]
    operators = []
    for given in graph.operators:
        code = model.operatorCodes[given.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = code.customCode.decode() if code.customCode else operator_names.get(number, f"OPERATOR_{number}")
        operators.append(
            Operator(
                name=name,
                version=code.version,
                inputs=tuple(tensors[index] if index >= 0 else None for index in _list(given.inputs)),
                outputs=tuple(tensors[index] for index in _list(given.outputs)),
                options=given.builtinOptions,
            )
        )
    return tuple(operators)


def _tensor(index: int, given: Any, buffers: list[Any], type_names: dict[int, str]) -> Tensor:
    dtype = type_names.get(given.type, f"TYPE_{given.type}")
    shape = tuple(int(size) for size in _list(given.shape))
    signature = tuple(int(size) for size in _list(given.shapeSignature)) or shape
    data = buffers[given.buffer].data if given.buffer else None
    constant = data is not None and len(data) > 0
    values = None
    if constant and dtype in _NUMPY_TYPES and given.sparsity is None:
        values = np.frombuffer(bytes(data), _NUMPY_TYPES[dtype]).reshape(shape)
    quantization = given.quantization
    scales = _list(quantization.scale) if quantization else []
    return Tensor(
        index=index,
        name=(given.name or b"").decode(errors="replace"),
        dtype=dtype,
        shape=signature,
        zero_points=np.asarray(_list(quantization.zeroPoint) if quantization else [], np.int64),
        channel_axis=int(quantization.quantizedDimension) if quantization else 0,
        quantized=len(scales) > 0,
        constant=constant,
        values=values,
    )


def _list(vector: Any) -> Any:
    """Return a flatbuffer vector, which is None when it is empty."""
    return [] if vector is None else vector
