"""The page and the terminal's view of a search, from a made-up record."""

from __future__ import annotations

import base64
import io

import pytest
from rich.console import Console

from tests.report.parsed_page import Page
from tfprune.errors import InputError
from tfprune.records import write_json
from tfprune.report.figures import BLUE, GREY
from tfprune.report.search import read_search, summarise_search, write_search_page
from tfprune.report.search_figures import draw_cost_front
from tfprune.search.fronts import find_front, follow_hypervolume, in_order
from tfprune.search.trials import TrialRecord

COSTS = ["file_bytes", "gzip_bytes", "arena_bytes", "macs"]


def made_up_trials():
    """Twelve trials: ten finished, one of them over a constraint, one rejected and one failed."""
    records = []
    for index in range(10):
        width, sparsity = (8, 12, 16)[index % 3], 0.5 + 0.05 * index
        values = {"architecture.width": width, "pruning.final_sparsity": sparsity, "pruning.criterion": "taylor"}
        if index % 2:
            values["pruning.learning_rate"] = 0.0003
        iou = 0.5 + 0.006 * width - 0.01 * (index % 4)
        figures = {"iou": iou, "test_iou": iou - 0.02, "file_bytes": 9000.0 * width**2, "macs": 2e6 * width**2}
        figures |= {"gzip_bytes": 9000.0 * width**2 * (1 - sparsity), "arena_bytes": 55000.0 * width}
        broken = ("arena_bytes<=800KiB",) if index == 5 else ()
        records.append(TrialRecord(f"trial_{index:02d}", "finished", values, figures, broken, seconds=300.0, ended="1"))
    records.append(TrialRecord("trial_10", "rejected", {"architecture.width": 16}, reason="by shape: too <large>"))
    records.append(TrialRecord("trial_11", "failed", {"architecture.width": 16}, reason="16 prunes do not fit"))
    return records


@pytest.fixture
def folder(tmp_path):
    records = in_order(made_up_trials())
    record = {
        "name": "made_up_search",
        "purpose": "find nets",
        "command": "tfprune search run made_up_search.yaml",
        "oracle": "random",
        "quality": "iou",
        "constraints": "arena_bytes<=800KiB",
        "scheme": "int8",
        "planned": 24,
        "costs": COSTS,
        "ranges": {
            "architecture.width": [8, 12, 16],
            "pruning.final_sparsity": [0.5 + 0.05 * index for index in range(10)],
            "pruning.criterion": ["magnitude", "taylor"],
            "pruning.learning_rate": [0.0003, 0.001],
        },
        "trials": records,
        "fronts": {cost: [one.trial for one in find_front(records, "iou", cost)] for cost in COSTS},
        "hypervolume": {cost: follow_hypervolume(records, "iou", cost) for cost in COSTS},
    }
    write_json(tmp_path / "records" / "search.json", record)
    return tmp_path


def test_the_page_shows_every_trial_with_its_figures(folder):
    page = Page(write_search_page(folder).read_text())
    text = page.text
    for name in ("trial_00", "trial_11", "over arena_bytes<=800KiB", "failed: 16 prunes do not fit", "too <large>"):
        assert name in text
    assert "12 trials have ended, 9 of them within the constraints, 1 rejected by shape" in text
    assert len(page.pictures) == len(COSTS) + 2 and all(source for _, source in page.pictures)


def test_the_terminal_shows_the_front_in_80_columns(folder):
    console = Console(width=80, file=io.StringIO())
    console.print(summarise_search(folder))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    front = {name for names in read_search(folder)["fronts"].values() for name in names}
    shown = {line.split()[0] for line in text.splitlines() if line[:2].isdigit() and "width" in line}
    assert shown == {name.removeprefix("trial_") for name in front} and "◆" in text


def test_the_front_is_drawn_on_top_of_trials_that_equal_it():
    figures = {"iou": 0.5, "file_bytes": 1024.0}
    trials = [{"trial": name, "figures": figures, "broken": []} for name in ("trial_0", "trial_1")]
    search = {"quality": "iou", "trials": trials, "fronts": {"file_bytes": ["trial_0"]}}
    drawn = base64.b64decode(draw_cost_front(search, "file_bytes").split(",")[1]).decode().lower()
    assert 0 < drawn.rindex(f"fill: {GREY}".lower()) < drawn.rindex(f"fill: {BLUE}".lower())


def test_a_search_without_a_finished_trial_has_a_page_too(folder):
    search = read_search(folder)
    search["trials"] = [trial for trial in search["trials"] if trial["status"] != "finished"]
    search["fronts"] = {cost: [] for cost in COSTS}
    search["hypervolume"] = {cost: [0.0, 0.0] for cost in COSTS}
    write_json(folder / "records" / "search.json", search)
    assert "No trial has finished." in write_search_page(folder).read_text()
    console = Console(width=80, file=io.StringIO())
    console.print(summarise_search(folder))
    assert "2 trials have ended, 0 of them within" in console.file.getvalue()


def test_a_folder_without_a_search_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no record of a search"):
        read_search(tmp_path)
