"""Commands about model files: export, verify, predict."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tfprune.cli.options import MODEL, RUNTIME, RUNTIME_PYTHON, SIZE, THREADS, TRUST

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIR = click.Path(file_okay=False, path_type=Path)


def _numbers(context: Any, parameter: Any, text: str | None) -> float | tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number, nor numbers separated by commas") from None
    return values[0] if len(values) == 1 else values


@contextmanager
def _tflite_files(
    given: Sequence[Path], class_names: Callable[[], Sequence[str] | None], *, size: tuple[int, int] | None, trust: bool
) -> Iterator[list[Path]]:
    """Yield .tflite files: those given, and for Keras models their float32 exports in a temporary folder."""
    keras_models = [path for path in given if path.is_dir() or path.suffix in (".keras", ".h5", ".hdf5")]
    if not keras_models:  # nothing here needs TensorFlow
        yield list(given)
        return
    from tfprune.architectures.files import load_model, picture_shape
    from tfprune.export.conversion import export_tflite

    with tempfile.TemporaryDirectory() as folder:
        files = {path: path for path in given}
        for path in keras_models:
            loaded = load_model(path, trust=trust)
            picture_shape(loaded)
            names = class_names() or [f"class_{index}" for index in range(max(2, loaded.output_shape[-1]))]
            files[path] = Path(folder) / f"{path.stem}_float32.tflite"
            export_tflite(loaded, files[path], class_names=names, input_size=size)
            click.echo(f"{path}: judged as its float32 .tflite", err=True)
        yield list(files.values())


@click.command()
@click.argument("model", type=MODEL)
@click.option("--scheme", default="int8", show_default=True, help="Number formats; see `tfprune list schemes`.")
@click.option("--head", default="probabilities", show_default=True, help="Output; see `tfprune list heads`.")
@click.option("--sparse", is_flag=True, help="Store mostly-zero weights without their zeros.")
@click.option("--data", type=_DIR, help="Folder whose train pictures calibrate integer schemes.")
@click.option("--classes", metavar="NAMES", help="Class names, comma-separated; default: dataset.json of --data.")
@click.option("--calibration-images", default=100, show_default=True, type=click.IntRange(8))
@SIZE
@click.option("--scale", callback=_numbers, metavar="NUMBERS", help="Model takes pixels * scale + offset.")
@click.option("--offset", callback=_numbers, metavar="NUMBERS", help="One number, or one per channel.")
@click.option("--out", type=_FILE, help="The .tflite to write; default: beside MODEL.")
@TRUST
def export(
    model: Path,
    scheme: str,
    head: str,
    sparse: bool,
    data: Path | None,
    classes: str | None,
    calibration_images: int,
    size: tuple[int, int] | None,
    scale: Any,
    offset: Any,
    out: Path | None,
    trust: bool,
) -> None:
    """Convert a Keras MODEL to a .tflite for raw pixels.

    MODEL is a .keras or .h5 file or a SavedModel folder. It takes pixels
    0..255, unless --scale and --offset say what it takes; they are put inside
    the file.
    """
    from tfprune.architectures.files import load_model, picture_shape
    from tfprune.errors import InputError
    from tfprune.export.calibration import read_calibration
    from tfprune.export.conversion import export_tflite

    loaded = load_model(model, trust=trust)
    names, pictures = classes.split(",") if classes else None, None
    if data is not None:
        height, width, channels = picture_shape(loaded)
        taken = size or (height, width)
        if None in taken:
            raise InputError(f"{model} takes pictures of any size; say which the file should take: --size H W")
        names, pictures = read_calibration(
            data, size=taken, channels=channels, count=calibration_images, class_names=names
        )
    if names is None:
        raise InputError("the file names its classes: give --classes background,rust, or --data with a dataset.json")
    preprocessing = None if scale is None and offset is None else (1.0 if scale is None else scale, offset or 0.0)
    written = export_tflite(
        loaded,
        out or model.with_name(f"{model.stem}_{scheme}.tflite"),
        scheme=scheme,
        head=head,
        sparse=sparse,
        class_names=names,
        calibration=pictures,
        preprocessing=preprocessing,
        input_size=size,
    )
    click.echo(f"{written}  {written.stat().st_size / 1024:.1f} KiB")


@click.command()
@click.argument("files", metavar="FILES...", nargs=-1, required=True, type=MODEL)
@click.option("--data", required=True, type=_DIR, help="Folder with the pictures and masks to judge on.")
@click.option("--split", default="test", show_default=True, type=click.Choice(["train", "val", "test"]))
@click.option("--split-file", help="JSON with lists of file stems per split, inside --data.")
@click.option("--min-iou", type=click.FloatRange(0, 1), help="Exit 1 when a file's mean IoU is below.")
@RUNTIME
@RUNTIME_PYTHON
@THREADS
@click.option("--json", "json_file", type=_FILE, help="Also write the record as JSON.")
@SIZE
@TRUST
def verify(
    files: tuple[Path, ...],
    data: Path,
    split: str,
    split_file: str | None,
    min_iou: float | None,
    runtime: str,
    runtime_python: str | None,
    threads: int,
    json_file: Path | None,
    size: tuple[int, int] | None,
    trust: bool,
) -> None:
    """Judge .tflite FILES on a split: quality, size, latency.

    The latency ratios are against the first file, measured interleaved. A Keras
    model is judged as the float32 .tflite that is made of it.
    """
    from rich.console import Console

    from tfprune.data import open_set
    from tfprune.errors import FindingError
    from tfprune.records import write_json
    from tfprune.report.summary import summarise_verification
    from tfprune.verification.proof import prove_folder

    def names() -> Sequence[str]:
        return open_set(data, split_file=split_file).classes.names

    with _tflite_files(files, names, size=size, trust=trust) as tflite_files:
        record = prove_folder(
            tflite_files,
            data,
            split=split,
            split_file=split_file,
            runtime=runtime,
            threads=threads,
            python=runtime_python,
        )
    Console(highlight=False).print(summarise_verification(record))
    if json_file:
        write_json(json_file, record)
    low = [row["file"] for row in record["rows"] if min_iou is not None and row["scores"]["mean_iou"] < min_iou]
    if low:
        raise FindingError(f"mean IoU below {min_iou}: {', '.join(low)}")


@click.command()
@click.argument("model", type=MODEL)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default="predictions", show_default=True, type=_DIR)
@RUNTIME
@RUNTIME_PYTHON
@THREADS
@click.option("--classes", metavar="NAMES", help="Class names of a Keras MODEL, comma-separated.")
@SIZE
@TRUST
def predict(
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    runtime: str,
    runtime_python: str | None,
    threads: int,
    classes: str | None,
    size: tuple[int, int] | None,
    trust: bool,
) -> None:
    """Write a .tflite MODEL's masks and overlays of IMAGES.

    IMAGES are files or folders. Masks are index PNGs (pixel = class id) of the
    picture's own size; overlays show them on the picture. MODEL may be a Keras model.
    """
    from tfprune.report.predictions import find_images, write_predictions
    from tfprune.verification.runtimes import open_runtime

    names = classes.split(",") if classes else None
    with _tflite_files([model], lambda: names, size=size, trust=trust) as (file,):
        opened = open_runtime(file, runtime=runtime, threads=threads, python=runtime_python)
        pictures = find_images(images)
        for path, shares in write_predictions(opened, pictures, out):
            click.echo(f"{path}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    click.echo(f"{len(pictures)} masks in {out / 'masks'}, overlays in {out / 'overlays'}")
