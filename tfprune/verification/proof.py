"""The proof: exported files judged side by side on a test split, in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.arrays import load_arrays
from tfprune.data.sets import open_set
from tfprune.errors import InputError
from tfprune.objectives.counts import count_confusions
from tfprune.objectives.scores import boundary_iou, score_confusions
from tfprune.records import plain
from tfprune.verification.agreement import compare_classes
from tfprune.verification.answers import AS_IT_IS, PostProcessing, answer
from tfprune.verification.arena import measure_arena
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.latency import measure_latency
from tfprune.verification.quality import Quality, measure_quality
from tfprune.verification.rate import convolution_shares
from tfprune.verification.runtimes import UNSAID, Foreign, TFLiteModel, open_runtime

SAMPLES = 6


@dataclass(frozen=True)
class ExportedFile:
    """A .tflite file, which variant of the model it is (`dense`, `pruned`) and in which scheme."""

    variant: str
    scheme: str
    path: Path

    @property
    def name(self) -> str:
        """Variant and scheme in one word."""
        return f"{self.variant}_{self.scheme}"


def prove_files(
    files: Sequence[ExportedFile],
    images: np.ndarray,
    masks: np.ndarray,
    *,
    class_names: Sequence[str],
    keras_classes: Mapping[str, np.ndarray] | None = None,
    runtime: str = "auto",
    also: Sequence[str] = (),
    threads: int = 1,
    python: str | Path | None = None,
    latency_runs: int = 50,
    processing: PostProcessing = AS_IT_IS,
    foreign: Foreign = UNSAID,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Judge files on a whole split: footprint, quality, agreement and interleaved latency.

    Args:
        files: the first one is the reference of the latency ratios.
        images: uint8 (N, H, W, C), raw pixels.
        masks: uint8 (N, H, W), class ids.
        class_names: name of class 0, 1, ...
        keras_classes: per variant the class maps (N, H, W) of the Keras model it came from.
        runtime, threads, python: see `open_runtime`; this runtime judges and is timed.
        also: further runtimes that classify all pictures for the agreement; with `micro` the arena is measured.
        processing: what is done to the answers that are judged; agreement and time are of the files alone.
        foreign: what files of other tools take and give.

    Returns:
        The record (plain values: `dataset`, `runtime`, `rows`, `agreement` of each variant) and the predicted
        class maps uint8 (N, H, W) per file name.

    Raises:
        InputError: when a file cannot be read or does not fit the images.
    """
    keras_classes = keras_classes or {}

    def opener(path: Path, **where: Any) -> TFLiteModel:
        return open_runtime(path, python=python, **where, **foreign.options_for(path))

    opened = {file.name: opener(file.path, runtime=runtime, threads=threads) for file in files}
    pictures, classes = (images, masks), len(class_names)
    raw = {name: measure_quality(model.classes_of, *pictures, classes=classes) for name, model in opened.items()}
    judged = raw
    if processing != AS_IT_IS:
        answers = {name: partial(answer, [model], processing=processing) for name, model in opened.items()}
        judged = {name: measure_quality(one, *pictures, classes=classes) for name, one in answers.items()}
    calls = {name: partial(model.time, images[0]) for name, model in opened.items()}
    latency = measure_latency(calls, runs=latency_runs)
    rates, share = convolution_shares(
        {file.name: (file.path, latency[file.name]) for file in files},
        runtime=runtime,
        threads=threads,
        python=python,
        runs=latency_runs,
    )
    first = files[0].name
    rows = []
    for file in files:
        row = {
            "variant": file.variant,
            "scheme": file.scheme,
            "file": file.path.name,
            "footprint": measure_footprint(file.path),
            "scores": score_quality(judged[file.name], masks, class_names),
            "latency": latency[file.name],
            "agreement_with_first": compare_classes(raw[file.name].predicted, raw[first].predicted),
        }
        if share[file.name] is not None:
            row["convolution_share_ratio"] = share[file.name]
        if "micro" in (runtime, *also):
            row["arena_bytes"] = _arena_bytes(file.path)
        maps = keras_classes.get(file.variant)
        if maps is not None and processing == AS_IT_IS:  # else they would differ by what was done to the files' answers
            row["keras_scores"] = score_confusions(count_confusions(masks, maps, len(class_names)), class_names)
        if maps is not None:
            row["agreement"] = compare_classes(raw[file.name].predicted, maps)
        rows.append(row)
    judge = opened[first].description.split(",")[0] if runtime == "auto" else runtime
    record = {
        "dataset": {
            "class_names": list(class_names),
            "test_images": len(images),
            "input_size": list(images.shape[1:3]),
            "channels": images.shape[3],
        },
        "runtime": opened[first].description,
        "convolution_macs_per_s": rates,
        "rows": rows,
        "agreement": [
            _agreement_of(variant, files, raw, keras_classes, images, runtimes=(judge, *also), opener=opener)
            for variant in dict.fromkeys(file.variant for file in files)
        ],
    }
    if processing != AS_IT_IS:
        record["processing"] = processing
    return plain(record), {name: quality.predicted for name, quality in judged.items()}


def score_quality(quality: Quality, masks: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the scores of judged pictures: `score_confusions`, and the boundary IoU where scipy is installed."""
    scores = score_confusions(quality.confusions, class_names)
    try:
        edges = boundary_iou(masks, quality.predicted, len(class_names))
    except ImportError:  # scipy is not there on a board
        return scores
    return {**scores, "boundary_iou": dict(zip(class_names, edges, strict=True))}


def _agreement_of(
    variant: str,
    files: Sequence[ExportedFile],
    raw: Mapping[str, Quality],
    keras_classes: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    runtimes: Sequence[str],
    opener: Callable[..., TFLiteModel],
) -> dict[str, Any]:
    """Return the share of equal pixels between all that claim to be one variant: Keras, schemes, runtimes."""
    maps = {"keras": keras_classes[variant]} if variant in keras_classes else {}
    failed = {}
    for file in files:
        if file.variant != variant:
            continue
        maps[f"{file.scheme}, {runtimes[0]}"] = raw[file.name].predicted
        for runtime in runtimes[1:]:
            name = f"{file.scheme}, {runtime}"
            try:
                model = opener(file.path, runtime=runtime)
                maps[name] = np.stack([model.classes_of(image) for image in images])
            except InputError as error:
                failed[name] = str(error)
    compared = [[compare_classes(one, other).equal_ratio for other in maps.values()] for one in maps.values()]
    return {"variant": variant, "names": list(maps), "equal_ratio": compared, "failed": failed}


def _arena_bytes(path: Path) -> int | None:
    try:
        return measure_arena(path)
    except InputError:  # the agreement has the reason
        return None


def sample_images(count: int) -> np.ndarray:
    """Return the indices of up to `SAMPLES` pictures, evenly spread over a split."""
    return np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int)


def prove_folder(
    files: Sequence[Path],
    folder: str | Path,
    *,
    split: str = "test",
    split_file: str | None = None,
    runtime: str = "auto",
    also: Sequence[str] = (),
    threads: int = 1,
    python: str | Path | None = None,
    processing: PostProcessing = AS_IT_IS,
    together: bool = False,
    foreign: Foreign = UNSAID,
) -> dict[str, Any]:
    """Judge files on a split of a data folder, read at the size the files take; see `prove_files`.

    With `together` the record also has `together`: the files, and the scores of the mean of their probabilities.

    Raises:
        InputError: when the files take pictures of different sizes, or have other classes than the folder.
    """
    where = {"runtime": runtime, "threads": threads, "python": python}
    opened = [open_runtime(path, **where, **foreign.options_for(path)) for path in files]
    found = open_set(folder, split_file=split_file)
    height, width, channels = _common_input(opened, found.classes.names, folder)
    arrays = load_arrays(found.splits[split], found.classes, size=(height, width), channels=channels)
    record, _ = prove_files(
        _named(files, opened),
        arrays.images,
        arrays.masks,
        class_names=found.classes.names,
        **where,
        also=also,
        processing=processing,
        foreign=foreign,
    )
    if together:
        mean = partial(answer, opened, processing=processing)
        quality = measure_quality(mean, arrays.images, arrays.masks, classes=len(found.classes.names))
        scores = score_quality(quality, arrays.masks, found.classes.names)
        record["together"] = plain({"files": [path.name for path in files], "scores": scores})
    record["dataset"] |= {"name": found.name, "split": split}
    return record


def _common_input(
    opened: Sequence[TFLiteModel], class_names: Sequence[str], folder: str | Path
) -> tuple[int, int, int]:
    """Return the height, width and channels that all files take; refuse files that do not fit together or the set."""
    shapes = {(*model.input_size, model.channels) for model in opened}
    if len(shapes) > 1:
        listed = ", ".join(f"{model.path.name} {model.input_size}" for model in opened)
        raise InputError(f"the files take pictures of different sizes ({listed}); verify them one by one")
    for model in opened:
        classes = model.card["classes"] if model.card else None
        if classes is not None and tuple(classes) != tuple(class_names):
            raise InputError(
                f"{model.path} was made for the classes {', '.join(classes)}, and {folder} has "
                f"{', '.join(class_names)}; verify it on data with its own classes"
            )
    return shapes.pop()


def _named(files: Sequence[Path], opened: Sequence[TFLiteModel]) -> list[ExportedFile]:
    """Return files by their stems, or by their paths where two have the same stem."""
    stems = Counter(path.stem for path in files)
    return [
        ExportedFile(
            path.stem if stems[path.stem] == 1 else str(path.with_suffix("")),
            model.card["scheme"] if model.card else "unknown",
            path,
        )
        for path, model in zip(files, opened, strict=True)
    ]
