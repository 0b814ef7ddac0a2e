"""What Arm's compiler for Ethos-U says of a file: which operators stay on the CPU, memory and time."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import InputError, unknown_name
from tfprune.targets.rules import Finding
from tfprune.verification.graph import read_operators

_ACCELERATORS = {
    "ethos-u55": ("ethos-u55-128", "ethos-u55-32", "ethos-u55-64", "ethos-u55-256"),
    "ethos-u65": ("ethos-u65-256", "ethos-u65-512"),
    "ethos-u85": ("ethos-u85-256", "ethos-u85-128", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
}
_ON_FLASH = ("Shared_Sram", "Sram_Only")
_ON_DRAM = ("Dedicated_Sram", "Dedicated_Sram_256KB", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB", *_ON_FLASH)
_MEMORIES = {
    "Ethos_U55_High_End_Embedded": _ON_FLASH,
    "Ethos_U55_Deep_Embedded": _ON_FLASH,
    "Ethos_U65_High_End": _ON_DRAM,
    "Ethos_U65_Mid_End": _ON_DRAM,
    "Ethos_U65_Client_Server": _ON_DRAM,
    "Ethos_U65_Embedded": _ON_FLASH,
    "Ethos_U85_SYS_DRAM_Mid": _ON_DRAM,
    "Ethos_U85_SYS_DRAM_Low": _ON_DRAM,
    "Ethos_U85_SYS_DRAM_High": _ON_DRAM,
    "Ethos_U85_SYS_Flash_Low": _ON_FLASH,
    "Ethos_U85_SYS_Flash_High": _ON_FLASH,
}
"""System in Arm's vela.ini -> the memory modes it has: those with an arena outside of SRAM need DRAM there."""


@dataclass(frozen=True)
class System:
    """What Vela is asked about: an accelerator, and a system and a memory mode of Arm's vela.ini."""

    accelerator: str
    system: str
    memory: str


def choose_system(target: str, *asked: str) -> System:
    """Return the system of a target, with its usual parts where none is asked for.

    Args:
        target: ethos-u55, ethos-u65 or ethos-u85.
        asked: any of an accelerator, a system and a memory mode, in any order.

    Raises:
        InputError: a part is none of this target's, two are of one kind, or system and memory do not match.

    >>> choose_system("ethos-u55", "ethos-u55-256").system
    'Ethos_U55_High_End_Embedded'
    """
    family = target.replace("ethos-u", "Ethos_U") + "_"
    systems = [name for name in _MEMORIES if name.startswith(family)]
    kinds = {"accelerator": _ACCELERATORS[target], "system": systems, "memory": _ON_DRAM}
    accepted = [name for names in kinds.values() for name in names]
    chosen: dict[str, str] = {}
    for part in asked:
        kind = next((kind for kind, names in kinds.items() if part in names), None)
        if kind is None:
            raise unknown_name(f"part of {target}", part, accepted)
        if kind in chosen:
            raise InputError(f"{target}: {chosen[kind]} and {part} say the {kind} twice; give one")
        chosen[kind] = part
    system = chosen.get("system", systems[0])
    memory = chosen.get("memory", _MEMORIES[system][0])
    if memory not in _MEMORIES[system]:
        raise InputError(f"{target}: {system} has no {memory}; its memory modes are {', '.join(_MEMORIES[system])}")
    return System(chosen.get("accelerator", _ACCELERATORS[target][0]), system, memory)


@dataclass(frozen=True)
class VelaEstimate:
    """Vela's word on one file; nothing of it was measured on a device.

    `sram_bytes` is working memory, `flash_bytes` compressed weights and commands (and what of the working memory
    the modes Dedicated_Sram keep in DRAM), `faults` the operators left to the CPU: (operator, the tensor it makes,
    reason).
    """

    sram_bytes: int
    flash_bytes: int
    time_ms: float
    faults: tuple[tuple[str, str, str], ...]


def has_vela() -> bool:
    """Return whether ethos-u-vela is installed in this Python."""
    return importlib.util.find_spec("ethosu") is not None


def estimate_with_vela(path: str | Path, system: System) -> VelaEstimate:
    """Compile a .tflite file for an Ethos-U and return what Vela says.

    Raises:
        InputError: ethos-u-vela is not installed, or cannot compile the file.
    """
    if not has_vela():
        raise InputError("estimates for Ethos-U come from Arm's compiler: pip install 'tfprune[ethos]'")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ethosu.vela", str(path), "--output-dir", folder]
        command += ["--accelerator-config", system.accelerator, "--config", "Arm/vela.ini"]
        command += ["--system-config", system.system, "--memory-mode", system.memory]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        tables = list(Path(folder).glob("*_summary_*.csv"))
        if result.returncode or not tables:
            said = (result.stdout + result.stderr).strip().splitlines()
            raise InputError(
                f"{path}: Vela cannot compile this file for {system.accelerator} ({said[-1] if said else ''})"
            )
        with tables[0].open(encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
    stored = ("off_chip_flash_memory_used", "on_chip_flash_memory_used", "dram_memory_used")
    return VelaEstimate(
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        flash_bytes=round(1024 * sum(float(row[name]) for name in stored)),
        time_ms=1e3 * float(row["inference_time"]),
        faults=tuple(_read_faults(result.stdout)),
    )


def ask_vela(path: Path, system: System) -> Iterator[Finding]:
    """Yield what Vela leaves to the CPU; nothing where it is not installed."""
    if not has_vela():
        return
    operators = read_operators(path) or ()
    places = {operator.outputs[0].name: place for place, operator in enumerate(operators) if operator.outputs}
    for operator, tensor, reason in estimate_with_vela(path, system).faults:
        way_out, place = "see Vela's report of supported operators (vela --supported-ops-report)", places.get(tensor)
        name = operator if place is None else operators[place].name  # Vela calls some of them None
        yield Finding(place, name, tensor, f"Vela leaves it to the CPU: {reason}", way_out)


def _read_faults(said: str) -> Iterator[tuple[str, str, str]]:
    """Yield (operator, tensor, reason) from Vela's warnings: it leaves with 0 whatever falls back."""
    pattern = r"Warning \(supported operators\) operator: (\w+), ofm: '([^']*)'(?:\nReason: (.+))?"
    for operator, tensor, reason in re.findall(pattern, said):
        yield operator, tensor, reason or "not among its operators"
