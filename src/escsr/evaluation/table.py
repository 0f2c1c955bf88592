"""The table of one test set, for terminals and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from escsr.evaluation.contenders import Contender, Padding
from escsr.evaluation.metrics import Column
from escsr.evaluation.records import Comparison
from escsr.evaluation.test_sets import TestSet

PADDING_IN_WORDS: dict[Padding, str] = {
    "window": "padding window: LR images are extended by reflection to whole windows and the "
    "result cropped, as by the official tester",
    "none": "padding none: LR images are given as they are",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One cell."""

    text: str
    """A dash where there is none; with how many images it is of where that is not the row's."""
    is_best: bool
    """Of its column, among figures of equally many images, where there are two to compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender."""

    label: str
    """With how many images its figures are of where some are missing."""
    figures: Sequence[Figure]
    """In the order of ``Conditions.columns``."""


def table_rows(comparison: Comparison, test_set: TestSet) -> list[Row]:
    """One row per contender, in their order."""
    columns = comparison.conditions.columns
    best = [_best_of(comparison, test_set.name, column) for column in columns]
    return [
        Row(
            label=_label(comparison, contender, test_set),
            figures=[
                _figure(comparison, contender.label, test_set, column, best=known)
                for column, known in zip(columns, best, strict=True)
            ],
        )
        for contender in comparison.contenders
    ]


def metric_notes(comparison: Comparison) -> list[str]:
    """What must be said of the metrics beside their figures."""
    return [column.note for column in comparison.conditions.columns if column.note]


def backend_in_words(comparison: Comparison) -> str:
    """What follows the device: how networks of ours ran; nothing where there are none."""
    backends = (comparison.backend_of(contender) for contender in comparison.contenders)
    found = next((backend for backend in backends if backend is not None), None)
    return "" if found is None else f", ESC networks with the back-end {found}"


def _label(comparison: Comparison, contender: Contender, test_set: TestSet) -> str:
    judged, total = len(comparison.scores_of(contender.label, test_set.name)), len(test_set.pairs)
    return contender.label if judged == total else f"{contender.label} ({judged} of {total} images)"


def _figure(
    comparison: Comparison, model: str, test_set: TestSet, column: Column, *, best: str | None
) -> Figure:
    value = comparison.figure(model, test_set.name, column)
    if value is None:
        return Figure(text="-", is_best=False)
    text = f"{value:.{column.decimals}f}"
    count = comparison.count(model, test_set.name, column)
    is_best = text == best and count == _most_images(comparison, test_set.name, column)
    if count != len(comparison.scores_of(model, test_set.name)):
        text += f" ({count} of {len(test_set.pairs)})"
    return Figure(text=text, is_best=is_best)


def _best_of(comparison: Comparison, test_set: str, column: Column) -> str | None:
    """The best figure of a column as it is shown; None where fewer than two can be compared."""
    most = _most_images(comparison, test_set, column)
    labels = [contender.label for contender in comparison.contenders]
    figures = [
        comparison.figure(label, test_set, column)
        for label in labels
        if comparison.count(label, test_set, column) == most
    ]
    known = [figure for figure in figures if figure is not None]
    if len(known) < 2:
        return None
    return f"{max(known) if column.higher_is_better else min(known):.{column.decimals}f}"


def _most_images(comparison: Comparison, test_set: str, column: Column) -> int:
    labels = [contender.label for contender in comparison.contenders]
    return max(comparison.count(label, test_set, column) for label in labels)
