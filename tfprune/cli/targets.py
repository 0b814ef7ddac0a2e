"""Commands about targets: lint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from tfprune.cli.options import MODEL, SIZE, TRUST


@click.command()
@click.argument("model", type=MODEL)
@click.option("--target", required=True, help="See `tfprune list targets`.")
@click.option("--scheme", help="Number formats to export a Keras MODEL in; default: the target's.")
@click.option("--head", default="probabilities", show_default=True, help="Output; see `tfprune list heads`.")
@SIZE
@TRUST
def lint(model: Path, target: str, scheme: str | None, head: str, size: tuple[int, int] | None, trust: bool) -> None:
    """Say which operators of MODEL map to a target, and which do not.

    MODEL is a .tflite file, or a Keras model before or after training: it is
    exported first, as `tfprune export` does. Exit code 1 when something falls
    back.
    """
    from tfprune.errors import FindingError, look_up
    from tfprune.targets import TARGETS
    from tfprune.targets.lint import lint_file

    chosen = look_up("target", target, TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        path = model
        if model.suffix != ".tflite":
            path = Path(folder) / "model.tflite"
            _export(model, path, scheme=scheme or chosen.scheme, head=head, size=size, trust=trust)
        verdict = lint_file(path, target)
    for line in _lines(model.name, verdict, chosen):
        click.echo(line)
    if verdict.falls_back:
        raise FindingError(f"{model.name}: not all of it maps to {target}")


def _export(model: Path, path: Path, *, scheme: str, head: str, size: tuple[int, int] | None, trust: bool) -> None:
    """Write a file with the operators of a trained one; the ranges of its numbers are of random pictures."""
    import numpy as np

    from tfprune.architectures.files import load_model, picture_shape
    from tfprune.errors import InputError
    from tfprune.export.conversion import export_tflite

    loaded = load_model(model, trust=trust)
    height, width, channels = picture_shape(loaded)
    taken = size or (height, width)
    if None in taken:
        raise InputError(f"{model} takes pictures of any size; say which the file should take: --size H W")
    pictures = np.random.default_rng(0).integers(0, 256, (8, *taken, channels), np.uint8)
    names = [str(index) for index in range(max(2, loaded.output_shape[-1]))]
    export_tflite(loaded, path, class_names=names, scheme=scheme, head=head, calibration=pictures, input_size=size)


def _lines(name: str, verdict: Any, target: Any) -> list[str]:
    """Return what a person reads: how much maps, then each kind of finding once."""
    from tfprune.targets.lint import gathered

    total, unmapped = len(verdict.operators), len(verdict.unmapped)
    on, off = target.processor
    lines = [f"{name} on {verdict.target}: {target.summary}"]
    lines.append(
        f"{total - unmapped} of {total} operators run on {on}" + (f", {unmapped} on {off}" if unmapped else "")
    )
    if target.breaks_off and unmapped:
        first = min(verdict.unmapped)
        lines.append(f"from number {first} on ({verdict.operators[first]}) nothing does: one part of the net maps")
    for found, places in gathered(verdict.findings):
        lines += ["", f"{'falls back' if found.falls_back else 'wastes'}: {_subject(found, places)}"]
        lines += [f"  why      {found.reason}", f"  way out  {found.way_out}"]
    return lines


def _subject(found: Any, places: list[int | None]) -> str:
    if found.place is None:
        return "the whole file"
    count = f" x{len(places)}, first" if len(places) > 1 else ","
    return f"{found.operator}{count} number {found.place} ({_layer(found.tensor)})"


def _layer(tensor: str) -> str:
    """Return the layer's part of a tensor's name: the converter joins what it folded by semicolons."""
    parts = tensor.split(";")[0].split("/")
    return "/".join(parts[1:-1] or parts)
