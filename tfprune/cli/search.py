"""Commands about searches: run."""

from __future__ import annotations

from pathlib import Path

import click

from tfprune.cli.options import TRUST


@click.group()
def search() -> None:
    """Search a recipe's ranges for the best trade-off."""


@search.command("run")
@click.argument("recipe_file", metavar="RECIPE")
@click.option("--data", metavar="DIR", help="Folder of the pictures and masks.")
@click.option("--model", metavar="FILE", help="Trained Keras model, for a recipe without architecture.")
@click.option("--out", default="runs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as search.trials=12.")
@TRUST
def search_run(
    recipe_file: str, data: str | None, model: str | None, out: Path, overrides: tuple[str, ...], trust: bool
) -> None:
    """Run the trials of RECIPE, a recipe with a section `search`.

    A search that was stopped goes on when the same command is given again:
    trials that have ended are kept, and the others go on where they were.
    """
    from tfprune.errors import InputError
    from tfprune.recipe import load_recipe

    recipe = load_recipe(recipe_file, overrides)
    if recipe.search is None:
        raise InputError(f"{recipe_file} has no section `search`: `tfprune run {recipe_file}` runs it")
    if data is not None and not Path(data).is_dir():
        raise click.BadParameter(f"{data} is not a folder", param_hint="--data")
    from tfprune.search.recipes import best_of, search_recipe
    from tfprune.search.searching import describe_ending, describe_values
    from tfprune.search.trials import load_trials

    click.echo(f"{recipe.name} -> {out / recipe.name}")
    try:
        folder = search_recipe(recipe, data=data, model=model, trust=trust, out=out, say=click.echo)
    except KeyboardInterrupt:
        click.echo("the same command goes on with the trials that have not ended", err=True)
        raise
    records = load_trials(folder)
    click.echo(f"{len(records)} trials, {sum(record.is_feasible for record in records)} within the constraints")
    best = best_of(records, recipe.search.quality)
    if best is not None:
        click.echo(f"best: {best.trial}: {describe_values(best.values)}: {describe_ending(recipe.search, best)}")
