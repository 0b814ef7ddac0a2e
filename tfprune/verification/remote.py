"""A runtime in another Python: tflite-runtime needs numpy < 2, which the rest of an environment may not have.

Both ends are in this file. A message is one line of JSON, whose `bytes` says how many bytes follow it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfprune.errors import InputError
from tfprune.verification.engines import MissingRuntimeError, TensorInfo, start_engine

_ROOT = Path(__file__).resolve().parents[2]
# appended, so that the other Python's own packages come first
_START = f"import sys; sys.path.append({str(_ROOT)!r}); from tfprune.verification.remote import serve; serve()"


class RemoteEngine:
    """An `Engine` in a process of another Python, which needs numpy and a runtime; it ends with this object."""

    def __init__(self, content: bytes, *, python: str | Path, runtime: str, threads: int) -> None:
        self._python = python
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [str(python), "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise InputError(f"{python} cannot be started ({error.strerror}); give the path of a Python") from error
        self._end = weakref.finalize(self, _stop, self._process, self._said)
        header, _ = self._ask({"runtime": runtime, "threads": threads}, content)
        self.inputs, self.outputs = ([TensorInfo(**_whole(item)) for item in header[key]] for key in ("in", "out"))
        self.description = f"{header['description']}, Python {header['python']}"
        self.seconds = 0.0

    def run(self, values: np.ndarray) -> np.ndarray:
        """Run one picture; see `Engine`. `seconds` is measured over there, without the way."""
        header, content = self._ask({}, np.ascontiguousarray(values).tobytes())
        self.seconds = header["seconds"]
        return np.frombuffer(content, header["dtype"]).reshape(header["shape"]).copy()

    def _ask(self, header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            _send(self._process.stdin, header, content)
            answer = _receive(self._process.stdout)
        except OSError:
            answer = None
        if answer is None:
            self._process.wait()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            raise InputError(
                f"{self._python} stopped ({lines[-1] if lines else f'exit code {self._process.returncode}'}); "
                "it needs Python 3.10 or later, numpy and a runtime such as tflite-runtime"
            )
        if "error" in answer[0]:
            kind = MissingRuntimeError if answer[0]["missing"] else InputError
            raise kind(f"{self._python}: {answer[0]['error']}")
        return answer


def serve() -> None:
    """Answer a `RemoteEngine` over standard input and output until it goes away."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native libraries print must not come between
    engine = None
    while (request := _receive(source)) is not None:
        header, content = request
        try:
            if engine is None:
                engine = start_engine(content, **header)
                ends = {
                    "in": [asdict(item) for item in engine.inputs],
                    "out": [asdict(item) for item in engine.outputs],
                }
                python = ".".join(map(str, sys.version_info[:3]))
                _send(sink, {**ends, "description": engine.description, "python": python}, b"")
                continue
            (taken,) = engine.inputs
            shape = [1, *taken.shape[1:]]
            answer = engine.run(np.frombuffer(content, taken.dtype).reshape(shape))
            about = {"seconds": engine.seconds, "dtype": answer.dtype.name, "shape": answer.shape}
            _send(sink, about, np.ascontiguousarray(answer).tobytes())
        except InputError as error:
            _send(sink, {"error": str(error), "missing": isinstance(error, MissingRuntimeError)}, b"")


def _send(stream: BinaryIO, header: dict[str, Any], content: bytes) -> None:
    stream.write(json.dumps({**header, "bytes": len(content)}).encode() + b"\n" + content)
    stream.flush()


def _receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Return the next message, or None at the end of the stream."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    return header, stream.read(header.pop("bytes"))


def _whole(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "shape": tuple(item["shape"])}


def _stop(process: subprocess.Popen[bytes], said: BinaryIO) -> None:
    for stream in (process.stdin, process.stdout, said):
        with contextlib.suppress(OSError):  # what was not sent any more
            stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
