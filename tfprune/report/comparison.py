"""Several run folders on one page: a table over their files, and size against quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import InputError
from tfprune.records import write_text
from tfprune.report.figures import draw_front, pareto_front
from tfprune.report.folder import Row, RunRecords, read_run
from tfprune.report.page import render
from tfprune.report.tables import Cell
from tfprune.report.wording import (
    as_count,
    as_kib,
    as_millions,
    as_percent,
    as_ratio,
    as_score,
    as_three_figures,
    join_words,
)


@dataclass(frozen=True)
class FileLine:
    """One file of one run."""

    run: str
    file: str
    cells: tuple[Cell, ...]
    on_front: bool


@dataclass(frozen=True)
class Part:
    """The runs on one set of test images, which alone can be compared."""

    title: str
    lead: str
    figure: str | None
    heads: tuple[tuple[str, str], ...]
    lines: tuple[FileLine, ...]
    runtimes: str


def write_comparison(run_folders: Sequence[str | Path], path: str | Path) -> Path:
    """Write one self-contained page about several run folders, atomically, and return its path.

    Runs on different test images stand in parts of their own, because their scores cannot be compared.

    Raises:
        InputError: no folder is given, one is no run folder, or a record cannot be read.
    """
    if not run_folders:
        raise InputError("no run folder is given; name at least one that `tfprune run` wrote")
    runs = [read_run(folder) for folder in run_folders]
    records = dict(zip(name_runs(runs), runs, strict=True))
    parts: dict[tuple[str, str], dict[str, RunRecords]] = {}
    for name, record in records.items():
        if record.rows:
            key = (str(record.dataset.get("name", "?")), as_count(record.dataset.get("test_images")))
            parts.setdefault(key, {})[name] = record
    page = render(
        "comparison.html",
        name="Runs compared",
        subtitle=join_words(list(records)),
        parts=[_describe_part(key, members) for key, members in parts.items()],
        empty=join_words([name for name, record in records.items() if not record.rows]),
        count=len(records),
    )
    write_text(path, page)
    return Path(path)


def name_runs(runs: Sequence[RunRecords]) -> list[str]:
    """Return one distinct name per run: its own, with its folder where two are the same."""
    names = [run.name for run in runs]
    distinct: list[str] = []
    for run, name in zip(runs, names, strict=True):
        text = name if names.count(name) == 1 else f"{name} ({run.folder})"
        distinct.append(text if text not in distinct else f"{text} #{len(distinct) + 1}")
    return distinct


def _describe_part(key: tuple[str, str], members: dict[str, RunRecords]) -> Part:
    points = [(name, row) for name, record in members.items() for row in record.rows]
    sized = [(row.file_bytes, row.mean_iou) for _, row in points if row.file_bytes and row.mean_iou is not None]
    front = set(pareto_front(sized))
    classes = list(dict.fromkeys(name for _, row in points for name in row.class_names[1:]))
    shown = classes if len(classes) <= 4 else []
    heads = [*((f"IoU {name}", "") for name in shown), ("mean IoU", ""), ("file", "KiB"), ("gzip", "KiB")]
    heads += [("parameters", "non-zero"), ("MACs", "million"), ("time, median", "ms"), ("times as fast", "in its run")]
    heads.append(("as Keras model", "pixels"))
    return Part(
        title=f"{key[0]}, {key[1]} test images",
        lead=_lead(points),
        figure=draw_front(points),
        heads=tuple(heads),
        lines=tuple(_describe_file(name, row, shown, (row.file_bytes, row.mean_iou) in front) for name, row in points),
        runtimes=join_words(
            list(dict.fromkeys(str(record.verification.get("runtime") or "?") for record in members.values()))
        ),
    )


def _lead(points: Sequence[tuple[str, Row]]) -> str:
    scored = [(name, row) for name, row in points if row.mean_iou is not None]
    sized = [(name, row) for name, row in scored if row.file_bytes]
    if not sized:
        return "The sizes or scores of these files were not measured."
    best_name, best = max(scored, key=lambda point: point[1].mean_iou or 0.0)
    small_name, small = min(sized, key=lambda point: (point[1].file_bytes or 0, -(point[1].mean_iou or 0.0)))
    text = f"Best mean IoU: {best_name}, {best.name}, {as_score(best.mean_iou)} at {as_kib(best.file_bytes)} KiB."
    if small is best:
        return f"{text} It is also the smallest file."
    return f"{text} Smallest: {small_name}, {small.name}, {as_kib(small.file_bytes)} KiB at {as_score(small.mean_iou)}."


def _describe_file(run: str, row: Row, classes: Sequence[str], on_front: bool) -> FileLine:
    spread = ""
    if row.faster_low is not None and row.faster_high is not None and row.faster_ratio != 1:
        spread = f"{as_ratio(row.faster_low)} to {as_ratio(row.faster_high)}"
    cells = [
        *(Cell(as_score(row.iou.get(name)), row.iou.get(name)) for name in classes),
        Cell(as_score(row.mean_iou), row.mean_iou),
        Cell(as_kib(row.file_bytes), row.file_bytes),
        Cell(as_kib(row.gzip_bytes), row.gzip_bytes),
        Cell(as_count(row.nonzero_parameters), row.nonzero_parameters),
        Cell(as_millions(row.macs), row.macs),
        Cell(as_three_figures(row.median_ms), row.median_ms),
        Cell(as_ratio(row.faster_ratio), row.faster_ratio, spread),
        Cell(as_percent(row.equal_ratio, 2), row.equal_ratio),
    ]
    return FileLine(run, row.name, tuple(cells), on_front)
