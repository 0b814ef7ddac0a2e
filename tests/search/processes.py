"""A made-up search for tests that kill processes: `python -m tests.search.processes FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tfprune.recipe.search import Search
from tfprune.search.searching import Task, search

SETTINGS = {
    "oracle": "random",
    "trials": 12,
    "quality": "iou",
    "ranges": {
        "width": {"choice": [8, 12, 16]},
        "rate": {"low": 0.001, "high": 0.1, "log": True},
        "share": {"low": 0.0, "high": 1.0},
    },
}


def slow_trial(values, folder):
    """Note the start, take a while, note the end."""
    folder.mkdir(parents=True, exist_ok=True)
    note(folder, "starts")
    time.sleep(0.4)
    note(folder, "ends")
    return {"iou": values["rate"] * values["share"], "file_bytes": 1000.0 * values["width"]}


def note(folder, event):
    with (folder.parents[1] / "ran.log").open("a") as stream:
        stream.write(f"{folder.name} {event} {os.environ.get('KERASTUNER_TUNER_ID', 'alone')}\n")


def build_task(folder, **changes):
    """Return the search of these tests."""
    return Task(Search.model_validate({**SETTINGS, **changes}), slow_trial, Path(folder), {})


if __name__ == "__main__":
    search(build_task(sys.argv[1]))
