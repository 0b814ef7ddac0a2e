"""What executes a flatbuffer: one interface over the interpreters of LiteRT, tflite-runtime, TensorFlow and Micro."""

from __future__ import annotations

import functools
import importlib
import operator
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from tfprune.errors import InputError, unknown_name
from tfprune.silence import quiet_stderr
from tfprune.verification.graph import custom_operators, operators_of, unpack_model

ARENAS_BYTES = (2**24, 2**27, 2**30)
"""Working memory that is tried for TFLite Micro, in this order."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output: numpy's name of its dtype, its shape with -1 where it is open; scale 0 without numbers."""

    dtype: str
    shape: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


class Engine(Protocol):
    """An interpreter that holds one file.

    `run` takes the values of the only input, in its dtype and shape, and returns those of the only output.
    `seconds` is what the last run took: input set, all operators, output fetched.
    """

    description: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    seconds: float

    def run(self, values: np.ndarray) -> np.ndarray: ...


class LiteEngine:
    """LiteRT, tflite-runtime or TensorFlow; their interpreters have the same methods."""

    def __init__(self, interpreter: Any, package: str, threads: int) -> None:
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        given, made = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = [_lite_info(item) for item in given]
        self.outputs = [_lite_info(item) for item in made]
        self._places = [item[0]["index"] if item else None for item in (given, made)]
        self.seconds = 0.0
        # a private method, and the only word on whether the delegate took anything
        details = getattr(interpreter, "_get_ops_details", list)()
        delegate = ["XNNPACK"] if any(item["op_name"] == "DELEGATE" for item in details) else []
        self.description = ", ".join([package, *delegate, f"{threads} thread{'s' * (threads > 1)}"])

    def run(self, values: np.ndarray) -> np.ndarray:
        """Run one picture; see `Engine`."""
        start = time.perf_counter()
        self._interpreter.set_tensor(self._places[0], values)
        self._interpreter.invoke()
        answer = self._interpreter.get_tensor(self._places[1])
        self.seconds = time.perf_counter() - start
        return answer


class MicroEngine:
    """TFLite Micro on this machine: the reference kernels that a microcontroller without faster ones runs."""

    def __init__(self, interpreter: Any, package: str) -> None:
        self._interpreter = interpreter
        self.inputs = _micro_infos(interpreter.get_input_details)
        self.outputs = _micro_infos(interpreter.get_output_details)
        self.seconds = 0.0
        self.description = f"{package}, reference kernels, 1 thread"

    def run(self, values: np.ndarray) -> np.ndarray:
        """Run one picture; see `Engine`.

        Raises:
            InputError: an operator refuses at this point, such as a cast to uint8.
        """
        reason = ""
        with quiet_stderr() as said:
            start = time.perf_counter()
            try:
                self._interpreter.set_input(values, 0)  # the arena has overwritten the one before
                self._interpreter.invoke()
                answer = self._interpreter.get_output(0)
            except RuntimeError as error:
                reason = _first_line(said, error)
            self.seconds = time.perf_counter() - start
        if reason:
            raise InputError(f"TFLite Micro cannot run this file ({reason})")
        return answer


@dataclass(frozen=True)
class Runtime:
    """A runtime: the module to import, the package with its version, and how a file is opened with it."""

    module: str
    package: str
    start: Callable[[ModuleType, bytes, int, str], Engine]
    pip: str = ""


def _start_lite(module: ModuleType, content: bytes, threads: int, package: str, *, reference: bool = False) -> Engine:
    options = {}
    if reference:
        _refuse_wrong_sums(content)
        options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_REF
    build = operator.attrgetter("tf.lite.Interpreter" if package == "tensorflow" else "Interpreter")(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow announces that its interpreter has moved to LiteRT
        return LiteEngine(build(model_content=content, num_threads=threads, **options), _versioned(package), threads)


def _refuse_wrong_sums(content: bytes) -> None:
    """Refuse int8 sums: LiteRT's reference kernel adds what is stored as if terms and sum had one scale."""
    for found in operators_of(content) or ():
        if found.name == "SUM" and found.outputs[0].dtype in ("INT8", "UINT8"):
            raise InputError(
                f"LiteRT's reference kernels compute sums of int8 wrongly ({found.outputs[0].name}; group and unit "
                "norms make them), the other runtimes do not; run this file with litert or micro"
            )


def _start_micro(module: ModuleType, content: bytes, threads: int, package: str) -> Engine:
    if threads > 1:
        raise InputError(f"threads is {threads}, and TFLite Micro has one; leave threads out")
    unpack_model(content)  # Micro trusts the file's offsets, and dies of wrong ones
    return MicroEngine(start_in_arena(module, content), _versioned(package))


def start_in_arena(module: ModuleType, content: bytes, sizes_bytes: tuple[int, ...] = ARENAS_BYTES) -> Any:
    """Return TFLite Micro's interpreter in the first arena that is large enough.

    Raises:
        RuntimeError: with Micro's reason, when none is or an operator is missing.
    """
    reason = ""
    for size in sizes_bytes:
        with quiet_stderr() as said:
            try:
                return module.Interpreter.from_bytes(content, arena_size=size)
            except RuntimeError as error:
                reason = _first_line(said, error)
    raise RuntimeError(reason)


RUNTIMES = {
    "litert": Runtime("ai_edge_litert.interpreter", "ai-edge-litert", _start_lite),
    "tflite-runtime": Runtime("tflite_runtime.interpreter", "tflite-runtime", _start_lite),
    "tensorflow": Runtime("tfprune.keras", "tensorflow", _start_lite),
    "litert-reference": Runtime(
        "ai_edge_litert.interpreter", "ai-edge-litert", functools.partial(_start_lite, reference=True)
    ),
    "micro": Runtime("tflite_micro.python.tflite_micro.runtime", "tflite-micro", _start_micro, "--pre tflite-micro"),
}
AUTOMATIC = ("litert", "tflite-runtime", "tensorflow")
"""What `auto` tries, in this order."""


class MissingRuntimeError(InputError):
    """The runtime asked for is not installed in this Python."""


def start_engine(content: bytes, *, runtime: str, threads: int) -> Engine:
    """Open a flatbuffer with a runtime of this Python.

    Raises:
        MissingRuntimeError: it is not installed here.
        InputError: no such runtime, or it cannot open the file.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}; give 1 or more")
    row, module = load_runtime(runtime)
    try:
        with quiet_stderr():
            return row.start(module, content, threads, row.package)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        custom = custom_operators(content)
        cause = f"its custom operators ({', '.join(custom)}) need the library they come from" if custom else ""
        raise InputError(
            f"{row.package} cannot open this .tflite file ({reason}); "
            f"{cause or 'it is damaged, or has operators this runtime lacks'}"
        ) from error


def load_runtime(runtime: str) -> tuple[Runtime, ModuleType]:
    """Return a row of `RUNTIMES` and its imported module; the first installed one for `auto`."""
    if runtime != "auto" and runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, ["auto", *RUNTIMES])
    for name in AUTOMATIC if runtime == "auto" else [runtime]:
        try:
            with quiet_stderr():
                return RUNTIMES[name], importlib.import_module(RUNTIMES[name].module)
        except (ImportError, InputError):  # the second from tfprune.keras
            continue
    row = RUNTIMES["litert" if runtime == "auto" else runtime]
    raise MissingRuntimeError(
        f"no runtime for .tflite files is installed (looked for {runtime}); pip install {row.pip or row.package}"
    )


def _versioned(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # tensorflow-cpu and others bring the same module
        return f"{package} of unknown version"


def _lite_info(details: dict[str, Any]) -> TensorInfo:
    scale, zero_point = details["quantization"]
    signature = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    return TensorInfo(
        np.dtype(details["dtype"]).name, tuple(int(size) for size in signature), float(scale), int(zero_point)
    )


def _micro_infos(details_of: Callable[[int], dict[str, Any]]) -> list[TensorInfo]:
    infos: list[TensorInfo] = []
    with quiet_stderr():
        while True:
            try:
                details = details_of(len(infos))
            except IndexError:  # there is no count
                return infos
            numbers = details["quantization_parameters"]
            scale, zero_point = (numbers[key][0] if len(numbers[key]) else 0 for key in ("scales", "zero_points"))
            shape = tuple(int(size) for size in details["shape"])
            infos.append(TensorInfo(np.dtype(details["dtype"]).name, shape, float(scale), int(zero_point)))


def _first_line(said: Any, error: Exception) -> str:
    """Return the reason a native library wrote to standard error, which its exception does not repeat."""
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else str(error)
