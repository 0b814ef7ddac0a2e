"""Android's GPU delegate, asked through TensorFlow's analyzer."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from tfprune.targets.rules import Finding, finding
from tfprune.verification.graph import read_operators


def ask_gpu_delegate(path: Path) -> Iterator[Finding]:
    """Yield what TensorFlow's analyzer says does not run on the GPU."""
    from tfprune.keras import tf

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        tf.lite.experimental.Analyzer.analyze(model_path=str(path), gpu_compatibility=True)
    operators = read_operators(path) or ()
    for place, fault in _faults(said.getvalue()).items():
        is_head = operators[place].name in ("ARG_MAX", "CAST")
        way_out = "export with --head logits" if is_head else "replace the layer it comes from"
        yield finding(operators, place, fault, way_out)


def _faults(said: str) -> dict[int, str]:
    """Return the number of an operator -> what is said about it, from the analyzer's lines."""
    faults: dict[int, str] = {}
    place = None
    for line in said.splitlines():
        if number := re.match(r"\s*Op#(\d+) ", line):
            place = int(number[1])
        elif place is not None and (warning := re.match(r"GPU COMPATIBILITY WARNING: (?!Subgraph)(.+)", line.strip())):
            faults[place] = warning[1][0].lower() + warning[1][1:]
    return faults
