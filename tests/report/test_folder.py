"""Reading run folders: whole ones, incomplete ones and broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.records import read_json, write_json, write_text
from tfprune.report.folder import read_run, reference_row


def test_rows_hold_the_numbers_of_the_records(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    run = read_run(folder)
    recorded = read_json(folder / "records" / "verification.json")["rows"]
    assert [row.name for row in run.rows] == ["dense float32", "dense int8", "pruned float32", "pruned int8"]
    for row, record in zip(run.rows, recorded, strict=True):
        assert row.file_bytes == record["footprint"]["file_bytes"]
        assert row.iou == record["scores"]["iou"]
        assert row.faster_low == record["latency"]["ratio_low"]
        assert row.equal_ratio == record["agreement"]["equal_ratio"]
    assert run.missing == ()
    assert list(run.histories) == ["train", "prune", "fine_tune"]
    assert list(run.samples.predicted) == [row.name for row in run.rows]


def test_reference_is_dense_float32_wherever_it_stands(make_run: Callable[..., Path]) -> None:
    rows = read_run(make_run()).rows
    assert reference_row(rows[::-1]) is rows[0]
    assert reference_row(rows[1:]) is rows[1]
    assert reference_row(()) is None


def test_what_is_absent_is_listed(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    for part in ("data.json", "records/sparsity.json", "records/samples.npz", "recipe.yaml"):
        (folder / part).unlink()
    missing = read_run(folder).missing
    assert [part.split(":")[0] for part in missing] == [
        "records/sparsity.json",
        "data.json",
        "records/samples.npz",
        "recipe.yaml",
    ]


def test_a_run_without_masks_misses_no_sparsity(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "records" / "sparsity.json").unlink()
    record = read_json(folder / "records" / "run.json")
    record["stages"] = [stage for stage in record["stages"] if stage["name"] == "train"]
    write_json(folder / "records" / "run.json", record)
    assert read_run(folder).missing == ()


def test_unmeasured_values_are_none(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    write_text(
        folder / "records" / "verification.json",
        '{"rows": [{"variant": "dense", "scheme": "int8", "scores": {"iou": {}}}]}',
    )
    row = read_run(folder).rows[0]
    assert (row.mean_iou, row.file_bytes, row.median_ms, row.float_ops) == (None, None, None, None)


def test_a_history_cut_off_in_a_line_keeps_its_whole_lines(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    write_text(folder / "stages" / "train" / "history.csv", "epoch,loss,val_mean_iou\n0,1.5,.25\n1,")
    columns = read_run(folder).histories["train"]
    assert columns["loss"][0] == 1.5
    assert np.isnan(columns["loss"][1])


def test_folders_that_are_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_record_is_named(make_run: Callable[..., Path], text: str) -> None:
    folder = make_run()
    write_text(folder / "records" / "run.json", text)
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(folder)


def test_samples_that_do_not_line_up_are_refused(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    image, truth = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 4), np.uint8)
    np.savez(folder / "records" / "samples.npz", image=image, truth=truth)
    with pytest.raises(InputError, match=r"truth has shape \(2, 8, 4\)"):
        read_run(folder)
    shutil.copy(folder / "recipe.yaml", folder / "records" / "samples.npz")
    with pytest.raises(InputError, match=r"samples\.npz"):
        read_run(folder)
