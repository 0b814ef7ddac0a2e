"""A run on the terminal: a table that fits 80 columns, the sentences of the report, and where the page is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfprune.report.folder import Row, read_rows, read_run
from tfprune.report.headline import Point, describe_run, find_warnings
from tfprune.report.wording import as_count, as_kib, as_millions, as_ratio, as_score, as_three_figures, join_words


def summarise(run_folder: str | Path) -> RenderableType:
    """Return what the terminal shows of a run: for `rich.console.Console.print`, at 80 columns and more.

    Raises:
        InputError: the folder is no run folder, or a record in it cannot be read.
    """
    records = read_run(run_folder)
    headline = describe_run(records)
    parts: list[RenderableType] = [Text(_title(records.name, records.dataset), style="bold")]
    parts += _tables(records.rows)
    parts.append(Text(headline.lead))
    parts += [_point(point) for point in headline.points]
    parts += [_warning(warning) for warning in headline.warnings]
    if not records.rows and records.missing:
        parts.append(Text("Absent: " + join_words([part.split(":")[0] for part in records.missing])))
    parts.append(_measured(records.verification))
    page = records.folder / "report.html"
    if page.is_file():
        parts.append(Text(f"Report: {page}", overflow="fold"))
    return Group(*parts)


def _title(name: str, dataset: Mapping[str, Any]) -> str:
    images = dataset.get("test_images")
    tested = f": the exported files on {as_count(images)} {dataset.get('split', 'test')} images" if images else ""
    data = f" ({dataset['name']})" if dataset.get("name") not in (None, name) else ""
    return f"{name}{data}{tested}"


def summarise_verification(verification: Mapping[str, Any]) -> RenderableType:
    """Return what the terminal shows of files judged outside a run (a record like `records/verification.json`)."""
    rows = read_rows(verification)
    dataset = verification.get("dataset") or {}
    parts: list[RenderableType] = [Text(_title(str(dataset.get("name") or "verification"), dataset), style="bold")]
    parts += _tables(rows)
    parts += [_warning(warning) for warning in find_warnings(rows)]
    parts.append(_measured(verification))
    return Group(*parts)


def _new_table() -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold")
    return table


def _tables(rows: Sequence[Row]) -> list[Padding]:
    if not rows:
        return []
    tables = [_figures_table(rows)]
    if len(rows[0].class_names) > 2:
        tables.append(_classes_table(rows, rows[0].class_names))
    return tables


def _figures_table(rows: Sequence[Row]) -> Padding:
    table = _new_table()
    heads = ["mean\nIoU", "file\nKiB", "gzip\nKiB", "MACs\nmillion", "median\nms", "times\nas fast"]
    names = rows[0].class_names
    target = names[1] if len(names) == 2 else None
    if target is not None:
        heads.insert(0, f"IoU\n{target}")
    for head in heads:
        table.add_column(Text(head, justify="right"), justify="right", max_width=12, overflow="ellipsis", no_wrap=True)
    for row in rows:
        cells = [
            as_score(row.mean_iou),
            as_kib(row.file_bytes),
            as_kib(row.gzip_bytes),
            as_millions(row.macs),
            as_three_figures(row.median_ms),
            as_ratio(row.faster_ratio),
        ]
        if target is not None:
            cells.insert(0, as_score(row.iou.get(target)))
        table.add_row(Text(row.name), *cells)
    return Padding(table, (1, 0))


def _classes_table(rows: Sequence[Row], names: Sequence[str]) -> Padding:
    """Return the IoU of every class, with files or classes side by side, whichever are fewer."""
    table = _new_table()
    table.columns[0].header = Text("IoU of")
    scores = [[as_score(row.iou.get(name)) for row in rows] for name in names]
    heads, lines = [f"{row.variant}\n{row.scheme}" for row in rows], list(names)
    if len(names) < len(rows):
        scores = [list(cells) for cells in zip(*scores, strict=True)]
        heads, lines = lines, [row.name for row in rows]
    for head in heads:
        table.add_column(Text(head, justify="right"), justify="right", max_width=14)
    for line, cells in zip(lines, scores, strict=True):
        table.add_row(Text(line), *cells)
    return Padding(table, (0, 0, 1, 0))


def _point(point: Point) -> Padding:
    title = f"{point.title} ({point.verdict})" if point.verdict else point.title
    return Padding(Group(Text(title, style="bold"), Padding(Text(point.text), (0, 0, 0, 2))), (1, 0, 0, 0))


def _warning(text: str) -> Text:
    return Text(f"\n! {text}", style="bold")


def _measured(verification: Mapping[str, Any]) -> Text:
    runtime = verification.get("runtime")
    if not runtime:
        return Text("Nothing has been measured yet.")
    return Text(f"\nMeasured on the .tflite files themselves with {runtime}; KiB = 1024 bytes.", style="dim")
