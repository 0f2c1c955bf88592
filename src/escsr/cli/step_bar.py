"""A bar of steps on stderr, for commands whose work is not files to write."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from escsr.cli.exit_status import printable


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
