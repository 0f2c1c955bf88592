"""What the program's exit status says, and how an error becomes one."""

import re

import typer
from typer.core import TyperGroup

from escsr.cli.interruption import interrupted_status
from escsr.errors import ConfigurationError, EscsrError
from escsr.machine import is_out_of_memory, out_of_memory_text

ALL_DONE = 0
SOME_FAILED = 1
USAGE = 2

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class CommandGroup(TyperGroup):
    """The commands, of which any error of escsr is told in one line, without a traceback."""

    def invoke(self, ctx: typer.Context) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the command; an error of escsr gives one line on stderr and its exit status."""
        try:
            return super().invoke(ctx)
        except EscsrError as error:
            typer.echo(f"Error: {printable(error)}", err=True)
            raise typer.Exit(status_of(error)) from error
        except KeyboardInterrupt as interruption:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(interrupted_status(interruption)) from interruption
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            typer.echo(f"Error: {printable(out_of_memory_text(error))}", err=True)
            raise typer.Exit(SOME_FAILED) from error


def status_of(error: EscsrError) -> int:
    """The exit status when this error ends the program: wrong options, or work that failed."""
    return USAGE if isinstance(error, ConfigurationError) else SOME_FAILED


def printable(thing: object) -> str:
    """The text of a path or an error in one line, with what no terminal can show as escapes."""
    text = str(thing).encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
