"""What all commands share: text for the terminal, exit statuses, streams, the log, interruption."""

import contextlib
import errno
import gc
import logging
import os
import re
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, BinaryIO, TextIO, TypeAlias, cast

import typer
from typer.core import TyperGroup

from escsr.errors import ConfigurationError, EscsrError, ImageReadError, ImageWriteError
from escsr.images.formats import FORMATS, recognise
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
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            command = f"escsr {ctx.invoked_subcommand}" if ctx.invoked_subcommand else "This"
            message = f"{command} needs torch: pip install 'escsr[torch]'"
            typer.echo(f"Error: {message}", err=True)
            raise typer.Exit(SOME_FAILED) from error
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


STANDARD_STREAM = "-"
"""Names standard input among the inputs, and standard output as the output."""

_OPENING_BYTES = 1 << 12
_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def open_missing_streams() -> None:
    """Put the null device in the place of standard streams that are closed.

    Otherwise the next file that is opened gets their number, and receives what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # so it is where Python found them closed
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))


def write_line(text: str, *, to_stderr: bool = False) -> bool:
    """Write a line; once nobody reads a stream or it cannot be stored, its lines are dropped.

    Returns:
        Whether it was written.
    """
    # print, since typer.echo passes by the stream that rich puts in place of stdout.
    stream = sys.stderr if to_stderr else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        drop_what_is_left(stream)
        return False
    return True


def drop_what_is_left(stream: TextIO) -> None:
    """Lead a stream that failed nowhere; else its buffer ends the program with an error."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_stream(text: str) -> bool:
    """Whether an input is read once from start to end: ``-``, a descriptor or a named pipe."""
    if text == STANDARD_STREAM or text.startswith(_DESCRIPTORS):
        return True
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISFIFO(Path(text).stat().st_mode)
    return False


def receive_image(text: str, folder: Path) -> Path:
    """Copy an image from a pipe into a file, named after its format.

    Args:
        text: what ``is_stream`` accepted.
        folder: an empty one that exists.
    Raises:
        ImageReadError: nothing can be read there, or the file cannot be stored.
    """
    try:
        with _opened(text) as source:
            opening = _opening(source)
            found = recognise(opening[:32])
            suffix = next((f.suffixes[0] for f in FORMATS if f.name == found), "")
            stem = "stdin" if text in (STANDARD_STREAM, "/dev/stdin") else Path(text).stem
            path = folder / f"{stem}{suffix}"
            with path.open("xb") as file:
                file.write(opening)
                if found is not None:  # otherwise it might not end: /dev/zero
                    shutil.copyfileobj(source, file, 1 << 20)
    except OSError as error:
        raise ImageReadError(
            f"{_in_words(text)} cannot be read: {error.strerror or error}. Pipe an image "
            "into the program."
        ) from error
    return path


def check_stdout_takes_images() -> None:
    """Refuse to write an image to a terminal.

    Raises:
        ConfigurationError: standard output is one.
    """
    if sys.stdout.isatty():
        raise ConfigurationError(
            "--output - writes the image to standard output, which is a terminal here; send it to "
            "a file with >, or to a program with |."
        )


def send_image(path: Path) -> None:
    """Write a file to standard output.

    Raises:
        ImageWriteError: nobody reads it to its end, or it cannot be stored.
    """
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()
    except OSError as error:
        drop_what_is_left(sys.stdout)
        raise ImageWriteError(
            f"The image could not be written to standard output: {error.strerror or error}."
        ) from error


@contextlib.contextmanager
def _opened(text: str) -> Iterator[BinaryIO]:
    if text == STANDARD_STREAM:
        if sys.stdin is None or sys.stdin.isatty():
            raise OSError(0, "it is a terminal or closed")
        yield sys.stdin.buffer
        return
    with Path(text).open("rb", buffering=0) as source:
        if source.isatty():
            raise OSError(0, "it is a terminal")
        yield cast(BinaryIO, source)


def _opening(source: BinaryIO) -> bytes:
    data = b""
    while len(data) < _OPENING_BYTES and (part := source.read(_OPENING_BYTES - len(data))):
        data += part
    return data


def _in_words(text: str) -> str:
    return "Standard input" if text == STANDARD_STREAM else text


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


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the program to stop; its number is the argument."""


def interrupted_status(interruption: KeyboardInterrupt) -> int:
    """The exit status as shells have it: 128 and the number of the signal."""
    number = interruption.args[0] if isinstance(interruption, Terminated) else signal.SIGINT
    return 128 + int(number)


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``Terminated``, so that temporary files are removed.

    A signal that is ignored (as under ``nohup``) or already taken care of stays as it is.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in _stop_signals():
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _raise_terminated)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_flag() -> Iterator[Callable[[], int | None]]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise a flag, for work that ends by itself between steps.

    A second one ends the program at once. A signal that is ignored, as under ``nohup``, stays so.

    Yields:
        A function that gives the number of the signal that asked first, None while none did.
    """
    asked: list[int] = []

    def raise_flag(number: int, frame: FrameType | None) -> None:
        if asked:
            _raise_terminated(number, frame)
        asked.append(number)

    previous = {
        number: signal.signal(number, raise_flag)
        for number in (signal.SIGINT, *_stop_signals())
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_signals() -> tuple[signal.Signals, ...]:
    # Windows has no SIGHUP.
    hangup = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
    return (signal.SIGTERM, *hangup)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


@contextmanager
def step_bar(first: str, *, total: int, completed: int = 0) -> Iterator[Callable[[str], None]]:
    """Show a bar where stderr is a terminal.

    Args:
        first: what it says before the first step.
        total: steps.
        completed: where it starts.
    Yields:
        What to call at each step with what to say.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    # rich takes a while to import
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        bar = progress.add_task(first, total=total, completed=completed)
        yield lambda said: progress.update(bar, advance=1, description=printable(said))


@contextmanager
def importing_quickly() -> Iterator[None]:
    """Import without looking for garbage in between, nor among modules later.

    Modules stay until the program ends; but torch makes so many objects that Python, looking
    through them again and again, adds a third to its import (``docs/speed.md``). A program that has
    torch already, such as a test, keeps its garbage in view.
    """
    was_enabled, is_first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if is_first:
            gc.freeze()
        if was_enabled:
            gc.enable()
