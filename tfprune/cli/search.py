"""Commands about searches: run, show, pick."""

from __future__ import annotations

from pathlib import Path

import click

from tfprune.cli.options import FILE, FOLDER, OUT, RUN_DATA, RUN_MODEL, TRUST


@click.group()
def search() -> None:
    """Search a recipe's ranges for the best trade-off."""


@search.command("run")
@click.argument("recipe_file", metavar="RECIPE")
@RUN_DATA
@RUN_MODEL
@OUT
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Trials at a time.")
@click.option("--mlflow", metavar="URI", help="MLflow server that gets each trial as it ends.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as search.trials=12.")
@TRUST
def search_run(
    recipe_file: str,
    data: Path | None,
    model: str | None,
    out: Path,
    workers: int,
    mlflow: str | None,
    overrides: tuple[str, ...],
    trust: bool,
) -> None:
    """Run the trials of RECIPE, a recipe with a section `search`.

    A search that was stopped goes on when the same command is given again:
    trials that have ended are kept, and the others go on where they were.

    On several machines that share --out: set KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT to one address on all, KERASTUNER_TUNER_ID to chief
    on one and to worker1, worker2, ... on the others, and give this command
    everywhere. The chief hands out trials and runs none.
    """
    from tfprune.errors import InputError
    from tfprune.recipe import load_recipe

    recipe = load_recipe(recipe_file, overrides)
    if recipe.search is None:
        raise InputError(f"{recipe_file} has no section `search`: `tfprune run {recipe_file}` runs it")
    from tfprune.search.recipes import search_recipe

    click.echo(f"{recipe.name} -> {out / recipe.name}")
    try:
        folder = search_recipe(
            recipe, data=data, model=model, trust=trust, out=out, workers=workers, mlflow=mlflow, say=click.echo
        )
    except KeyboardInterrupt:
        click.echo("the same command goes on with the trials that have not ended", err=True)
        raise
    _show(folder)


@search.command("show")
@click.argument("folder", metavar="FOLDER", type=FOLDER)
def search_show(folder: Path) -> None:
    """Print the trade-off that the search in FOLDER found so far.

    It also writes FOLDER/search.html, with the fronts and all trials.
    """
    _show(folder)


@search.command("pick")
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.argument("asked", metavar="WHICH")
@click.option("--out", type=FILE, help="The recipe; default: NAME_trial_N.yaml.")
def search_pick(folder: Path, asked: str, out: Path | None) -> None:
    """Write the recipe of a trial, which `tfprune run` runs.

    WHICH is like "best iou with file_bytes<=500KiB, macs<=20M", or
    "best file_bytes with iou>=0.6".
    """
    from tfprune.recipe import recipe_text
    from tfprune.records import write_text
    from tfprune.search.fronts import load_searched
    from tfprune.search.picking import pick_trial
    from tfprune.search.recipes import picked_recipe
    from tfprune.search.trials import load_trials

    searched = load_searched(folder)
    record = pick_trial(load_trials(folder), asked)
    recipe = picked_recipe(searched, record)
    path = out or Path(f"{recipe.name}.yaml")
    write_text(path, recipe_text(recipe))
    click.echo(f"{record.trial}: {recipe.about.result}\n{path}")


def _show(folder: Path) -> None:
    from rich.console import Console

    from tfprune.report.search import summarise_search, write_search_page
    from tfprune.report.wording import as_command
    from tfprune.search.fronts import load_searched, write_search_record

    if (folder / "settings.json").exists():  # of a function of one's own, whose search writes record and page
        Console(highlight=False).print(summarise_search(folder))
        return
    recipe = load_searched(folder)
    again = recipe.about.command or as_command("search run", "recipe.yaml", recipe.model_dump(mode="json"))
    about = {"purpose": recipe.about.purpose, "command": again}
    write_search_record(folder, recipe.search, name=recipe.name, **about)
    write_search_page(folder)
    Console(highlight=False).print(summarise_search(folder))
