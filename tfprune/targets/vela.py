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

from tfprune.errors import InputError
from tfprune.targets.rules import Finding
from tfprune.verification.graph import read_operators

SYSTEMS = {
    "ethos-u55": ("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("ethos-u85-256", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram"),
}
"""Target -> the accelerator, system and memory that Vela is asked about; the last two must match."""


@dataclass(frozen=True)
class VelaEstimate:
    """Vela's word on one file; nothing of it was measured on a device.

    `sram_bytes` is working memory, `flash_bytes` compressed weights and commands, `faults` the operators left to
    the CPU: (operator, the tensor it makes, reason).
    """

    accelerator: str
    sram_bytes: int
    flash_bytes: int
    time_ms: float
    macs: int
    faults: tuple[tuple[str, str, str], ...]


def has_vela() -> bool:
    """Return whether ethos-u-vela is installed in this Python."""
    return importlib.util.find_spec("ethosu") is not None


def estimate_with_vela(path: str | Path, target: str) -> VelaEstimate:
    """Compile a .tflite file for an Ethos-U and return what Vela says.

    Raises:
        InputError: ethos-u-vela is not installed, or cannot compile the file.
    """
    if not has_vela():
        raise InputError("estimates for Ethos-U come from Arm's compiler: pip install 'tfprune[ethos]'")
    accelerator, system, memory = SYSTEMS[target]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ethosu.vela", str(path), "--output-dir", folder]
        command += ["--accelerator-config", accelerator, "--config", "Arm/vela.ini"]
        command += ["--system-config", system, "--memory-mode", memory]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        tables = list(Path(folder).glob("*_summary_*.csv"))
        if result.returncode or not tables:
            said = (result.stdout + result.stderr).strip().splitlines()
            raise InputError(f"{path}: Vela cannot compile this file for {accelerator} ({said[-1] if said else ''})")
        with tables[0].open(encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
    in_dram = float(row["dram_memory_used"])
    return VelaEstimate(
        accelerator=accelerator,
        sram_bytes=round(1024 * (float(row["sram_memory_used"]) + (in_dram if memory == "Shared_Sram" else 0))),
        flash_bytes=round(
            1024 * (float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"]) + in_dram)
        ),
        time_ms=1e3 * float(row["inference_time"]),
        macs=int(float(row["nn_macs"])),
        faults=tuple(_read_faults(result.stdout)),
    )


def ask_vela(path: Path, target: str) -> Iterator[Finding]:
    """Yield what Vela leaves to the CPU; nothing where it is not installed."""
    if not has_vela():
        return
    operators = read_operators(path) or ()
    places = {operator.outputs[0].name: place for place, operator in enumerate(operators) if operator.outputs}
    for operator, tensor, reason in estimate_with_vela(path, target).faults:
        way_out, place = "see Vela's report of supported operators (vela --supported-ops-report)", places.get(tensor)
        name = operator if place is None else operators[place].name  # Vela calls some of them None
        yield Finding(place, name, tensor, f"Vela leaves it to the CPU: {reason}", way_out)


def _read_faults(said: str) -> Iterator[tuple[str, str, str]]:
    """Yield (operator, tensor, reason) from Vela's warnings: it leaves with 0 whatever falls back."""
    pattern = r"Warning \(supported operators\) operator: (\w+), ofm: '([^']*)'(?:\nReason: (.+))?"
    for operator, tensor, reason in re.findall(pattern, said):
        yield operator, tensor, reason or "not among its operators"
