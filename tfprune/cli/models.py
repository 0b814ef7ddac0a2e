"""Commands that make a trained Keras model smaller: prune, shrink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tfprune.cli.given import picture_size
from tfprune.cli.options import DATA, FILE, MODEL, OUT, SIZE, TRUST, refuse_options


@click.command()
@click.argument("model", type=MODEL)
@click.option("--data", required=True, type=DATA, metavar="DIR", help="Folder of the pictures and masks.")
@click.option("--sparsity", default=0.8, show_default=True, type=click.FloatRange(0, 1, max_open=True))
@click.option("--epochs", default=8, show_default=True, type=click.IntRange(1), help="Epochs of the ramp.")
@click.option("--fine-tune-epochs", default=12, show_default=True, type=click.IntRange(0))
@click.option("--prunes", default=16, show_default=True, type=click.IntRange(1), help="Mask updates in the ramp.")
@click.option("--schedule", default="polynomial", show_default=True, help="See `tfprune list schedules`.")
@click.option("--criterion", default="magnitude", show_default=True, help="See `tfprune list criteria`.")
@click.option("--granularity", default="weight", show_default=True, help="See `tfprune list granularities`.")
@click.option("--scope", help="layer or global; default: global, for the granularities weight and block.")
@click.option("--learning-rate", default=1e-3, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1))
@OUT
@click.option("--name", help="Name of the run folder; default: MODEL's, with _pruned.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other key of a recipe.")
@SIZE
@TRUST
def prune(
    model: Path,
    data: Path,
    out: Path,
    name: str | None,
    overrides: tuple[str, ...],
    size: tuple[int, int] | None,
    trust: bool,
    **options: Any,
) -> None:
    """Prune a trained Keras MODEL with masks and verify the files.

    MODEL takes pixels 0..255. It ends in logits, a softmax or a sigmoid. The
    result is a run folder like that of `tfprune run`, with the recipe in it.
    """
    from tfprune.architectures.files import load_model
    from tfprune.cli.runs import start_run
    from tfprune.recipe import check_recipe, override

    size = picture_size(model, load_model(model, trust=trust), size)
    rate = {"learning_rate": options["learning_rate"]}
    ramp = {key: options[key] for key in ("epochs", "prunes", "schedule", "criterion", "granularity", "scope")}
    content: dict[str, Any] = {
        "name": name or f"{model.stem}_pruned",
        "data": {"size": list(size), "batch_size": options["batch_size"]},
        "loss": [{"cross_entropy": {}}, {"dice": {}}],
        "pruning": {"final_sparsity": options["sparsity"], "learning_rate_schedule": "constant", **rate, **ramp},
    }
    if options["fine_tune_epochs"]:
        content["fine_tuning"] = {"epochs": options["fine_tune_epochs"], **rate}
    for setting in overrides:
        override(content, setting)
    start_run(check_recipe(content, where="prune"), out, data=data, model=model, trust=trust)


@click.command()
@click.argument("model", type=MODEL)
@click.option("--ratio", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Fraction to remove.")
@click.option("--budget", metavar="BOUNDS", help='Bounds on what remains, such as "file_bytes<=200KiB, macs<=0.5x".')
@click.option("--scheme", default="int8", show_default=True, help="Number format whose bytes and ms a --budget bounds.")
@click.option("--plan", "plan_file", type=FILE, help="Follow the plan in this file, which may have been edited.")
@click.option("--criterion", default="magnitude", show_default=True, help="See `tfprune list criteria`.")
@click.option(
    "--scope", default="layer", show_default=True, help="layer: a share of every layer; global: one ranking over all."
)
@click.option(
    "--multiple-of",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Round channel counts to a multiple of this where possible.",
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Layers that keep all channels (* and ?).")
@SIZE
@click.option("--dry-run", is_flag=True, help="Print what would go, and write nothing.")
@click.option("--out", type=FILE, help="The .keras to write; default: MODEL's name with _shrunk.")
@TRUST
def shrink(
    model: Path,
    ratio: float | None,
    budget: str | None,
    scheme: str,
    plan_file: Path | None,
    criterion: str,
    scope: str,
    multiple_of: int,
    exclude: tuple[str, ...],
    size: tuple[int, int] | None,
    dry_run: bool,
    out: Path | None,
    trust: bool,
) -> None:
    """Remove channels from a Keras MODEL, without training.

    Writes the smaller model, checked against the masked original, and the plan
    as JSON beside it. Fine-tune it afterwards: accuracy drops at first.

    How much goes is a ratio, a plan, or what a budget asks for: bounds on macs,
    parameters, file_bytes, gzip_bytes, activation_bytes, arena_bytes (of TFLite
    Micro) and latency_ms (on this machine), in k, M, G, KiB, MiB, ms, or x, a
    share of MODEL's.
    """
    from tfprune.architectures.files import load_model
    from tfprune.channels import Plan, Selection, apply_plan, plan_channels, remove_channels
    from tfprune.errors import InputError, look_up
    from tfprune.export import SCHEMES
    from tfprune.records import atomic_path
    from tfprune.run.measures import activation_value_bytes, build_measures

    if sum(given is not None for given in (ratio, budget, plan_file)) != 1:
        raise InputError('give one of --ratio FRACTION, --budget "file_bytes<=200KiB, macs<=0.5x" and --plan FILE')
    if plan_file:
        chosen = ("criterion", "scope", "multiple_of", "exclude", "scheme", "size")
        refuse_options(chosen, "the plan already says what goes; edit it, or make a new one with --ratio or --budget")
    if ratio is not None:
        refuse_options(("scheme",), "it says in which number format a --budget is measured, and no --budget is given")
    look_up("scheme", scheme, SCHEMES, "--scheme")
    options = {"scope": scope, "multiple_of": multiple_of, "exclude": exclude}
    selection = Selection(budget=budget, **options) if budget is not None else Selection(ratio=ratio, **options)
    costs = {
        "measures": build_measures(scheme, input_size=size),
        "value_bytes": activation_value_bytes(scheme),
        "input_size": size,
    }
    loaded = load_model(model, trust=trust)
    if budget is not None or size is not None:
        picture_size(model, loaded, size)
    if dry_run:
        plan = Plan.load(plan_file) if plan_file else plan_channels(loaded, selection, criterion=criterion, **costs)
        click.echo(str(plan))
        return
    if plan_file:
        removal = apply_plan(loaded, Plan.load(plan_file))
    else:
        removal = remove_channels(loaded, selection, criterion=criterion, **costs)
    click.echo(str(removal.plan))
    written = out or model.with_name(f"{model.stem}_shrunk.keras")
    with atomic_path(written) as temporary:
        removal.model.save(temporary)
    removal.plan.save(written.with_suffix(".plan.json"))
    before, after = loaded.count_params(), removal.model.count_params()
    click.echo(f"{written}: {before:,} -> {after:,} parameters")
    click.echo(f"outputs differ from the masked original by {removal.equality.difference:.1e} of their scale")
