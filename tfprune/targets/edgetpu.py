"""What Coral's compiler, where it is on PATH, says of a file: which operators stay on the CPU, and why."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfprune.errors import InputError
from tfprune.targets.rules import Finding, finding
from tfprune.verification.graph import Operator, read_operators

COMPILER = "edgetpu_compiler"
_MAPPED = "Mapped to Edge TPU"
_BEHIND = "More than one subgraph is not supported"
_WAYS_OUT = {
    _BEHIND: "it comes after the first operator that does not map; fix that one",
    "Operation is working on an unsupported data type": "export with --scheme int8 --head logits",
    "Operation version not supported": "export with --resize-v2 where it is a resize, or take a newer compiler",
}
_STREAMED = r"Off-chip memory used for streaming uncached model parameters: ([\d.]+[KMG]?i?B)"


def ask_edgetpu(path: Path) -> list[Finding] | None:
    """Return what the compiler leaves to the CPU; None where it is not on PATH.

    Its log counts operators by kind. Within a kind those that map are taken to be the first ones: the compiler maps
    a file up to its first fault.

    Raises:
        InputError: the compiler refuses the file.
    """
    if shutil.which(COMPILER) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [COMPILER, "-s", "-o", folder, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = result.stdout + result.stderr
    counted = read_log(said)
    if result.returncode or not counted:
        *_, last = ("", *said.strip().splitlines())
        raise InputError(f"{path}: {COMPILER} cannot compile this file ({last})")
    return [*_streamed(said), *_place(counted, read_operators(path) or ())]


def read_log(said: str) -> list[tuple[str, int, str]]:
    """Return (operator, count, status) from the compiler's table of operators.

    >>> read_log("Operator   Count      Status\\n\\nCONV_2D    35         Mapped to Edge TPU\\n")
    [('CONV_2D', 35, 'Mapped to Edge TPU')]
    """
    _, _, table = said.partition("Status")
    rows = re.findall(r"^([A-Z][A-Z0-9_]+) +(\d+) +(\S.*?) *$", table, re.MULTILINE)
    return [(operator, int(count), status) for operator, count, status in rows]


def _place(counted: Sequence[tuple[str, int, str]], operators: Sequence[Operator]) -> Iterator[Finding]:
    order = sorted(counted, key=lambda row: (row[2] != _MAPPED, row[2] == _BEHIND))
    places: dict[str, list[int]] = {}
    for place, operator in enumerate(operators):
        places.setdefault(operator.name, []).append(place)
    for name, count, status in order:
        taken, places[name] = places.get(name, [])[:count], places.get(name, [])[count:]
        if status != _MAPPED:
            way_out = _WAYS_OUT.get(status, "see the table of operators at coral.ai, and replace its layer")
            reason = f"{COMPILER}: {status[0].lower()}{status[1:]}"
            yield from (finding(operators, place, reason, way_out) for place in taken)


def _streamed(said: str) -> Iterator[Finding]:
    found = re.search(_STREAMED, said)
    if found and not found[1].startswith("0.00B"):
        reason = f"{found[1]} of weights do not fit on the chip, and are sent to it for every picture"
        yield Finding(None, "", "", reason, "remove channels: tfprune shrink", falls_back=False)
