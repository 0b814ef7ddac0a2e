"""Operators that integer files compute wrongly or not at all, made of others that they do compute.

SQUARE has float kernels only. The converter gives a sum in int16 the scale of its terms, and kernels add what is
stored: whatever exceeds the largest term is cut off. No int16 kernel takes SQUARED_DIFFERENCE. Group and unit norms
sum, layer norms square differences. All are replaced in the float flatbuffer, where ranges are known and scales are
not chosen yet.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OPERATORS = schema.BuiltinOperator
_NAMES = {code: name for name, code in vars(_OPERATORS).items() if isinstance(code, int)}
_OPTIONS = {
    _OPERATORS.MUL: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
    _OPERATORS.SUB: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
}


def replace_wrong_operators(calibrated: bytes, activations: str) -> bytes:
    """Return a float .tflite with calibrated ranges without what its integers compute wrongly.

    Squares become products. In int16, sums become means times a count, squared differences squares of differences: the
    range of a mean is that of the sum by the count, and that of a difference follows from its largest square.

    Args:
        activations: `int8` or `int16`.
    """
    wrong = {_OPERATORS.SQUARE}
    if activations == "int16":
        wrong |= {_OPERATORS.SUM, _OPERATORS.SQUARED_DIFFERENCE}
    model = schema.ModelT.InitFromPackedBuf(bytearray(calibrated), 0)
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            operators.append(operator)
            is_float = graph.tensors[operator.outputs[0]].type == schema.TensorType.FLOAT32
            if not is_float or (kind := _kind(model, operator)) not in wrong:
                continue
            if kind == _OPERATORS.SQUARE:
                operator.inputs = [operator.inputs[0], operator.inputs[0]]
                _become(model, operator, _OPERATORS.MUL)
            else:
                operators.append(_split(model, graph, operator))
        graph.operators = operators
    _drop_unused_codes(model)  # the quantizer refuses codes that no operator has
    builder = flatbuffers.Builder(len(calibrated))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators_on_mixed_numbers(flatbuffer: bytes) -> list[str]:
    """Return the operators of an int16 .tflite that read int16 and float32 at once, as `KIND (tensor)`."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(flatbuffer), 0)
    mixture = {schema.TensorType.FLOAT32, schema.TensorType.INT16}
    return [
        f"{_NAMES[_kind(model, operator)]} ({graph.tensors[operator.outputs[0]].name.decode(errors='replace')})"
        for graph in model.subgraphs
        for operator in graph.operators
        if mixture <= {graph.tensors[index].type for index in operator.inputs if index >= 0}
    ]


def _split(model: Any, graph: Any, operator: Any) -> Any:
    """Make a sum a mean, or a squared difference a difference, and return the product that gives the old result."""
    result = operator.outputs[0]
    ranges = graph.tensors[result].quantization
    if _kind(model, operator) == _OPERATORS.SUM:
        terms = count_values(graph.tensors[operator.inputs[0]]) / count_values(graph.tensors[result])
        between = _add_tensor(graph, result, ranges.min[0] / terms, ranges.max[0] / terms)
        other = _add_number(model, graph, terms)
        _become(model, operator, _OPERATORS.MEAN)
    else:
        largest = np.sqrt(max(ranges.max[0], 0))
        between = other = _add_tensor(graph, result, -largest, largest)
        _become(model, operator, _OPERATORS.SUB)
    operator.outputs = [between]
    product = schema.OperatorT()
    product.inputs, product.outputs = [between, other], [result]
    _become(model, product, _OPERATORS.MUL)
    return product


def count_values(tensor: Any) -> int:
    """Return how many values a tensor of the schema holds; the shape of a single one is None."""
    return int(np.prod([] if tensor.shape is None else tensor.shape))


def _kind(model: Any, operator: Any) -> int:
    return model.operatorCodes[operator.opcodeIndex].builtinCode


def _become(model: Any, operator: Any, kind: int) -> None:
    """Make an operator one of another kind; a mean keeps the options of a sum."""
    kinds = [code.builtinCode for code in model.operatorCodes]
    if kind not in kinds:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        model.operatorCodes.append(code)
        kinds.append(kind)
    operator.opcodeIndex = kinds.index(kind)
    if kind in _OPTIONS:
        operator.builtinOptionsType, options = _OPTIONS[kind]
        operator.builtinOptions = options()


def _add_tensor(graph: Any, like: int, low: float, high: float) -> int:
    """Add a tensor of another one's shape with a range of its own, and return its number."""
    given, tensor = graph.tensors[like], schema.TensorT()
    tensor.name, tensor.type, tensor.shape = given.name + b"_of", given.type, given.shape
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [float(low)], [float(high)]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _add_number(model: Any, graph: Any, value: float) -> int:
    """Add a constant and return the number of its tensor."""
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.type, tensor.shape = b"terms", schema.TensorType.FLOAT32, []
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _drop_unused_codes(model: Any) -> None:
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
