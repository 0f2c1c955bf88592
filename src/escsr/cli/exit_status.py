"""What the program's exit status says, and how an error becomes one."""

import errno
import re
import sys

import typer
from typer.core import TyperGroup

from escsr.cli.interruption import interrupted_status
from escsr.cli.streams import drop_what_is_left
from escsr.errors import ConfigurationError, EscsrError
from escsr.machine import is_out_of_memory, out_of_memory_text

ALL_DONE = 0
SOME_FAILED = 1
USAGE = 2

_STORING_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

_CONTROLS = re.compile(
    # control characters, line and paragraph separators
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029"
    # marks, embeddings, overrides and isolates of direction, which show gpj.exe as exe.jpg
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    # what no font shows: word joiners and invisible operators, byte order mark, annotations, tags
    r"\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class CommandGroup(TyperGroup):
    """The commands, of which any error of escsr is told in one line, without a traceback."""

    def invoke(self, ctx: typer.Context) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the command; an error of escsr gives one line on stderr and its exit status."""
        try:
            return super().invoke(ctx)
        except EscsrError as error:
            typer.echo(f"Error: {printable(error)}", err=True)
            raise typer.Exit(status_of(error)) from error
        except OSError as error:
            # What has a file's name is a defect, and click takes care of readers that went away.
            if error.filename is not None or error.errno not in _STORING_FAILED:
                raise
            drop_what_is_left(sys.stdout)
            typer.echo(f"Error: Standard output failed: {error.strerror}.", err=True)
            raise typer.Exit(SOME_FAILED) from error
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
    """The text of a path or an error in one line, with escapes for what a terminal would obey.

    Text of others (names of files, headers of checkpoints) could else repaint the terminal or turn
    the direction of what follows.
    """
    text = str(thing).encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
