"""Commands about data: data check, data convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tfprune.cli.options import NAMES

_SHOWN_FILES = 20


@click.group()
def data() -> None:
    """Check a folder of pictures and masks, or convert float patches."""


@data.command("check")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--classes", type=NAMES, metavar="NAMES", help="Class names, comma-separated; default: dataset.json.")
@click.option("--ignore-index", type=int, help="Mask id that is neither trained on nor judged.")
@click.option("--split-file", help="JSON with lists of file stems per split, inside DIR.")
@click.option("--group-pattern", metavar="REGEX", help="Its first capture group, in a file's stem, names the group.")
def check(
    folder: Path,
    classes: tuple[str, ...] | None,
    ignore_index: int | None,
    split_file: str | None,
    group_pattern: str | None,
) -> None:
    """Find unreadable, mismatched and leaking files in DIR.

    Prints pairs, sizes and class shares. Exit code 1 when there are findings;
    pictures that look alike across splits are only a warning.
    """
    from tfprune.data import check_folder
    from tfprune.errors import FindingError

    checked = check_folder(
        folder,
        class_names=classes,
        ignore_index=ignore_index,
        split_file=split_file,
        group_pattern=group_pattern,
    )
    _show_splits(checked)
    for title, items in (("warning", checked.warnings), ("finding", checked.findings)):
        for item in items:
            click.echo(f"{title} [{item.kind}] {item}")
            more = [name for name in item.files[1:] if name not in item.message]
            if more:
                shown = ", ".join(more[:_SHOWN_FILES])
                click.echo(f"    also: {shown}" + (" ..." if len(more) > _SHOWN_FILES else ""))
    if checked.findings:
        count = len(checked.findings)
        raise FindingError(f"{folder}: {count} finding{'s' if count > 1 else ''}; fix them before training")
    click.echo(f"{folder}: no findings")


@data.command("convert")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--classes", type=NAMES, metavar="NAMES", default="background,corrosion", show_default=True, help="Class names."
)
@click.option(
    "--group-pattern", metavar="REGEX", help="Its first capture group names what stays in one split; default: well_N."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which groups are held out."
)
def convert(folder: Path, out: Path, classes: tuple[str, ...], group_pattern: str | None, seed: int) -> None:
    """Turn patches of floats in DIR (.npy, .csv) into a set in OUT.

    DIR holds images/*.npy and masks.csv. Every position of a patch is
    scaled by the median and the quartiles of the intact train patches.
    Corrupt patches (with a value below -100) are left out of train and
    become black elsewhere.
    """
    from tfprune.data import open_set
    from tfprune.data.patches import GROUP_PATTERN, convert_patches

    pattern = group_pattern or GROUP_PATTERN
    convert_patches(folder, out, class_names=classes, group_pattern=pattern, seed=seed)
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in open_set(out).splits.items())
    click.echo(f"{out}: {counts}")


def _show_splits(checked: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    splits = Table(box=None, pad_edge=False)
    splits.add_column("split")
    splits.add_column("pairs", justify="right")
    splits.add_column("size, pixels", overflow="fold")
    shares = Table(title="share of pixels per class", title_justify="left", box=None, pad_edge=False)
    shares.add_column("class", overflow="fold")
    for split, summary in checked.splits.items():
        sizes = ", ".join(list(summary.sizes)[:2]) + (" ..." if len(summary.sizes) > 2 else "")
        splits.add_row(split, str(summary.pairs), sizes)
        shares.add_column(split, justify="right", no_wrap=True)
    for name in checked.class_names:
        found = [summary.class_shares[name] for summary in checked.splits.values()]
        shares.add_row(name, *(f"{share:.2%}" if share is not None else "-" for share in found))
    console = Console(highlight=False, markup=False)
    console.print(splits)
    console.print(shares)
