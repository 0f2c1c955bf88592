"""How ``escsr evaluate`` shows itself: a bar on stderr while it works, and a table."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from escsr.cli.exit_status import printable
from escsr.evaluation.comparison import Comparison, Failure
from escsr.evaluation.report import (
    PADDING_IN_WORDS,
    best_of,
    device_name,
    label_with_count,
    metric_notes,
    shown,
)
from escsr.evaluation.test_sets import TestSet


@contextmanager
def progress_shown(num_results: int) -> Iterator[Callable[[str, str, str], None]]:
    """Show a bar where stderr is a terminal.

    Args:
        num_results: how many images are to be judged.
    Yields:
        What to call with contender, test set and image after each of them.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        bar = progress.add_task("reading", total=num_results)

        def on_result(model: str, test_set: str, image: str) -> None:
            description = printable(f"{test_set}, {image}, {model}")
            progress.update(bar, advance=1, description=description)

        yield on_result


def print_comparison(comparison: Comparison) -> None:
    """Write one table per test set to stdout, and under which conditions it holds."""
    console = Console(highlight=False)
    for test_set in comparison.test_sets:
        title = f"{test_set.name} x{comparison.conditions.scale}, {len(test_set.pairs)} images"
        console.print(printable(f"{title} (LR: {test_set.lr_source})"), style="bold", markup=False)
        console.print(_table(comparison, test_set))
    for note in metric_notes(comparison):
        console.print(printable(note), style="dim", markup=False)
    conditions = comparison.conditions
    ensemble = "; self-ensemble x8" if conditions.self_ensemble else ""
    console.print(
        f"PSNR in dB, float32 on {device_name(conditions.device)}{ensemble}; "
        f"{PADDING_IN_WORDS[conditions.padding]}.",
        style="dim",
        markup=False,
    )


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """One line per model and reason, with how many more images it holds for."""
    alike: dict[tuple[str | None, str], list[Failure]] = {}
    for failure in failures:
        alike.setdefault((failure.model, failure.error), []).append(failure)
    return [
        printable(first) + (f" (and {len(others)} more images)" if others else "")
        for first, *others in alike.values()
    ]


def _table(comparison: Comparison, test_set: TestSet) -> Table:
    metrics = comparison.conditions.metrics
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Model", overflow="fold")
    for position, metric in enumerate(metrics):
        table.add_column(metric.title, justify="right", no_wrap=True, style="dim" * (position > 1))
    best = [best_of(comparison, test_set.name, metric) for metric in metrics]
    for contender in comparison.contenders:
        figures = [
            shown(comparison.mean(contender.label, test_set.name, metric), metric)
            for metric in metrics
        ]
        table.add_row(
            Text(printable(label_with_count(comparison, contender, test_set))),
            *(
                Text(figure, style="bold" if figure == known else "")
                for figure, known in zip(figures, best, strict=True)
            ),
        )
    return table
