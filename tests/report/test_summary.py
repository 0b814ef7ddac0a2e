"""What the terminal shows fits 80 columns and says the same as the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType

from tfprune.records import read_json, write_text
from tfprune.report.page import write_report
from tfprune.report.summary import summarise, summarise_verification


def show(folder: Path, width: int = 80) -> str:
    """Return the summary of a run folder as printed."""
    return print_wide(summarise(folder), width)


def print_wide(renderable: RenderableType, width: int = 80) -> str:
    """Return what is printed at a width."""
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().replace("\xa0", " ")


def test_table_has_every_file_with_its_figures(make_run: Callable[..., Path]) -> None:
    lines = show(make_run()).splitlines()
    row = next(line for line in lines if line.startswith("pruned int8"))
    assert row.split() == ["pruned", "int8", "0.562", "0.750", "2,000", "750", "431", "2.00", "2.00"]
    assert max(map(len, lines)) <= 80


def test_units_stand_in_the_heads(make_run: Callable[..., Path]) -> None:
    text = show(make_run())
    assert all(unit in text for unit in ("KiB", "million", "ms", "corrosion"))
    assert "with ai-edge-litert 0.0" in text


def test_classes_have_a_table_of_their_own(make_run: Callable[..., Path]) -> None:
    text = show(make_run(class_names=("good", "fair", "poor", "[bold]severe[/nonsense]")))
    assert next(line for line in text.splitlines() if line.startswith("fair")).split() == [
        "fair",
        "0.613",
        "0.613",
        "0.562",
        "0.562",
    ]
    assert "[bold]severe[/no" in text, "names are no markup"
    assert max(map(len, text.splitlines())) <= 80


def test_files_judged_outside_a_run_are_shown_by_their_own_names(make_run: Callable[..., Path]) -> None:
    record = read_json(make_run() / "records" / "verification.json")
    for row in record["rows"]:
        row["variant"] = f"a_rather_long_name_of_a_file_{row['variant']}_{row['scheme']}"
        del row["agreement"], row["keras_scores"]
    record["dataset"]["split"] = "val"
    text = print_wide(summarise_verification(record))
    assert "plates: the exported files on 196 val images" in text
    assert "".join(line.split()[0] for line in text.splitlines() if line.strip()).count("_dense_int8") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_path_of_the_page_is_printed_whole_once_it_exists(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert "Report:" not in show(folder)
    page = write_report(folder)
    assert f"Report: {page}" in show(folder).replace("\n", "") or str(page) in show(folder, width=400)


def test_an_unverified_run_says_so(tmp_path: Path) -> None:
    write_text(tmp_path / "stages" / "train" / "history.csv", "epoch,loss\n0,1.0\n")
    text = show(tmp_path)
    assert "there is nothing to" in text
    assert "Absent: records/run.json" in text
