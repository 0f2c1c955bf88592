"""How ``escsr evaluate`` shows itself: a bar on stderr while it works, and a table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from escsr.cli.console import printable, step_bar
from escsr.evaluation.comparison import Comparison, Failure
from escsr.evaluation.report import (
    PADDING_IN_WORDS,
    backend_in_words,
    device_name,
    metric_notes,
    table_rows,
)
from escsr.evaluation.test_sets import TestSet


@contextmanager
def progress_shown(num_results: int) -> Iterator[Callable[[str, str, str], None]]:
    """Show a bar where stderr is a terminal.

    Args:
        num_results: how many images and test sets are to be judged.
    Yields:
        What to call with contender, test set, and image or metric after each of them.
    """
    with step_bar("reading", total=num_results) as say:
        yield lambda model, test_set, image: say(f"{test_set}, {image}, {model}")


def print_comparison(comparison: Comparison) -> None:
    """Write one table per test set to stdout, and under which conditions it holds."""
    console = Console(highlight=False)
    for test_set in comparison.test_sets:
        title = f"{test_set.name} x{comparison.conditions.scale}, {len(test_set.pairs)} images"
        console.print(printable(f"{title} (LR: {test_set.lr_source})"), style="bold", markup=False)
        console.print(_table(comparison, test_set))
        for note in test_set.notes:
            console.print(printable(f"Note: {note}"), markup=False)
    for note in metric_notes(comparison):
        console.print(printable(note), style="dim", markup=False)
    conditions = comparison.conditions
    ensemble = "; self-ensemble x8" if conditions.self_ensemble else ""
    backend = backend_in_words(comparison)
    padding = PADDING_IN_WORDS[conditions.padding]
    for line in (
        f"PSNR in dB, float32 on {device_name(conditions.device)}{backend}{ensemble}.",
        f"{padding[0].upper()}{padding[1:]}.",
    ):
        console.print(line, style="dim", markup=False)


def note_lines(test_sets: Sequence[TestSet]) -> list[str]:
    """One line per note: what must be known of LR images before figures are read."""
    return [printable(f"{one.name} (LR): {note}") for one in test_sets for note in one.notes]


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """One line per model and reason, with how many more images or test sets it holds for."""
    alike: dict[tuple[str | None, ...], list[Failure]] = {}
    for failure in failures:
        reason = (failure.model, failure.metric, failure.error)
        alike.setdefault(reason, []).append(failure)
    lines: list[str] = []
    for first, *others in alike.values():
        kind = "test sets" if first.image is None else "images"
        lines.append(printable(first) + (f" (and {len(others)} more {kind})" if others else ""))
    return lines


def _table(comparison: Comparison, test_set: TestSet) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Model", overflow="fold")
    for position, column in enumerate(comparison.conditions.columns):
        table.add_column(column.title, justify="right", no_wrap=True, style="dim" * (position > 1))
    for row in table_rows(comparison, test_set):
        cells = [Text(f.text, style="bold" if f.is_best else "") for f in row.figures]
        table.add_row(Text(printable(row.label)), *cells)
    return table
