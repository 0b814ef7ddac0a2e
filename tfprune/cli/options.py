"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

MODEL = click.Path(path_type=Path)
"""A Keras model: a file, or the folder of a SavedModel."""

TRUST = click.option("--trust", is_flag=True, help="Run code in the model file, such as Lambda layers.")
SIZE = click.option("--size", nargs=2, type=int, metavar="H W", help="Picture size of a model that takes any.")
