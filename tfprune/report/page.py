"""One run folder as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tfprune.records import write_text
from tfprune.report.figures import draw_losses, draw_regularization, draw_scores
from tfprune.report.folder import RunRecords, read_run
from tfprune.report.headline import describe_run
from tfprune.report.measured import explain_figures
from tfprune.report.samples import explain_colours, show_samples
from tfprune.report.tables import (
    describe_regularization,
    flatten,
    group_dense_layers,
    list_agreements,
    list_figures,
    list_layers,
    list_stages,
    list_target_rows,
)
from tfprune.report.wording import MOST_NAMES, as_command, as_duration, as_percent, join_words

PAGE_NAME = "report.html"


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder from its records, atomically, and return its path.

    Parts whose records are absent are named on the page.

    Raises:
        InputError: the folder is no run folder, or a record in it cannot be read.
    """
    records = read_run(run_folder)
    path = Path(run_folder) / PAGE_NAME
    write_text(path, render("report.html", **describe_page(records)))
    return path


def describe_page(records: RunRecords) -> dict[str, Any]:
    """Return everything that the page shows, as plain values for the template."""
    stages = records.run.get("stages") or []
    sparsity = records.sparsity
    return {
        "name": records.name,
        "subtitle": describe_subject(records),
        "facts": list_facts(records),
        "headline": describe_run(records),
        "columns": [row.name for row in records.rows],
        "groups": list_figures(records.rows),
        "agreements": list_agreements(records.verification),
        "target": records.target,
        "target_rows": list_target_rows(records.target),
        "samples": show_samples(records),
        "legend": explain_colours(records),
        "scores_figure": draw_scores(records.histories, sparsity, stages),
        "losses_figure": draw_losses(records.histories, sparsity),
        "regularization": describe_regularization(records.regularization),
        "regularization_figures": draw_regularization(records.histories, sparsity),
        "stages": list_stages(records),
        "layers": list_layers(sparsity),
        "dense_layers": group_dense_layers(sparsity),
        "wrapped_sparsity": as_percent(sparsity.get("wrapped_sparsity")),
        "total_sparsity": as_percent(sparsity.get("total_sparsity")),
        "target_sparsity": as_percent(sparsity.get("target")),
        "measured": explain_figures(records),
        "command": find_command(records.recipe),
        "recipe": records.recipe,
        "environment": flatten(records.environment),
        "data": flatten(records.data),
        "missing": records.missing,
    }


def render(template: str, **values: Any) -> str:
    """Return a template of this package filled in; every value is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def describe_subject(records: RunRecords) -> str:
    """Return what the run is about, from its recipe, or what it told apart."""
    purpose = _about(records.recipe).get("purpose")
    if purpose:
        return str(purpose)
    return f"tells {join_words(list(records.class_names), most=MOST_NAMES)} apart" if records.class_names else ""


def list_facts(records: RunRecords) -> list[tuple[str, str]]:
    """Return the few facts that stand under the title."""
    size = records.dataset.get("input_size")
    facts = [
        ("data", records.dataset.get("name")),
        ("classes", join_words(list(records.class_names), most=MOST_NAMES)),
        ("test images", records.dataset.get("test_images")),
        ("input", f"{size[0]} x {size[1]} pixels, {_channels(records.dataset.get('channels'))}" if size else None),
        ("finished", records.run.get("finished")),
        ("training took", as_duration(records.run["seconds"]) if records.run.get("seconds") else None),
        ("tfprune", records.environment.get("tfprune")),
    ]
    return [(name, str(value)) for name, value in facts if value]


def find_command(recipe: str) -> str:
    """Return the command that repeats the run, from the recipe's own words where it has them."""
    return str(_about(recipe).get("command") or as_command("run", "recipe.yaml", _content(recipe)))


def _channels(channels: int | None) -> str:
    return {1: "grey", 3: "RGB"}.get(channels or 0, f"{channels} channels")


def _about(recipe: str) -> dict[str, Any]:
    """Return the `about` section of a recipe, empty when it has none."""
    about = _content(recipe).get("about")
    return about if isinstance(about, dict) else {}


def _content(recipe: str) -> dict[str, Any]:
    """Return what a recipe says, nothing when it cannot be read."""
    try:
        content = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
