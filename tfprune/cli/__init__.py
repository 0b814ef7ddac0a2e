"""The command line: `tfprune COMMAND`. Exit codes: 0 done, 1 a finding, 2 wrong input, 3 an internal error."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import click

from tfprune import __version__
from tfprune.cli.data import data
from tfprune.cli.files import export, predict
from tfprune.cli.measuring import bench, verify
from tfprune.cli.models import prune, shrink
from tfprune.cli.runs import demo, list_kind, recipe, report, run
from tfprune.cli.search import search
from tfprune.cli.targets import advise, lint
from tfprune.errors import FindingError, TfpruneError

_INTERRUPTED = 130
_REFUSED_BY_SYSTEM = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)
"""What a file system says of a place that is no place for files, or is full."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="tfprune")
def commands() -> None:
    """Get Keras segmentation networks onto small devices.

    Prune, shrink, quantize, export to TFLite, and see on the exported file
    what was gained and what was lost. Start with: tfprune demo
    """


for command in (
    demo,
    run,
    data,
    prune,
    shrink,
    export,
    verify,
    bench,
    lint,
    advise,
    predict,
    search,
    report,
    recipe,
    list_kind,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except FindingError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except TfpruneError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM:
            click.echo(f"error: {error}; give a place that can be read or written, with room left", err=True)
            sys.exit(2)
        traceback.print_exc()
        click.echo(
            f"internal error ({type(error).__name__}): this is a fault of tfprune, not of your input. "
            "Please report it with the lines above. What was computed is kept in the run folder.",
            err=True,
        )
        sys.exit(3)
