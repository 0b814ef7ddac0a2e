"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.parsed_page import Page
from tfprune.errors import InputError
from tfprune.records import read_json, write_json
from tfprune.report.comparison import write_comparison
from tfprune.report.figures import pareto_front


def make_smaller(folder: Path, **dataset: object) -> None:
    """Quarter the file sizes of a run, lower its mean IoU and change its dataset."""
    path = folder / "records" / "verification.json"
    verification = read_json(path)
    verification["dataset"].update(dataset)
    for row in verification["rows"]:
        row["footprint"]["file_bytes"] //= 4
        row["scores"]["mean_iou"] -= 0.02
    write_json(path, verification)


def test_every_file_of_every_run_is_in_the_table(make_run: Callable[..., Path], tmp_path: Path) -> None:
    large, small = make_run("large"), make_run("small")
    make_smaller(small)
    path = write_comparison([large, small], tmp_path / "out" / "comparison.html")
    page = Page(path.read_text(encoding="utf-8"))
    table = [row for row in page.rows if row and row[0] in ("large", "small")]
    assert [(row[0], row[1]) for row in table] == [
        ("large", "dense float32"),
        ("large", "dense int8 ◆"),
        ("large", "pruned float32"),
        ("large", "pruned int8"),
        ("small", "dense float32"),
        ("small", "dense int8 ◆"),
        ("small", "pruned float32"),
        ("small", "pruned int8"),
    ]
    assert {"8192000", "512000", "0.775", "0.755"} <= set(page.values)
    assert "Smallest: small, dense int8, 500 KiB at 0.755." in page.text
    assert len(page.pictures) == 1
    assert all(link.startswith("data:") for link in page.links)


def test_runs_on_other_test_images_stand_apart(make_run: Callable[..., Path], tmp_path: Path) -> None:
    first, other = make_run("first"), make_run("other")
    make_smaller(other, name="bridges")
    page = Page(write_comparison([first, other], tmp_path / "c.html").read_text(encoding="utf-8"))
    assert len(page.pictures) == 2
    assert "plates, 196 test images" in page.text
    assert "bridges, 196 test images" in page.text


def test_equal_names_are_told_apart_and_unverified_runs_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b")]
    for run in runs:
        record = read_json(run / "records" / "run.json")
        write_json(run / "records" / "run.json", {**record, "name": "same"})
    empty = make_run("empty")
    (empty / "records" / "verification.json").unlink()
    page = Page(write_comparison([*runs, empty], tmp_path / "c.html").read_text(encoding="utf-8"))
    assert f"same ({runs[0]})" in page.text
    assert f"same ({runs[1]})" in page.text
    assert "No exported file has been verified in empty." in page.text


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        write_comparison([], tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


def test_front_keeps_what_nothing_beats() -> None:
    assert pareto_front([(3, 0.3), (1, 0.1), (2, 0.4), (2, 0.2)]) == [(1, 0.1), (2, 0.4)]
    assert pareto_front([]) == []
