"""The log of the package, shown on stderr when the user asks for it."""

import logging
from typing import Annotated, TypeAlias

import typer

from escsr.cli.exit_status import printable
from escsr.cli.streams import write_line

VerboseOption: TypeAlias = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show the log: device, precision, tiles, and why.")
]


class StderrHandler(logging.Handler):
    """Writes each message to what stderr is at that moment, so that progress bars stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message as one line."""
        write_line(printable(self.format(record)), to_stderr=True)


def show_log() -> None:
    """Show what the package logs: device, precision, tiles, and why."""
    logging.getLogger("escsr").setLevel(logging.DEBUG)
    show_warnings()


def show_warnings() -> None:
    """Show the package's warnings as lines, control characters of file names in them escaped."""
    logger = logging.getLogger("escsr")
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())
