"""The app: its commands, and the options that need none."""

import sys
from typing import Annotated

import typer

from escsr.cli.analyze import analyze_command
from escsr.cli.benchmark import benchmark_command
from escsr.cli.console import (
    CommandGroup,
    VerboseOption,
    open_missing_streams,
    show_log,
    show_warnings,
)
from escsr.cli.evaluate import evaluate_command
from escsr.cli.inspect import inspect_command
from escsr.cli.models import models_command
from escsr.cli.train import train_command
from escsr.cli.upscale import UPSCALE_HELP, upscale_command
from escsr.version import __version__

# Help without rich, whose import alone takes as long as everything else.
app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale", help=UPSCALE_HELP)(upscale_command)
app.command("inspect")(inspect_command)
app.command("models")(models_command)
app.command("evaluate")(evaluate_command)
app.command("benchmark")(benchmark_command)
app.command("train")(train_command)
app.command("analyze")(analyze_command)


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown with escapes; it ends nothing.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    show_warnings()
    # We open globs ourselves, so that a file named "a[1].png" is found on Windows too.
    app(prog_name="escsr", windows_expand_args=False)


def _show_version(asked: bool) -> None:
    if not asked:
        return
    typer.echo(f"escsr {__version__}")
    raise typer.Exit


@app.callback()
def root_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Make images larger with ESC networks; the trained weights are in the box."""
    if verbose:
        show_log()
