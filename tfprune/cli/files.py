"""Commands that make files of models and masks of pictures: export, predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tfprune.cli.given import describe_calibration, describe_kept, picture_size, tflite_files
from tfprune.cli.options import (
    BLANK_IS_EMPTY,
    FILE,
    FOLDER,
    HEAD,
    MIN_PIXELS,
    MODEL,
    NAMES,
    OFFSET,
    RANDOM_WALKER,
    RUNTIME,
    RUNTIME_PYTHON,
    SCALE,
    SIZE,
    THREADS,
    TRUST,
    read_foreign,
    read_preprocessing,
    refuse_options,
)


@click.command()
@click.argument("model", type=MODEL)
@click.option("--scheme", default="int8", show_default=True, help="Number formats; see `tfprune list schemes`.")
@click.option("--head", default="probabilities", show_default=True, help="Output; see `tfprune list heads`.")
@click.option("--sparse", is_flag=True, help="Store mostly-zero weights without their zeros.")
@click.option(
    "--resize-v2", is_flag=True, help="Write resizes for older Coral compilers; bilinear ones shift a little."
)
@click.option("--data", type=FOLDER, help="Folder whose train pictures calibrate integer schemes.")
@click.option(
    "--classes", type=NAMES, metavar="NAMES", help="Class names, comma-separated; default: dataset.json of --data."
)
@click.option(
    "--calibration-images", type=click.IntRange(8), help="Calibration pictures; default: until the ranges settle."
)
@click.option("--clip", default=0.0, help="Share of a tensor's values to leave out at each end of its range.")
@click.option(
    "--keep-float", default=0, type=click.IntRange(0), help="How many int8 operators to compute in float instead."
)
@SIZE
@SCALE
@OFFSET
@click.option("--out", type=FILE, help="The .tflite to write; default: beside MODEL.")
@click.option("--c-array", is_flag=True, help="Also write sources for TFLite Micro, in a folder beside the file.")
@TRUST
def export(
    model: Path,
    scheme: str,
    head: str,
    sparse: bool,
    resize_v2: bool,
    data: Path | None,
    classes: tuple[str, ...] | None,
    calibration_images: int | None,
    clip: float,
    keep_float: int,
    size: tuple[int, int] | None,
    scale: Any,
    offset: Any,
    out: Path | None,
    c_array: bool,
    trust: bool,
) -> None:
    """Convert a Keras MODEL to a .tflite for raw pixels.

    MODEL is a .keras or .h5 file or a SavedModel folder. It takes pixels
    0..255, unless --scale and --offset say what it takes; they are put inside
    the file. --keep-float K takes the operators whose rounding costs the
    answers most, and says which; `verify MODEL --keep-float K` what they gain.
    """
    from tfprune.architectures.files import load_model, picture_shape
    from tfprune.errors import InputError, look_up
    from tfprune.export import SCHEMES
    from tfprune.export.calibration import choose_calibration, read_calibration
    from tfprune.export.card import read_card
    from tfprune.export.conversion import export_tflite
    from tfprune.quantization.training import is_quantized

    calibrated = look_up("scheme", scheme, SCHEMES, "--scheme").calibrated
    if data is None or not calibrated:
        refuse_options(("calibration_images",), "they are drawn from --data, for schemes with integer activations")
    loaded = load_model(model, trust=trust)
    taken = picture_size(model, loaded, size)
    names, pictures = classes, None
    if data is not None:
        channels = picture_shape(loaded)[-1]
        names, train = read_calibration(data, size=taken, channels=channels, class_names=names)
        if calibrated and not is_quantized(loaded):
            chosen = choose_calibration(
                train.images, train.masks, class_names=names, count=calibration_images, model=loaded
            )
            pictures = chosen.pictures
            click.echo(describe_calibration(chosen.record), err=True)
    if names is None:
        raise InputError("the file names its classes: give --classes background,rust, or --data with a dataset.json")
    written = export_tflite(
        loaded,
        out or model.with_name(f"{model.stem}_{scheme}.tflite"),
        scheme=scheme,
        head=head,
        sparse=sparse,
        resize_v2=resize_v2,
        class_names=names,
        calibration=pictures,
        clip=clip,
        keep_float=keep_float,
        preprocessing=read_preprocessing(scale, offset),
        input_size=size,
    )
    click.echo(f"{written}  {written.stat().st_size / 1024:.1f} KiB")
    for row in (read_card(written) or {}).get("kept_float", ()):
        click.echo(describe_kept(row))
    if c_array:
        _write_sources(written)


def _write_sources(file: Path) -> None:
    from tfprune.errors import InputError
    from tfprune.export.card import read_card
    from tfprune.export.firmware import write_firmware
    from tfprune.verification.arena import measure_arena
    from tfprune.verification.engines import MissingRuntimeError
    from tfprune.verification.graph import read_operators

    operators = read_operators(file)
    if operators is None:
        raise InputError("the list of operators needs the format's schema; pip install ai-edge-litert")
    try:
        arena_bytes = measure_arena(file)
    except MissingRuntimeError as error:
        arena_bytes = None
        click.echo(f"the arena is not measured: {error}", err=True)
    folder = file.with_suffix("")
    names = sorted({operator.name for operator in operators})
    write_firmware(file, folder, card=read_card(file), operators=names, arena_bytes=arena_bytes)
    size = f"arena {arena_bytes / 1024:.1f} KiB, " if arena_bytes else ""
    click.echo(f"{folder}/model_data.cc, model_data.h, model_operators.h, README.md  {size}{len(names)} operators")


@click.command()
@click.argument("model", type=MODEL)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default="predictions", show_default=True, type=FOLDER)
@click.option(
    "--overlap", type=int, metavar="PIXELS", help="Cut pictures into tiles with this overlap instead of scaling them."
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=MODEL,
    help="Another model, whose probabilities are averaged with MODEL's; repeatable.",
)
@MIN_PIXELS
@RANDOM_WALKER
@BLANK_IS_EMPTY
@RUNTIME
@RUNTIME_PYTHON
@THREADS
@click.option("--classes", type=NAMES, metavar="NAMES", help="Class names of a Keras MODEL, comma-separated.")
@SIZE
@SCALE
@OFFSET
@HEAD
@TRUST
def predict(
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    overlap: int | None,
    others: tuple[Path, ...],
    min_pixels: int,
    random_walker: tuple[float, float] | None,
    blank_is_empty: bool,
    runtime: str,
    runtime_python: str | None,
    threads: int,
    classes: tuple[str, ...] | None,
    size: tuple[int, int] | None,
    scale: Any,
    offset: Any,
    head: str | None,
    trust: bool,
) -> None:
    """Write masks and overlays of IMAGES with a .tflite MODEL.

    IMAGES are pictures, videos (with OpenCV; frame by frame) or folders of
    them. Masks are index PNGs (pixel = class id) of the picture's own size;
    overlays show them on the picture. MODEL may be a Keras model. --scale,
    --offset and --head say what a .tflite of another tool takes and gives.

    Files that cannot be read are named and left out; then the exit code is 1.
    """
    from tfprune.data.faults import FileFault
    from tfprune.errors import FindingError
    from tfprune.report.predictions import find_images, write_predictions
    from tfprune.verification.answers import PostProcessing
    from tfprune.verification.runtimes import open_runtime

    processing = PostProcessing(min_pixels, random_walker or None, blank_is_empty)
    with tflite_files([model, *others], lambda: classes, size=size, trust=trust) as files:
        foreign = read_foreign(files, scale, offset, head)
        where = {"runtime": runtime, "threads": threads, "python": runtime_python}
        opened = [open_runtime(file, **where, **foreign.options_for(file)) for file in files]
        pictures, unread, count = find_images(images), 0, 0
        for path in pictures:
            try:
                for name, shares in write_predictions(opened, path, out, overlap=overlap, processing=processing):
                    click.echo(f"{name}: " + ", ".join(f"{label} {share:.1%}" for label, share in shares.items()))
                    count += 1
            except FileFault as fault:
                click.echo(f"left out: {fault}", err=True)
                unread += 1
    _tell_rotated(pictures)
    click.echo(f"{count} masks in {out / 'masks'}, overlays in {out / 'overlays'}")
    if unread:
        raise FindingError(f"{unread} of {len(pictures)} files could not be read; each is named above")


def _tell_rotated(pictures: Sequence[Path]) -> None:
    """Warn of pictures that a viewer shows turned, and that were answered as they are stored."""
    from tfprune.data.images import is_rotated

    rotated = [path for path in pictures if is_rotated(path)]
    if rotated:
        click.echo(
            f"{rotated[0]}: carries an EXIF rotation, which is not applied ({len(rotated)} such picture(s)); a net "
            "that learnt from upright pictures sees it lying: save it upright",
            err=True,
        )
