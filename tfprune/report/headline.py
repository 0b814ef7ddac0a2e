"""What a run gained and lost, in sentences: each made from the records, none kinder than they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfprune.channels import CONTROLS
from tfprune.report.folder import Row, RunRecords, reference_row
from tfprune.report.wording import (
    MOST_NAMES,
    UNCHANGED,
    as_change,
    as_kib,
    as_millions,
    as_percent,
    as_ratio,
    as_score,
    as_signed,
    as_stage,
    as_three_figures,
    join_words,
)

LARGE_INTEGER_LOSS = 0.01
"""Mean IoU a file may lose against its own Keras model before the report warns."""


@dataclass(frozen=True)
class Point:
    """One step of the run: its name, a verdict of a few words ("" when there is none) and what happened."""

    title: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Headline:
    """The run in one sentence, its steps one by one, and what the reader must not overlook."""

    lead: str
    points: tuple[Point, ...]
    warnings: tuple[str, ...]


def describe_run(records: RunRecords) -> Headline:
    """Return the headline of a run; without verified files it says just that."""
    reference = reference_row(records.rows)
    if reference is None:
        return Headline("No exported file of this run has been verified yet, so there is nothing to compare.", (), ())
    schemes = [row for row in records.rows if row.variant == reference.variant and row != reference]
    points = [_describe_scheme(row, reference) for row in schemes]
    for variant in dict.fromkeys(
        row.variant for row in records.rows if row.variant not in (reference.variant, "quantized", *CONTROLS)
    ):
        points.append(_describe_variant(variant, reference.variant, records))
    points += _describe_quantized(records)
    points += _describe_controls(records.rows)
    agreement = _describe_agreement(records.rows)
    if agreement is not None:
        points.append(agreement)
    candidates = [row for row in records.rows if row.variant not in CONTROLS]
    longer = [row for row in records.rows if row.variant == "dense_longer" and row.scheme == reference.scheme]
    lead = _describe_best(candidates, reference, longer[0] if longer else None)
    return Headline(lead, tuple(points), tuple(find_warnings(records.rows)))


def smallest_row(rows: Sequence[Row]) -> Row | None:
    """Return the file to take when bytes count: the smallest, the better score among equal sizes."""
    sized = [row for row in rows if row.file_bytes]
    if not sized:
        return None
    limit = min(row.file_bytes or 0 for row in sized) * (1 + UNCHANGED)
    return max((row for row in sized if (row.file_bytes or 0) <= limit), key=lambda row: main_score(row) or 0.0)


def main_score(row: Row) -> float | None:
    """Return the score to judge a file by: with two classes that test images show the IoU of class 1, else mean IoU.

    Background is most of most images and would hide what class 1 loses.
    """
    return row.iou.get(row.class_names[1]) if _is_judged_by_class(row) else row.mean_iou


def score_label(row: Row) -> str:
    """Return the name of `main_score`."""
    return f"{row.class_names[1]} IoU" if _is_judged_by_class(row) else "mean IoU"


def _is_judged_by_class(row: Row) -> bool:
    return len(row.class_names) == 2 and row.class_names[1] not in unseen_classes(row)


def unseen_classes(row: Row) -> list[str]:
    """Return the classes that no test image shows: the share that is found of them is unknown."""
    return [name for name, found in row.sensitivity.items() if found is None]


def is_faster(row: Row) -> bool | None:
    """Return whether even the low end of the paired speed ratio is above 1; None when unknown."""
    if row.faster_low is None or row.faster_high is None:
        return None
    return row.faster_low > 1


def _describe_best(rows: Sequence[Row], reference: Row, longer: Row | None) -> str:
    best = smallest_row(rows)
    if best is None:
        return "The sizes of the exported files were not measured."
    label = score_label(reference)
    score = f"{label} {as_score(main_score(best))} on the test images"
    if best == reference:
        return f"No file is smaller than {best.name}: {as_kib(best.file_bytes)} KiB, {score}."
    change = as_change(best.file_bytes, reference.file_bytes)
    compared = "the same as" if change == "same" else f"{change} against" if "%" in change else f"{change} than"
    sizes = f"{as_kib(best.file_bytes)} KiB, {compared} {reference.name} ({as_kib(reference.file_bytes)} KiB)"
    lead = f"The smallest file, {best.name}, takes {sizes}"
    speed = _speed_words(best)
    if speed:
        lead += f", and {speed}"
    against = f"{as_score(main_score(reference))} ({_score_change(best, reference)})"
    if longer is not None:
        against += f", and {as_score(main_score(longer))} after training the dense net on for as long"
    return f"{lead}; {score} against {against}."


def _speed_words(row: Row) -> str:
    """Return how a file's time compares with the first one's, or nothing when it was not measured."""
    if row.faster_ratio is None or is_faster(row) is None:
        return ""
    spread = f"{as_ratio(row.faster_low)} to {as_ratio(row.faster_high)}"
    if row.faster_low and row.faster_low > 1:
        return f"runs {as_ratio(row.faster_ratio)} times as fast (spread {spread})"
    if row.faster_high and row.faster_high < 1:
        return f"runs slower, at {as_ratio(row.faster_ratio)} times the speed (spread {spread})"
    return f"runs about as fast (ratio {as_ratio(row.faster_ratio)}, spread {spread})"


def _score_change(row: Row, reference: Row) -> str:
    score, first = main_score(row), main_score(reference)
    return "difference unknown" if score is None or first is None else as_signed(score - first)


def _score_step(before: Row, after: Row) -> str:
    scores = f"{as_score(main_score(before))} to {as_score(main_score(after))}"
    return f"{scores} ({_score_change(after, before)})"


def _describe_scheme(row: Row, reference: Row) -> Point:
    """Return what another number format did to the same network."""
    smaller = as_change(row.file_bytes, reference.file_bytes)
    words = [f"The file has {as_kib(row.file_bytes)} KiB ({smaller}; gzip {as_kib(row.gzip_bytes)} KiB)"]
    speed = _speed_words(row)
    if speed:
        words.append(f"and {speed}")
    text = " ".join(words) + f"; {score_label(row)} {as_score(main_score(row))} ({_score_change(row, reference)})."
    shrunk = smaller.endswith("smaller") or smaller.startswith("−")
    nothing = not shrunk and not is_faster(row) and row.file_bytes is not None
    return Point(f"{row.scheme} numbers", "buys nothing here" if nothing else "", text)


def _describe_variant(variant: str, origin: str, records: RunRecords) -> Point:
    """Return what a changed network (pruned, shrunk) gained over its origin, number format by number format."""
    origins = {row.scheme: row for row in records.rows if row.variant == origin}
    pairs = [(row, origins[row.scheme]) for row in records.rows if row.variant == variant and row.scheme in origins]
    if not pairs:
        return Point(
            variant, "", "No other network was exported in the same number format, so nothing can be compared."
        )
    row, partner = pairs[0]
    same_file = as_change(row.file_bytes, partner.file_bytes) == "same"
    same_macs = as_change(row.macs, partner.macs) == "same"
    packed = (row.gzip_bytes or 0) < (partner.gzip_bytes or 0) * (1 - UNCHANGED)
    stored = _flash_sentence(variant, origin, records)
    sentences = [_size_sentence(row, partner, same_file=same_file, packed=packed, device=not stored)]
    sentences += [*stored, _work_sentence(row, partner)]
    losses = [f"{_score_step(before, after)} in {after.scheme}" for after, before in pairs]
    sentences.append(f"The {score_label(row)} goes from {join_words(losses)}.")
    verdict = ""
    if same_file and same_macs and not stored and not _is_clearly_faster(row, partner):
        verdict = "buys a smaller gzip only" if packed else "buys nothing here"
        sentences.append("To shrink the file and the work, channels must be removed, not only set to zero.")
    return Point(_variant_title(variant, records), verdict, " ".join(sentences))


def _describe_quantized(records: RunRecords) -> list[Point]:
    """Return how training with the rounding of int8 stands against rounding afterwards, and what stays float."""
    origin = records.quantization.get("origin")
    origins = {row.scheme: row for row in records.rows if row.variant == origin}
    losses = [
        f"{_score_step(origins[row.scheme], row)} in {row.scheme}"
        for row in records.rows
        if row.variant == "quantized" and row.scheme in origins
    ]
    if not losses:
        return []
    score = score_label(next(iter(origins.values())))
    text = f"Trained with its rounding, the {score} of the {origin} net goes from {join_words(losses)}"
    if "float32" in origins:
        text += f"; in float32 the {origin} net has {as_score(main_score(origins['float32']))}"
    layers = [f"{row['layer']} ({row['reason']})" for row in records.quantization.get("float_layers") or []]
    floats = f" In float32 stay {join_words(layers)}." if layers else ""
    return [Point("quantized: trained with the rounding of its file", "", f"{text}.{floats}")]


def _describe_controls(rows: Sequence[Row]) -> list[Point]:
    """Return how the smaller net stands against its controls, number format by number format, and what those are."""
    controls = list(dict.fromkeys(row.variant for row in rows if row.variant in CONTROLS))
    judged = "shrunk" if any(row.variant == "shrunk" for row in rows) else "pruned"
    sentences = []
    for row in (row for row in rows if row.variant == judged and controls):
        others = [other for other in rows if other.variant in controls and other.scheme == row.scheme]
        beside = [
            f"{as_stage(other.variant)} {as_score(main_score(other))} (so {_score_change(row, other)})"
            for other in others
        ]
        said = f"{score_label(row)} {as_score(main_score(row))} in {row.scheme}"
        sentences.append(f"{said}, against {join_words(beside)}.")
    if not sentences:
        return []
    sentences += [f"{as_stage(name).capitalize()}: {CONTROLS[name]}." for name in controls]
    return [Point(f"{judged}, against its controls", "", " ".join(sentences))]


def _variant_title(variant: str, records: RunRecords) -> str:
    reached = records.sparsity.get("wrapped_sparsity")
    if variant == "pruned" and reached is not None:
        return f"pruned: {as_percent(reached)} of the masked weights are zero"
    return variant


def _flash_sentence(variant: str, origin: str, records: RunRecords) -> list[str]:
    """Return what a network stores on the run's target, where that is not the file and became smaller."""
    flash = {row["variant"]: row.get("flash_bytes") for row in records.target.get("rows") or []}
    before, after = flash.get(origin), flash.get(variant)
    if not before or not after or after > before * (1 - UNCHANGED):
        return []
    change = as_change(after, before)
    return [f"On {records.target['target']} its flash goes from {as_kib(before)} to {as_kib(after)} KiB ({change})."]


def _size_sentence(row: Row, partner: Row, *, same_file: bool, packed: bool, device: bool) -> str:
    before, after = as_kib(partner.file_bytes), as_kib(row.file_bytes)
    gzip = f"{as_kib(partner.gzip_bytes)} to {as_kib(row.gzip_bytes)} KiB"
    if not same_file:
        change = as_change(row.file_bytes, partner.file_bytes)
        return f"The {row.scheme} file goes from {before} to {after} KiB ({change}), gzip from {gzip}."
    if packed:
        change = as_change(row.gzip_bytes, partner.gzip_bytes)
        return (
            f"The {row.scheme} file stays at {after} KiB: zeros take as much room as other numbers. "
            f"Only gzip makes it smaller, from {gzip} ({change}): "
            f"that helps a download{', not the device' if device else ''}."
        )
    return f"The {row.scheme} file stays at {after} KiB, and gzip changes nothing either ({gzip})."


def _work_sentence(row: Row, partner: Row) -> str:
    if row.macs is None or partner.macs is None:
        work = "The work per image is not known"
    elif as_change(row.macs, partner.macs) == "same":
        work = f"The work stays at {as_millions(row.macs)} million MACs"
    else:
        change = as_change(row.macs, partner.macs)
        work = f"The work goes from {as_millions(partner.macs)} to {as_millions(row.macs)} million MACs ({change})"
    if row.median_ms is None or partner.median_ms is None:
        return work + "."
    times = f"{as_three_figures(partner.median_ms)} ms before, {as_three_figures(row.median_ms)} ms after"
    return f"{work}; the time {'falls' if _is_clearly_faster(row, partner) else 'does not clearly fall'} ({times})."


def _is_clearly_faster(row: Row, partner: Row) -> bool:
    """Return whether the spreads of two ratios to the first file do not overlap, the row's being better."""
    if row.faster_low is None or partner.faster_high is None:
        return False
    return row.faster_low > partner.faster_high


def _describe_agreement(rows: Sequence[Row]) -> Point | None:
    known = [row for row in rows if row.equal_ratio is not None]
    if not known:
        return None
    worst = min(known, key=lambda row: row.equal_ratio or 0.0)
    least = math.floor((worst.equal_ratio or 0.0) * 1e4) / 1e4
    text = "Every file gives the class of the Keras model it came from on "
    if least == 1:
        text += "all test pixels."
    else:
        text += (
            f"at least {as_percent(least, 2)} of all test pixels (the least in {worst.name}; "
            f"there {as_percent(worst.worst_image_ratio, 1)} in the worst image)."
        )
    return Point("files against Keras models", "", text)


def find_warnings(rows: Sequence[Row]) -> list[str]:
    """Return what must not be overlooked: classes unseen or never found, losses on conversion, float left in int8."""
    found = []
    unseen = unseen_classes(rows[0]) if rows else []
    if unseen:
        names = join_words(unseen, most=MOST_NAMES)
        found.append(f"No test image shows {names}: how well that is found remains unknown.")
    blind: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        missed = tuple(name for name, value in row.iou.items() if value == 0 and name not in unseen)
        if missed:
            blind.setdefault(missed, []).append(row.name)
    for missed, files in blind.items():
        finds = "finds" if len(files) == 1 else "find"
        found.append(f"{join_words(files)} never {finds} {join_words(list(missed), most=MOST_NAMES)} rightly (IoU 0).")
    for row in rows:
        if row.mean_iou is not None and row.keras_mean_iou is not None:
            loss = row.keras_mean_iou - row.mean_iou
            if loss > LARGE_INTEGER_LOSS:
                found.append(f"{row.name} lost {as_score(loss)} mean IoU against its own Keras model on conversion.")
        if row.is_integer and row.float_ops:
            more = [f"{len(row.float_ops) - 3} more"] if len(row.float_ops) > 3 else []
            found.append(f"{row.name} still computes in float: {join_words([*row.float_ops[:3], *more])}.")
    return found
