"""How ``escsr benchmark`` shows itself: a bar on stderr while it works, and tables."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from escsr.cli.console import printable, step_bar
from escsr.evaluation.benchmark.record import Benchmark
from escsr.evaluation.benchmark.report import Change, Changes, network_table, timing_table

_FILE_COLUMNS = 160


@contextmanager
def progress_shown(num_steps: int) -> Iterator[Callable[[str, str], None]]:
    """Show a bar where stderr is a terminal.

    Args:
        num_steps: how often it is called at most.
    Yields:
        What to call before each step with what is done, and with which subject.
    """
    # The first call is before the first step, and completes none.
    with step_bar("starting", total=num_steps - 1, completed=-1) as say:
        yield lambda what, label: say(f"{what}, {label}")


def print_benchmark(benchmark: Benchmark) -> None:
    """Write the tables to stdout, and under which conditions they hold."""
    # Rows stay whole in a file, whatever a terminal would be.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)
    for content in (timing_table(benchmark), network_table(benchmark)):
        table = Table(box=None, padding=(0, 2, 0, 0))
        for position, heading in enumerate(content.headings):
            table.add_column(heading, justify="left" if position == 0 else "right")
        for row in content.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)
        for note in content.notes:
            console.print(printable(note), style="dim", markup=False)


def print_changes(changes: Changes, tolerance: float, *, baseline: str) -> None:
    """Write what changed to stdout, one row per subject."""
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Subject", overflow="fold")
    for heading in ("speed, new / old", "memory, old / new", ""):
        table.add_column(heading, justify="right")
    for change in changes.changes:
        cells = [printable(change.label), _ratio(change.speed), _ratio(change.memory)]
        table.add_row(*map(Text, cells), Text(_verdict(change, tolerance)))
    console.print(table)
    notes = [
        f"Speed is the ratio to {baseline}, whose own stays out of it; below 1 is worse. What "
        f"changed by no more than {tolerance:.0%} is alike; so is a speed whose rounds overlap.",
        *(f"Not measured any more: {label}." for label in changes.missing),
        *(f"Differs: {note}." for note in changes.notes),
    ]
    for note in notes:
        console.print(printable(note), style="dim", markup=False)


def changes_as_json(changes: Changes, tolerance: float) -> str:
    """The same as JSON text."""
    content = asdict(changes)
    for entry, change in zip(content["changes"], changes.changes, strict=True):
        entry["is_regression"] = change.is_regression(tolerance)
    return json.dumps({"tolerance": tolerance, **content}, indent=2)


def _verdict(change: Change, tolerance: float) -> str:
    return "WORSE" if change.is_regression(tolerance) else ""


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
