"""How a run shows itself: bars on a terminal, and one line per file everywhere."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from escsr.cli.exit_status import printable
from escsr.cli.plan import Job
from escsr.cli.results import FileResult, Size, Status

WORDS: dict[Status, str] = {
    "done": "done",
    "planned": "to do",
    "skipped": "skipped",
    "failed": "FAILED",
    "interrupted": "not done",
}


class RunView(Protocol):
    """What shows a run while it goes on."""

    def begin(self, job: Job) -> None:
        """A job begins."""
        ...

    def advance(self, fraction: float) -> None:
        """The current job is this far, from 0 to 1."""
        ...

    def end(self, result: FileResult) -> None:
        """An input is settled, with or without a job before."""
        ...


class LineView:
    """One line per input: what failed on stderr, the rest on stdout.

    Args:
        num_inputs: how many there are.
        stdout_is_taken: stdout belongs to JSON; then all lines go to stderr.
    """

    def __init__(self, num_inputs: int, *, stdout_is_taken: bool) -> None:
        self._num_inputs = num_inputs
        self._num_ended = 0
        self._stdout_is_taken = stdout_is_taken

    def begin(self, job: Job) -> None:
        """Lines tell of what is settled; nothing yet."""

    def advance(self, fraction: float) -> None:
        """Lines tell of what is settled; nothing yet."""

    def end(self, result: FileResult) -> None:
        """Write the line of one input."""
        self._num_ended += 1
        count = f"[{self._num_ended}/{self._num_inputs}] " if self._num_inputs > 1 else ""
        to_stderr = self._stdout_is_taken or result.status == "failed"
        # print, since typer.echo passes by the stream that rich puts in place of stdout.
        print(count + result_line(result), file=sys.stderr if to_stderr else sys.stdout, flush=True)


@contextmanager
def shown_run(planned: Sequence[Job | FileResult], *, stdout_is_taken: bool) -> Iterator[RunView]:
    """Show a run: with bars where stderr is a terminal, with lines alone elsewhere."""
    if not sys.stderr.isatty():
        yield LineView(len(planned), stdout_is_taken=stdout_is_taken)
        return
    from escsr.cli.bars import bar_view  # rich takes a while to import

    with bar_view(planned, stdout_is_taken=stdout_is_taken) as view:
        yield view


def result_line(result: FileResult) -> str:
    """What became of one input, in one line."""
    name = printable(result.input)
    if result.status == "failed":
        return f"{name}: FAILED: {printable(result.error)}"
    parts = [WORDS[result.status]]
    if result.input_size and result.output_size:
        parts.append(f"{_by(result.input_size)} -> {_by(result.output_size)}")
    if result.seconds is not None and result.output_size:
        megapixels = num_pixels(result.output_size) / 1e6
        rate = megapixels / max(result.seconds, 1e-9)
        parts.append(f"{result.seconds:.1f} s, {rate:.2f} MP/s")
    if result.note:
        parts.append(result.note)
    target = "" if result.output is None else f" -> {printable(result.output)}"
    return f"{name}{target}: {', '.join(parts)}"


def summary_line(results: Sequence[FileResult]) -> str:
    """How many inputs ended how."""
    count = Counter(result.status for result in results)
    return ", ".join(f"{count[status]} {WORDS[status]}" for status in WORDS if count[status]) + "."


def num_pixels(size: Size) -> int:
    """Pixels of an image of this size."""
    return size[0] * size[1]


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
