"""The model files a person gives: .tflite as they are, Keras models as the float32 file made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def tflite_files(
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
