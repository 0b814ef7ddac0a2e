"""The sentences say what the numbers say, also when that is not much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tfprune.report.folder import RunRecords, read_run
from tfprune.report.headline import describe_run, smallest_row
from tfprune.report.measured import explain_epochs
from tfprune.report.page import describe_subject


def with_rows(run: RunRecords, **changes: dict[str, object]) -> RunRecords:
    """Return the run with fields of rows changed; names are written with _ for the blank."""
    return replace(run, rows=tuple(replace(row, **changes.get(row.name.replace(" ", "_"), {})) for row in run.rows))


def test_zeros_alone_are_said_to_buy_gzip_only(make_run: Callable[..., Path]) -> None:
    pruned = describe_run(read_run(make_run())).points[1]
    assert pruned.title.startswith("pruned: 80.0")
    assert pruned.verdict == "buys a smaller gzip only"
    assert "stays at 8,000 KiB" in pruned.text
    assert "from 7,000 to 2,000 KiB (3.5x smaller)" in pruned.text
    assert "0.613 to 0.562 (−0.050) in float32" in pruned.text
    assert "stays at 431 million MACs" in pruned.text


def test_zeros_that_shrink_the_flash_of_the_target_are_a_gain(make_run: Callable[..., Path]) -> None:
    rows = [{"variant": "dense", "flash_bytes": 128_000}, {"variant": "pruned", "flash_bytes": 40_960}]
    run = replace(read_run(make_run()), target={"target": "ethos-u55", "rows": rows})
    pruned = describe_run(run).points[1]
    assert pruned.verdict == "" and "On ethos-u55 its flash goes from 125 to 40.0 KiB (3.1x smaller)." in pruned.text
    assert "helps a download." in pruned.text and "channels must be removed" not in pruned.text


def test_a_step_that_changes_nothing_buys_nothing(make_run: Callable[..., Path]) -> None:
    run = with_rows(read_run(make_run()), pruned_float32={"gzip_bytes": 7_168_000})
    assert describe_run(run).points[1].verdict == "buys nothing here"


def test_removed_channels_are_a_gain_without_verdict(make_run: Callable[..., Path]) -> None:
    smaller = {"file_bytes": 2_048_000, "macs": 110_000_000, "median_ms": 1.0, "faster_low": 3.9, "faster_ratio": 4.0}
    pruned = describe_run(with_rows(read_run(make_run()), pruned_float32=smaller)).points[1]
    assert pruned.verdict == ""
    assert "from 8,000 to 2,000 KiB (4.0x smaller)" in pruned.text
    assert "from 431 to 110 million MACs (3.9x smaller); the time falls" in pruned.text


def test_the_lead_prefers_the_better_of_two_equally_small_files(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert smallest_row(run.rows).name == "dense int8"
    lead = describe_run(run).lead
    assert "dense int8, takes 2,000 KiB, 4.0x smaller than dense float32 (8,000 KiB)" in lead
    assert "runs 2.00 times as fast (spread 1.95 to 2.05)" in lead
    assert "corrosion IoU 0.613 on the test images against 0.613" in lead


def test_a_spread_that_includes_one_is_no_gain(make_run: Callable[..., Path]) -> None:
    run = with_rows(read_run(make_run()), dense_int8={"faster_ratio": 1.1, "faster_low": 0.9, "faster_high": 1.3})
    assert "runs about as fast (ratio 1.10, spread 0.90 to 1.30)" in describe_run(run).lead
    slower = with_rows(run, dense_int8={"faster_ratio": 0.5, "faster_low": 0.45, "faster_high": 0.55})
    assert "runs slower" in describe_run(slower).lead


def test_losses_on_conversion_blind_classes_and_float_ops_are_warned_of(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert describe_run(run).warnings == ()
    bad = {"mean_iou": 0.469, "iou": {"background": 0.938, "corrosion": 0.0}, "float_ops": ("RESIZE_BILINEAR",)}
    warnings = describe_run(with_rows(run, dense_int8=bad)).warnings
    assert len(warnings) == 3
    assert "never finds corrosion" in warnings[0]
    both = describe_run(with_rows(run, dense_int8=bad, pruned_int8={"iou": bad["iou"]})).warnings
    assert both[0] == "dense int8 and pruned int8 never find corrosion rightly (IoU 0)."
    assert "lost 0.308 mean IoU against its own Keras model" in warnings[1]
    assert "RESIZE_BILINEAR" in warnings[2]


def test_classes_that_no_test_image_shows_are_told_and_not_judged(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    blank = {"iou": {"background": 1.0, "corrosion": None}, "sensitivity": {"background": 1.0, "corrosion": None}}
    alarm = blank | {"iou": {"background": 0.9, "corrosion": 0.0}, "mean_iou": 0.45}
    names = {row.name.replace(" ", "_"): blank | {"mean_iou": 1.0} for row in run.rows}
    headline = describe_run(with_rows(run, **names | {"dense_int8": alarm}))
    assert headline.warnings[0] == "No test image shows corrosion: how well that is found remains unknown."
    assert not any("never finds" in warning for warning in headline.warnings)
    assert "mean IoU 1.000 on the test images against 1.000 (±0.000)" in headline.lead


def test_of_many_classes_the_first_are_named(make_run: Callable[..., Path]) -> None:
    names = [f"class {number}" for number in range(100)]
    run = read_run(make_run(class_names=names))
    found = describe_run(with_rows(run, dense_int8={"iou": dict.fromkeys(names, 0.0)})).warnings[0]
    assert "never finds class 0, class 1," in found and found.endswith("class 14 and 85 more rightly (IoU 0).")
    assert describe_subject(replace(run, recipe="")).endswith("class 14 and 85 more apart")


def test_agreement_is_never_rounded_up(make_run: Callable[..., Path]) -> None:
    run = with_rows(read_run(make_run()), pruned_int8={"equal_ratio": 0.99569, "worst_image_ratio": 0.9})
    text = describe_run(run).points[-1].text.replace("\xa0", " ")
    assert "at least 99.56 % of all test pixels (the least in pruned int8" in text
    whole = {row.name.replace(" ", "_"): {"equal_ratio": 1.0, "worst_image_ratio": 1.0} for row in run.rows}
    assert describe_run(with_rows(run, **whole)).points[-1].text.endswith("it came from on all test pixels.")


def test_unmeasured_files_make_no_claims(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    nothing = {"file_bytes": None, "gzip_bytes": None, "macs": None, "median_ms": None, "mean_iou": None, "iou": {}}
    blank = replace(run, rows=tuple(replace(row, faster_ratio=None, faster_low=None, **nothing) for row in run.rows))
    headline = describe_run(blank)
    assert headline.lead == "The sizes of the exported files were not measured."
    assert not any(point.verdict for point in headline.points)
    assert "nothing to compare" in describe_run(replace(run, rows=())).lead


def test_a_shrunk_net_stands_beside_its_controls(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    shrunk = [replace(row, variant="shrunk", file_bytes=500_000) for row in run.rows if row.variant == "pruned"]
    scaled = [replace(row, variant="width_scaled", file_bytes=400_000) for row in run.rows if row.variant == "dense"]
    headline = describe_run(replace(run, rows=(*run.rows, *shrunk, *scaled)))
    points = {point.title: point.text for point in headline.points}
    assert points["shrunk, against its controls"].startswith(
        "corrosion IoU 0.562 in float32, against width-scaled 0.613 (so −0.050). corrosion IoU 0.562 in int8, against"
    )
    assert "Width-scaled: all layers narrowed alike" in points["shrunk, against its controls"]
    assert not any("width" in title for title in points)
    assert "smallest file, shrunk" in headline.lead


def test_zeros_stand_beside_the_dense_net_trained_on(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    longer = [replace(row, variant="dense_longer") for row in run.rows if row.variant == "dense"]
    headline = describe_run(replace(run, rows=(*run.rows, *longer)))
    assert headline.lead.endswith("), and 0.613 after training the dense net on for as long.")
    points = {point.title: point.text for point in headline.points}
    assert points["pruned, against its controls"].startswith(
        "corrosion IoU 0.562 in float32, against dense-longer 0.613 (so −0.050)."
    )


def test_the_epochs_of_controls_and_the_time_that_rounds_saved_are_told(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    stages = [
        {"name": "train", "epochs": 10, "seconds": 100.0},
        {"name": "channels_1", "epochs": 4, "seconds": 30.0},
        {"name": "channels_2", "epochs": 4, "seconds": 10.0},
        {"name": "width_scaled", "epochs": 18, "seconds": 50.0},
    ]
    said = explain_epochs(replace(run, run={**run.run, "stages": stages}))
    assert "had more: 4 in channels-1 and 4 in channels-2." in said
    assert "Of the controls, width-scaled had 18." in said and "is not in this comparison" in said
    longer = replace(run, run={**run.run, "stages": [*stages[1:], {"name": "dense_longer", "epochs": 8}]})
    assert explain_epochs(longer).startswith("the dense network was trained before this run. The pruned one")
    assert "is not in this comparison" not in explain_epochs(longer)
    assert "took 40 s; with the dense network's time per epoch they would have taken 1 min 20 s" in said
