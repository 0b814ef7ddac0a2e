"""What benchmarks write: finished cells as lines that say when and where they were measured, and heads of pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tfprune.run.folder import environment_record

FOLDER = Path(__file__).parents[1] / "docs" / "results"
"""Where the pages lie."""

EARLIER = {
    "date": "2026-11-21",
    "cpu": "AMD EPYC",
    "tensorflow": "2.21.0",
    "tensorflow-model-optimization": "0.8.1",
    "ai-edge-litert": "2.3.0",
}
"""When and where those lines were measured that do not say it."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the finished cells of a file; none when it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def stamped(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell with the day, the processor and the versions that it was measured with."""
    here = environment_record() | {"date": date.today().isoformat()}
    return {**row, **{key: here[key] for key in EARLIER}}


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a cell that was just finished, stamped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(stamped(row)) + "\n")


def measured(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `date` and the `machine` of cells, each value with all that occur.

    >>> measured([{"date": "2026-11-30", "cpu": "A"}, {"iou": 0.5}])["date"]
    '2026-11-21 to 2026-11-30'
    """
    stamps = [{key: row.get(key) or value for key, value in EARLIER.items()} for row in rows]
    found = {key: sorted({stamp[key] for stamp in stamps}) or ["not run yet"] for key in EARLIER}
    dates = found.pop("date")
    return {
        "date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "machine": {key: " and ".join(values) for key, values in found.items()},
    }


def page_head(title: str, record: Mapping[str, Any], results: Path, *, note: str) -> list[str]:
    """Return the first lines of a page of figures that were measured in one go: `record` has command, date, machine."""
    machine = record["machine"]
    return [
        f"# {title}",
        "",
        f"Command: `{record['command']}` ({record['date']}, {machine['cpu']}, {machine['cores']} cores, TensorFlow "
        f"{machine['tensorflow']}, {note}).",
        f"Figures for machines: [{results.name}]({results.name}).",
        "",
    ]
