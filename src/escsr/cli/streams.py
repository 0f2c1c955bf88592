"""Standard input, output and error: closed or broken ones end no run, and images pass through."""

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from escsr.errors import ConfigurationError, ImageReadError, ImageWriteError
from escsr.images.formats import FORMATS, recognise

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
