"""What can be wrong with one file of a data set: an error for who loads it, a finding for who checks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One named fault of a data folder; `files` are relative to the folder, the first is the one at fault."""

    kind: str
    files: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        place = f"{self.files[0]}: " if self.files else ""
        return f"{place}{self.message}"


class FileFault(InputError):
    """One file cannot be used; `kind` and `message` are those of its `Finding`."""

    def __init__(self, kind: str, path: str | Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.kind = kind
        self.path = Path(path)
        self.message = message


def raise_findings(folder: Path, findings: list[Finding], *, shown: int = 5) -> None:
    """Raise one `InputError` that names the first `shown` findings, or do nothing when there are none."""
    if not findings:
        return
    lines = [f"  {finding}" for finding in findings[:shown]]
    if len(findings) > shown:
        lines.append(f"  and {len(findings) - shown} more")
    count = "1 fault" if len(findings) == 1 else f"{len(findings)} faults"
    raise InputError(f"{folder}: {count} in the data; `tfprune data check` lists them all\n" + "\n".join(lines))
