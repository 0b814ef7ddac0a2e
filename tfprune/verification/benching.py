"""Latency of files side by side, without data: what `tfprune bench` prints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.records import plain
from tfprune.verification.latency import measure_latency
from tfprune.verification.rate import convolution_shares
from tfprune.verification.runtimes import Foreign, open_runtime

_ANY = Foreign((1.0, 0.0), "logits")
"""What time does not depend on."""


def bench_files(
    files: Sequence[Path],
    *,
    runtime: str = "auto",
    threads: int = 1,
    python: str | Path | None = None,
    runs: int = 50,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Time files interleaved in one process on a picture of random pixels (seed 0) of the size each takes.

    Args:
        files: .tflite files; the first is the reference of the ratios.
        runtime, threads, python: see `open_runtime`.
        runs: rounds that count; five more warm up.
        names: how the files are called in the record; default: their paths.

    Raises:
        InputError: a file cannot be opened, or is given twice.
    """
    names = list(names or map(str, files))
    if len(set(names)) < len(names):
        raise InputError("a file is given twice; its ratio to itself is 1")
    opened = {
        name: open_runtime(path, runtime=runtime, threads=threads, python=python, **_ANY.options_for(path))
        for name, path in zip(names, files, strict=True)
    }
    rng = np.random.default_rng(0)
    calls = {
        name: partial(model.time, rng.integers(0, 256, (*model.input_size, model.channels)).astype(np.uint8))
        for name, model in opened.items()
    }
    latency = measure_latency(calls, runs=runs)
    timed = {name: (path, latency[name]) for name, path in zip(names, files, strict=True)}
    rates, shares = convolution_shares(timed, runtime=runtime, threads=threads, python=python, runs=runs)
    rows = [
        {
            "file": name,
            "runtime": opened[name].description,
            "input_size": opened[name].input_size,
            "latency": latency[name],
            "convolution_share_ratio": shares[name],
        }
        for name in names
    ]
    return plain({"convolution_macs_per_s": rates, "rows": rows})
