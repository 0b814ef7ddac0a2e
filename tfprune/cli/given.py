"""The model files a person gives: .tflite as they are, Keras models as the files made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tfprune.cli.options import refuse_options

EXPORTED = "for Keras models; a .tflite file is exported already"
"""Why options are refused."""


@contextmanager
def tflite_files(
    given: Sequence[Path], class_names: Callable[[], Sequence[str] | None], *, size: tuple[int, int] | None, trust: bool
) -> Iterator[list[Path]]:
    """Yield .tflite files: those given, and for Keras models their exports in a temporary folder.

    Those are float32, or int8 for a model that learnt its rounding.
    """
    keras_models = [path for path in given if path.is_dir() or path.suffix in (".keras", ".h5", ".hdf5")]
    if not keras_models:  # nothing here needs TensorFlow
        refuse_options(("size", "classes", "trust"), EXPORTED)
        yield list(given)
        return
    from tfprune.architectures.files import load_model
    from tfprune.export.conversion import export_tflite
    from tfprune.quantization.training import is_quantized

    with tempfile.TemporaryDirectory() as folder:
        files = {path: path for path in given}
        for path in keras_models:
            loaded = load_model(path, trust=trust)
            picture_size(path, loaded, size)
            names = class_names() or [f"class_{index}" for index in range(max(2, loaded.output_shape[-1]))]
            scheme = "int8" if is_quantized(loaded) else "float32"
            files[path] = Path(folder) / f"{path.stem}_{scheme}.tflite"
            export_tflite(loaded, files[path], scheme=scheme, class_names=names, input_size=size)
            click.echo(f"{path}: judged as its {scheme} .tflite", err=True)
        yield list(files.values())


@contextmanager
def with_float_curve(
    model: Path, count: int, data: Path, *, split_file: str | None, size: tuple[int, int] | None, trust: bool
) -> Iterator[list[Path]]:
    """Yield the float32 file of a Keras model and its int8 files with 0 to `count` operators in float32.

    Raises:
        InputError: when it is no Keras model, or one that learnt its rounding.
    """
    from tfprune.architectures.files import SUFFIXES, load_model, picture_shape
    from tfprune.errors import InputError
    from tfprune.export.calibration import choose_calibration, read_calibration
    from tfprune.export.card import read_card
    from tfprune.export.conversion import export_tflite
    from tfprune.export.noise import KeptFloat

    if not (model.is_dir() or model.suffix in SUFFIXES):
        raise InputError(
            f"--keep-float makes int8 files of a Keras model, and {model} is not one; give the .keras file"
        )
    loaded = load_model(model, trust=trust)
    taken, channels = picture_size(model, loaded, size), picture_shape(loaded)[-1]
    names, train = read_calibration(data, size=taken, channels=channels, split_file=split_file)
    chosen = choose_calibration(train.images, train.masks, class_names=names, model=loaded)
    click.echo(describe_calibration(chosen.record), err=True)
    options = {"class_names": names, "input_size": size}
    integer = {**options, "scheme": "int8", "calibration": chosen.pictures}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{model.stem}.tflite")]
        files += [Path(folder, f"{model.stem}_float{kept}.tflite") for kept in range(count + 1)]
        export_tflite(loaded, files[0], **options)
        export_tflite(loaded, files[-1], keep_float=count, **integer)
        rows = (read_card(files[-1]) or {}).get("kept_float", ())
        for row in rows:
            click.echo(describe_kept(row))
        operators = [KeptFloat(**row) for row in rows]
        for kept, path in enumerate(files[1:-1]):
            export_tflite(loaded, path, keep_float=operators[:kept], **integer)
        yield files


def picture_size(path: Path, model: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the height and width of the pictures that a model's file is to take.

    Raises:
        InputError: when the model leaves them open, and nobody says, or it has others.
    """
    from tfprune.architectures.files import picture_shape
    from tfprune.errors import InputError

    height, width, _ = picture_shape(model)
    if size is None and None in (height, width):
        raise InputError(f"{path} takes pictures of any size; say which the file should take: --size H W")
    if size is not None and (height or size[0], width or size[1]) != size:
        raise InputError(f"{path} takes pictures of {height} x {width}, not {size[0]} x {size[1]}; leave --size out")
    return size or (height, width)


def describe_kept(row: dict[str, Any]) -> str:
    """Return what a card says of an operator in float32, in words."""
    return (
        f"float: {row['operator']} {row['tensor'].split(';')[0]}\n"
        f"  its signal in int8 {row['own_db']:.1f} dB; that of the answers {row['before_db']:.1f} -> "
        f"{row['answer_db']:.1f} dB"
    )


def describe_calibration(record: dict[str, Any]) -> str:
    """Return how calibration pictures were chosen, in words."""
    shown = ", ".join(f"{name} in {count}" for name, count in record["pictures_with_class"].items())
    return f"calibrated on {record['pictures']} train pictures, chosen {record['chosen']}: {shown}"
