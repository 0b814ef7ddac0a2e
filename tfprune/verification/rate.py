"""How fast this machine convolves: what the multiply-accumulates of a file can be held against.

A file with a single 3x3 convolution of 64 channels is made and timed with the same runtime and threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfprune.verification.engines import Engine
from tfprune.verification.footprint import count_macs
from tfprune.verification.graph import load_schema, read_operators
from tfprune.verification.latency import Latency, measure_latency
from tfprune.verification.runtimes import open_engine

SIZE, CHANNELS, KERNEL = 32, 64, 3
MACS = SIZE * SIZE * CHANNELS * CHANNELS * KERNEL * KERNEL
_BIASES = {"float32": "float32", "int8": "int32", "int16": "int64"}


def convolution_shares(
    timed: Mapping[str, tuple[Path, Latency]], *, runs: int, **how: Any
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Return (multiply-accumulates per second of a convolution per number format, share of it per file, 0-1).

    The share is what a file's multiply-accumulates per second are of the convolution's; the rest goes into
    what is no arithmetic. None where the operators of the file cannot be counted.

    Args:
        timed: name -> path of a .tflite file and its latency.
        runs: rounds that the convolution is timed for.
        how: runtime, threads and python of `open_engine`, the same as the files had.
    """
    rates: dict[str, float] = {}
    shares: dict[str, float | None] = dict.fromkeys(timed)
    for name, (path, latency) in timed.items():
        operators = read_operators(path) or ()
        kind = _number_format({tensor.dtype for operator in operators for tensor in operator.outputs})
        content, macs = convolution_file(kind), count_macs(operators)
        if content is None or not macs:
            continue
        if kind not in rates:
            rates[kind] = _measure_convolution(open_engine(content, **how), kind, runs=runs)
        shares[name] = macs / (latency.median_ms / 1e3) / rates[kind]
    return rates, shares


def _number_format(dtypes: set[str]) -> str:
    """Return the format in which a file computes, from the dtypes its operators give."""
    return next((name for name in ("int16", "int8") if name.upper() in dtypes), "float32")


@lru_cache
def convolution_file(activations: str) -> bytes | None:
    """Return a .tflite with one convolution; None where no package has the format's schema.

    Args:
        activations: `float32`, `int8` or `int16`; the weights of the last two are int8.
    """
    schema = load_schema()
    if schema is None:
        return None
    import flatbuffers

    shape = (CHANNELS, KERNEL, KERNEL, CHANNELS)
    weights = np.random.default_rng(0).integers(-99, 99, shape).astype(np.int8)
    kind = "float32" if activations == "float32" else "int8"
    bias = np.zeros(CHANNELS, _BIASES[activations])
    model = schema.ModelT()
    model.version, model.buffers = 3, [_buffer(schema, part) for part in (None, weights.astype(kind), bias)]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 5 if activations == "int16" else 3
    options = schema.Conv2DOptionsT()
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    convolution = schema.OperatorT()
    convolution.inputs, convolution.outputs = [0, 1, 2], [3]
    convolution.builtinOptionsType, convolution.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    picture = [1, SIZE, SIZE, CHANNELS]
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(schema, "taken", picture, activations, scales=[0.1]),
        _tensor(schema, "weights", list(shape), kind, buffer=1, scales=[0.01] * CHANNELS),
        _tensor(schema, "bias", [CHANNELS], _BIASES[activations], buffer=2, scales=[0.001] * CHANNELS),
        _tensor(schema, "given", picture, activations, scales=[0.1]),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [convolution]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(2**18)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _measure_convolution(engine: Engine, activations: str, *, runs: int) -> float:
    picture = np.ones((1, SIZE, SIZE, CHANNELS), activations)

    def time() -> float:
        engine.run(picture)
        return engine.seconds

    return MACS / (measure_latency({"convolution": time}, runs=runs)["convolution"].median_ms / 1e3)


def _buffer(schema: ModuleType, values: np.ndarray | None) -> Any:
    buffer = schema.BufferT()
    if values is not None:
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return buffer


def _tensor(
    schema: ModuleType, name: str, shape: list[int], dtype: str, *, buffer: int = 0, scales: list[float]
) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
    tensor.type = getattr(schema.TensorType, dtype.upper())
    if dtype != "float32":
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = scales, [0] * len(scales)
    return tensor
