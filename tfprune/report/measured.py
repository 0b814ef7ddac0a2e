"""How each figure of a report was measured, in words, as far as the records tell."""

from __future__ import annotations

from collections.abc import Sequence

from tfprune.channels import CONTROLS
from tfprune.report.folder import Row, RunRecords
from tfprune.report.wording import MOST_NAMES, as_count, as_duration, as_stage, join_words

EQUAL_SCORES = 5e-4


def explain_figures(records: RunRecords) -> list[tuple[str, str]]:
    """Return (figure, how it was measured) pairs for the rows of a run."""
    if not records.rows:
        return []
    images = records.dataset.get("test_images")
    count = f"all {as_count(images)} test images" if images else "the test images"
    size = records.dataset.get("input_size")
    pixels = f" at {size[0]} x {size[1]} pixels (height x width)" if size else ""
    runtime = records.verification.get("runtime") or "a runtime that the record does not name"
    explained = [
        (
            "IoU, Dice",
            f"{count}{pixels}, each run through the exported .tflite file itself with {runtime}. "
            "IoU = TP / (TP + FP + FN) and Dice = 2 TP / (2 TP + FP + FN), from the pixels of all images together; "
            "pixels marked to be ignored are not counted.",
        ),
        ("mean IoU", explain_mean_iou(records.rows)),
        (
            "file, gzip",
            "the bytes of the exported .tflite file, and of the same file after gzip -9; 1 KiB = 1024 bytes.",
        ),
        (
            "parameters",
            "the weights and biases stored in the file; non-zero are those that stand for a number other than 0.",
        ),
        ("MACs", "multiply-accumulates of one image, from the shapes in the file; zeros are counted like all others."),
        ("time", explain_latency(records.rows, runtime)),
        (
            "same class",
            "the share of test pixels on which the file and the Keras model it was made from give the same class.",
        ),
    ]
    effort = explain_epochs(records)
    if effort:
        explained.append(("training effort", effort))
    return explained


def explain_mean_iou(rows: Sequence[Row]) -> str:
    """Return over which classes mean IoU was taken, told from the numbers themselves."""
    row = next((row for row in rows if row.mean_iou is not None and row.iou), None)
    if row is None or row.mean_iou is None:
        return "not recorded."
    every = [value for value in row.iou.values() if value is not None]
    names = [name for name in row.class_names if row.iou.get(name) is not None]
    for values, text in (
        (every, f"the mean over {join_words(names, most=MOST_NAMES)}."),
        (every[1:], f"the mean over all classes but the first: {join_words(names[1:], most=MOST_NAMES)}."),
    ):
        if values and abs(sum(values) / len(values) - row.mean_iou) < EQUAL_SCORES:
            return text
    return "as verification recorded it."


def explain_latency(rows: Sequence[Row], runtime: str) -> str:
    """Return how the times came about."""
    runs = next((row.latency_runs for row in rows if row.latency_runs), None)
    if runs is None:
        return "not measured."
    return (
        f"{as_count(runs)} runs of one image per file with {runtime}, the files taking turns in one process, "
        f'so that all meet the same load of the machine. "Times as fast" pairs each run with the one of {rows[0].name} '
        "beside it; the small figures are the 10th and 90th percentile of that. "
        "Where they include 1 there is no clear difference. "
        "Times are of the machine below, not of your device."
    )


def explain_epochs(records: RunRecords) -> str:
    """Return how long each network was trained, as far as it makes the comparison uneven."""
    epochs = {str(stage.get("name")): stage.get("epochs") for stage in records.run.get("stages") or []}
    controls = {name: count for name in CONTROLS if (count := epochs.pop(name, None))}
    dense = epochs.pop("train", None)
    more = {as_stage(name): count for name, count in epochs.items() if count}
    if not more:
        return ""
    words = join_words([f"{count} in {name}" for name, count in more.items()])
    had = f"the dense network had {dense} epochs" if dense else "the dense network was trained before this run"
    text = f"{had}. The pruned one started from it and had more: {words}."
    if "dense_longer" not in controls:
        text += " A dense network trained on for as long is not in this comparison (controls: [dense_longer] adds it)."
    if controls:
        had = [f"{as_stage(name)} had {count}" for name, count in controls.items()]
        text += f" Of the controls, {join_words(had)}."
    return text + _explain_saved_time(records)


def _explain_saved_time(records: RunRecords) -> str:
    """Return what rounds of removal saved, against epochs as long as the dense network's."""
    seconds = {str(stage.get("name")): stage for stage in records.run.get("stages") or []}
    rounds = [stage for name, stage in seconds.items() if name.startswith("channels_")]
    dense = seconds.get("train") or {}
    if not rounds or not dense.get("epochs") or not dense.get("seconds"):
        return ""
    taken = sum(stage["seconds"] for stage in rounds)
    whole = sum(stage["epochs"] for stage in rounds) * dense["seconds"] / dense["epochs"]
    return (
        f" The epochs between removals took {as_duration(taken)}; with the dense network's time per epoch they "
        f"would have taken {as_duration(whole)}."
    )
