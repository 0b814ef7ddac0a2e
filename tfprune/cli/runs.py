"""Commands about recipes and runs: demo, run, report, recipe, list."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import click

from tfprune.cli.options import FILE, OUT, RUN_DATA, RUN_MODEL, TRUST


@click.command()
@OUT
def demo(out: Path) -> None:
    """Train, prune, quantize and verify a small net on drawn pictures.

    Takes three to five minutes on two cores and needs no data. It is the shipped
    recipe 'demo': `tfprune run demo` is the same.
    """
    from tfprune.recipe import load_recipe

    start_run(load_recipe("demo"), out)


@click.command()
@click.argument("recipe_file", metavar="RECIPE")
@RUN_DATA
@RUN_MODEL
@OUT
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as training.epochs=5.")
@TRUST
def run(
    recipe_file: str, data: Path | None, model: str | None, out: Path, overrides: tuple[str, ...], trust: bool
) -> None:
    """Run RECIPE from data to verified .tflite files.

    RECIPE is a YAML file, or the name of a shipped one. A run that was stopped
    goes on from its last finished epoch when the same command is given again.
    """
    from tfprune.recipe import load_recipe

    start_run(load_recipe(recipe_file, overrides), out, data=data, model=model, trust=trust)


@click.command()
@click.argument("folders", metavar="RUNS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=FILE, help="The page to write.")
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Rewrite the report page of a run, or compare several runs."""
    from tfprune.report.comparison import write_comparison
    from tfprune.report.page import write_report

    if len(folders) == 1 and out is None:
        click.echo(write_report(folders[0]))
    else:
        click.echo(write_comparison(list(folders), out or Path("comparison.html")))


@click.group()
def recipe() -> None:
    """Check a recipe, or print the schema of recipes."""


@recipe.command("check")
@click.argument("recipe_file", metavar="RECIPE")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as training.epochs=5.")
def recipe_check(recipe_file: str, overrides: tuple[str, ...]) -> None:
    """Check RECIPE and print it with every default written out."""
    from tfprune.recipe import load_recipe, recipe_text

    click.echo(recipe_text(load_recipe(recipe_file, overrides)), nl=False)


@recipe.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of recipes, for editors and for reading."""
    from tfprune.recipe import recipe_schema as schema

    click.echo(schema())


@click.command("list")
@click.argument("kind", required=False)
def list_kind(kind: str | None) -> None:
    """List what recipes may name: architectures, losses, ..."""
    from tfprune.errors import look_up

    kinds = _kinds()
    if kind is None:
        click.echo("Kinds: " + ", ".join(kinds))
        return
    for line in look_up("kind", kind, kinds)():
        click.echo(line)


def _kinds() -> dict[str, Any]:
    from tfprune import (
        architectures,
        channels,
        criteria,
        data,
        export,
        objectives,
        pruning,
        regularization,
        targets,
        training,
    )
    from tfprune.recipe import search

    return {
        "architectures": lambda: architectures.ARCHITECTURES,
        "encoders": lambda: architectures.ENCODERS,
        "augmentations": _augmentations,
        "losses": lambda: objectives.LOSSES,
        "generators": lambda: data.GENERATORS,
        "optimizers": lambda: training.OPTIMIZERS,
        "learning-rate-schedules": lambda: training.LEARNING_RATE_SCHEDULES,
        "regularizers": lambda: regularization.REGULARIZERS,
        "gradient-readings": lambda: regularization.GRADIENT_READINGS,
        "schedules": lambda: pruning.SCHEDULES,
        "granularities": lambda: pruning.GRANULARITIES,
        "scopes": lambda: pruning.SCOPES,
        "criteria": lambda: criteria.CRITERIA,
        "ways": lambda: [f"{name:14} {meaning}" for name, meaning in channels.WAYS.items()],
        "controls": lambda: [f"{name:14} {meaning}" for name, meaning in channels.CONTROLS.items()],
        "schemes": lambda: [f"{name:14} {scheme.summary}" for name, scheme in export.SCHEMES.items()],
        "heads": lambda: [f"{name:14} {meaning}" for name, meaning in export.HEADS.items()],
        "targets": lambda: [
            line
            for name, target in targets.TARGETS.items()
            for line in textwrap.wrap(f"{name:14} {target.summary}. {target.pays}", 79, subsequent_indent=15 * " ")
        ],
        "distributions": lambda: training.DISTRIBUTIONS,
        "oracles": lambda: search.ORACLES,
        "recipes": _shipped_recipes,
    }


def _augmentations() -> tuple[str, ...]:
    from tfprune.data.augmentation import list_augmentations

    return list_augmentations()


def _shipped_recipes() -> list[str]:
    from tfprune.recipe import RECIPES_FOLDER, load_recipe

    loaded = [load_recipe(path) for path in sorted(RECIPES_FOLDER.glob("*.yaml"))]
    return [f"{item.name}: {item.about.cost}\n    {item.about.purpose}" for item in loaded]


def start_run(
    loaded: Any, out: Path, *, data: Path | None = None, model: str | Path | None = None, trust: bool = False
) -> None:
    """Run a checked recipe with its progress on the terminal, and print what came of it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    console.print(Text.assemble((loaded.name, "bold"), f" -> {out / loaded.name}"), soft_wrap=True)

    from tfprune.report.summary import summarise
    from tfprune.run import is_done, run_recipe

    was_done = is_done(out / loaded.name)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            console.print(text)

        def progress(stage: str, epochs: int, rows: list[dict[str, float]]) -> None:
            console.print(_epoch_line(stage, epochs, rows), soft_wrap=True)
            status.update(f"{stage}: epoch {min(len(rows) + 1, epochs)} of {epochs}")

        try:
            folder = run_recipe(loaded, data=data, model=model, trust=trust, out=out, say=say, progress=progress)
        except KeyboardInterrupt:
            click.echo("the same command goes on from the last finished epoch", err=True)
            raise
    if was_done:
        console.print("already done; showing its results (delete the folder to run it again)")
    if is_done(folder):
        console.print(summarise(folder))
    else:
        console.print("this worker's part is done; the chief goes on")


def _epoch_line(stage: str, epochs: int, rows: list[dict[str, float]]) -> str:
    row = rows[-1]
    line = f"{stage:12} {len(rows):3}/{epochs}  loss {row['loss']:.3f}"
    if "val_mean_iou" in row:
        line += f"  val loss {row['val_loss']:.3f}  val mean IoU {row['val_mean_iou']:.3f}"
    if "sparsity" in row:
        line += f"  zeros {row['sparsity']:.0%}"
    return re.sub(r"0(\.\d)", r"\1", line) + f"  {row['seconds']:.1f} s"
