"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def refuse_options(names: tuple[str, ...], reason: str) -> None:
    """Refuse options of the command that is running which somebody gave and which would be ignored.

    Raises:
        InputError: with the options and the reason, which follows them in the sentence.
    """
    from tfprune.errors import InputError

    context = click.get_current_context()
    given = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise InputError(f"{' and '.join(given)}: {reason}")


class _Names(click.ParamType):
    name = "names"

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(","))


class _Numbers(click.ParamType):
    name = "numbers"

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            values = tuple(_number(part) for part in value.split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(
                f"{value!r} is not a number or a quotient of two, such as 1/255, nor several, separated by commas"
            )
        return values[0] if len(values) == 1 else values


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below) if below else float(text)


NAMES = _Names()
"""Names between commas, without the spaces around them."""

_NUMBERS = _Numbers()
SCALE = click.option("--scale", type=_NUMBERS, help="The model expects pixels * scale + offset; for example 1/255.")
OFFSET = click.option("--offset", type=_NUMBERS, help="One number, or one per channel.")
HEAD = click.option("--head", metavar="HEAD", help="What another tool's .tflite returns: probabilities or logits.")


def read_preprocessing(scale: Any, offset: Any) -> tuple[Any, Any] | None:
    """Return (scale, offset) of the options; None when neither is given."""
    return None if scale is None and offset is None else (1.0 if scale is None else scale, offset or 0.0)


def read_foreign(files: Sequence[Path], scale: Any, offset: Any, head: str | None) -> Any:
    """Return what files of other tools take and give (`tfprune.verification.runtimes.Foreign`).

    Raises:
        InputError: when it is said, and every file says it itself.
    """
    from tfprune.export.card import read_card
    from tfprune.verification.runtimes import Foreign

    if all(read_card(path) for path in files):
        reason = (
            "for .tflite files of other tools; those of tfprune say it themselves, and for a Keras model "
            "`tfprune export MODEL --scale --offset` puts it into the file"
        )
        refuse_options(("scale", "offset", "head"), reason)
    return Foreign(read_preprocessing(scale, offset), head)


MODEL = click.Path(path_type=Path)
"""A Keras model: a file, or the folder of a SavedModel."""
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
DATA = click.Path(exists=True, file_okay=False, path_type=Path)

RUN_DATA = click.option("--data", type=DATA, metavar="DIR", help="Folder of the pictures and masks.")
RUN_MODEL = click.option("--model", metavar="FILE", help="Trained Keras model, for a recipe without architecture.")
OUT = click.option("--out", default="runs", show_default=True, type=FOLDER)
JSON = click.option("--json", "json_file", type=FILE, help="Also write the record as JSON.")
TRUST = click.option("--trust", is_flag=True, help="Allow code in the model file to run, such as Lambda layers.")
SIZE = click.option("--size", nargs=2, type=int, metavar="H W", help="Picture size, for a model that accepts any.")

RUNTIME = click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="auto, litert, tflite-runtime, tensorflow, micro or litert-reference.",
)
RUNTIME_PYTHON = click.option(
    "--runtime-python",
    metavar="PATH",
    help="Run inference in this other Python, which has the runtime and numpy.",
)
MIN_PIXELS = click.option(
    "--min-pixels", default=0, type=click.IntRange(0), help="Turn regions of fewer pixels into class 0."
)
RANDOM_WALKER = click.option(
    "--random-walker",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Decide pixels between these probabilities by random walks.",
)
BLANK_IS_EMPTY = click.option("--blank-is-empty", is_flag=True, help="Answer class 0 for pictures of a single value.")
THREADS = click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
