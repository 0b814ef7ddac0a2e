"""Commands about targets: lint, advise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from tfprune.cli.given import EXPORTED, picture_size
from tfprune.cli.options import JSON, MODEL, SIZE, TRUST, refuse_options


@click.command()
@click.argument("model", type=MODEL)
@click.option("--target", required=True, help="See `tfprune list targets`.")
@click.option("--scheme", help="Number formats to export a Keras MODEL in; default: the target's.")
@click.option("--head", help="Output to export it with; default: probabilities. See `tfprune list heads`.")
@SIZE
@TRUST
def lint(
    model: Path, target: str, scheme: str | None, head: str | None, size: tuple[int, int] | None, trust: bool
) -> None:
    """Say which operators of MODEL map to a target, and which do not.

    MODEL is a .tflite file, or a Keras model before or after training, which is
    exported first as `tfprune export` does. Exit code 1 when an operator falls
    back to another processor.
    """
    from tfprune.errors import FindingError
    from tfprune.targets import find_target
    from tfprune.targets.lint import lint_file

    chosen = find_target(target)
    if model.suffix == ".tflite":
        refuse_options(("scheme", "head", "size", "trust"), EXPORTED)
    with tempfile.TemporaryDirectory() as folder:
        path = model
        if model.suffix != ".tflite":
            path = Path(folder) / "model.tflite"
            _export(model, path, scheme=scheme or chosen.scheme, head=head or "probabilities", size=size, trust=trust)
        verdict = lint_file(path, target)
    for line in _lines(model.name, verdict, chosen):
        click.echo(line)
    if verdict.falls_back:
        raise FindingError(f"{model.name}: not all of it maps to {target}")


@click.command()
@click.argument("model", type=MODEL)
@click.option("--target", required=True, help="See `tfprune list targets`.")
@click.option("--budget", help='Such as "file_bytes<=200KiB, arena_bytes<=320KiB".')
@click.option("--scheme", help="Number formats; default: the target's.")
@click.option("--head", default="logits", show_default=True, help="Output; see `tfprune list heads`.")
@JSON
@SIZE
@TRUST
def advise(
    model: Path,
    target: str,
    budget: str | None,
    scheme: str | None,
    head: str,
    json_file: Path | None,
    size: tuple[int, int] | None,
    trust: bool,
) -> None:
    """Estimate what each method would gain on a target, before training.

    Masks, removed channels, a coarser output and smaller pictures are tried on
    the Keras MODEL as it is: each variant is exported, and the file is measured
    or handed to the target's compiler. Only training tells what it does to the
    quality.
    """
    from dataclasses import asdict

    from rich.console import Console

    from tfprune.architectures.files import load_model
    from tfprune.budget import parse_budget
    from tfprune.records import write_json
    from tfprune.targets import advice as giving
    from tfprune.targets import find_target

    bounds = parse_budget(budget) if budget else ()
    loaded = load_model(model, trust=trust)
    loaded = giving.sized(loaded, picture_size(model, loaded, size))
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder, console.status("exporting and measuring variants"):
        advice = giving.advise(loaded, target, folder, scheme=scheme, head=head)
    console.print(_advice_table(model.name, advice))
    console.print(f"2.0x means half of the dense net's. file, gzip and MACs are read from the files. {advice.said}.")
    console.print(f"Known about {target}: {find_target(target).pays}.")
    for name, reason in advice.left_out.items():
        console.print(f"{name}: left out, {reason}")
    for line in giving.conclude(advice):
        console.print(line)
    if json_file is not None:
        write_json(json_file, asdict(advice))
    if bounds:  # last: a bound that nothing tells is refused, and the table stands
        names = ", ".join(row.variant for row in giving.meeting(advice, bounds))
        console.print(f"Meets {budget}: {names or 'none of these'}")


def _advice_table(name: str, advice: Any) -> Any:
    from rich import box
    from rich.table import Table

    from tfprune.targets.advice import gains

    dense = advice.rows[0]
    columns = {
        "file\nKiB": ("file_bytes", 1024, "file", ".0f"),
        "gzip\nKiB": ("gzip_bytes", 1024, "", ".0f"),
        "M\nMACs": ("macs", 1e6, "MACs", ".1f"),
        "flash\nKiB": ("flash_bytes", 1024, "flash", ".0f"),
        "memory\nKiB": ("memory_bytes", 1024, "memory", ".0f"),
        "ms": ("time_ms", 1, "time", ".2f"),
    }
    shown = {head: column for head, column in columns.items() if getattr(dense, column[0]) is not None}
    table = Table(
        title=f"{name} on {advice.target}", box=box.SIMPLE, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for head in ("variant", *shown, "maps"):
        table.add_column(head, justify="left" if head == "variant" else "right", no_wrap=True)
    for row in advice.rows:
        won = gains(row, dense)
        cells = []
        for field, unit, word, form in shown.values():
            text = f"{getattr(row, field) / unit:,{form}}"
            cells.append(f"{text} [bold]{won[word]:.1f}x[/bold]" if word in won else text)
        table.add_row(row.variant, *cells, f"{row.mapped:.0%}")
    return table


def _export(model: Path, path: Path, *, scheme: str, head: str, size: tuple[int, int] | None, trust: bool) -> None:
    """Write a file with the operators of a trained one."""
    from tfprune.architectures.files import load_model
    from tfprune.targets.advice import export_untrained

    loaded = load_model(model, trust=trust)
    picture_size(model, loaded, size)
    export_untrained(loaded, path, scheme=scheme, head=head, input_size=size)


def _lines(name: str, verdict: Any, target: Any) -> list[str]:
    """Return what a person reads: how much maps, then each kind of finding once."""
    from tfprune.targets.lint import gathered

    total, unmapped = len(verdict.operators), len(verdict.unmapped)
    on, off = target.processor
    lines = [f"{name} on {verdict.target}: {target.summary}"]
    lines.append(
        f"{total - unmapped} of {total} operators run on {on}" + (f", {unmapped} on {off}" if unmapped else "")
    )
    if verdict.guessed:
        likely = "unlikely" if verdict.falls_back else "likely"
        lines.append(f"a static check: as a whole it is {likely} to map; the target's compiler is not on PATH")
    if target.breaks_off and unmapped:
        first = min(verdict.unmapped)
        lines.append(f"from number {first} on ({verdict.operators[first]}) nothing does: only one part of a net maps")
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
