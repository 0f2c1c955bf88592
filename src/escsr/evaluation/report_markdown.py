"""What a comparison says, as a page to read."""

from collections.abc import Sequence
from typing import Any

from escsr.evaluation.contenders import Padding
from escsr.evaluation.protocol import PROTOCOL
from escsr.evaluation.records import Comparison
from escsr.evaluation.table import (
    PADDING_IN_WORDS,
    backend_in_words,
    metric_notes,
    table_rows,
)
from escsr.evaluation.test_sets import TestSet


def as_markdown(comparison: Comparison, report: dict[str, Any]) -> str:
    """A page to read: tables, conditions, origin of every file, failures, pictures.

    Args:
        comparison: what to tell.
        report: the same from ``report_as_dict``.
    """
    parts = [
        f"# Results at x{report['scale']}",
        *(_set_table(comparison, test_set) for test_set in comparison.test_sets),
        " ".join(["PSNR in dB; the best of each column is bold.", *metric_notes(comparison)]),
        _conditions(report, backend_in_words(comparison)),
        _models(report),
        _test_sets(report),
    ]
    if report["failures"]:
        lines = [f"- {failure}" for failure in comparison.failures]
        parts.append("## What failed\n\n" + "\n".join(map(_one_line, lines)))
    if report["crops"]:
        pictures = [_picture(entry) for entry in report["crops"]]
        parts.append("## Where networks differ most\n\n" + "\n\n".join(pictures))
    return "\n\n".join(parts) + "\n"


def _set_table(comparison: Comparison, test_set: TestSet) -> str:
    columns = comparison.conditions.columns
    rows = [["Model", *(column.title for column in columns)], ["---", *["---:"] * len(columns)]]
    for row in table_rows(comparison, test_set):
        cells = [f"**{figure.text}**" if figure.is_best else figure.text for figure in row.figures]
        rows.append([row.label, *cells])
    count = f"{len(test_set.pairs)} images; LR: {test_set.lr_source}"
    notes = "".join(f"\n\nNote: {_one_line(note)}" for note in test_set.notes)
    return f"## {test_set.name}\n\n{count}.{notes}\n\n" + markdown_table(rows)


def _conditions(report: dict[str, Any], backend: str) -> str:
    ensemble = "self-ensemble x8" if report["self_ensemble"] else "no self-ensemble"
    padding: Padding = report["padding"]
    torch = f", torch {report['torch']}" if report["torch"] else ""
    return (
        f"## How it was measured\n\n{PROTOCOL}\n\nConditions: {PADDING_IN_WORDS[padding]}; "
        f"{ensemble}; {report['precision']} on {report['device']}{backend}. escsr "
        f"{report['escsr']}{torch}, Python {report['python']}, {report['date']}."
    )


def _models(report: dict[str, Any]) -> str:
    head = ["Model", "Source", "Architecture", "Parameters", "Padded to", "Licence", "SHA-256"]
    rows = [head, ["---"] * len(head)]
    for entry in report["models"]:
        multiple = entry["padded_to_multiple_of"]
        rows.append(
            [
                entry["name"],
                entry["source"],
                entry["architecture"],
                f"{entry['parameters']:,}",
                f"multiples of {multiple}" if multiple > 1 else "-",
                entry["licence"] or ("not stated" if entry["parameters"] else "-"),
                f"`{entry['sha256']}`" if entry["sha256"] else "-",
            ]
        )
    return "## Models\n\n" + markdown_table(rows)


def _test_sets(report: dict[str, Any]) -> str:
    rows = [["Test set", "Images", "SHA-256 over HR", "SHA-256 over LR"], ["---"] * 4]
    for entry in report["test_sets"]:
        lr_hash = f"`{entry['lr_sha256']}`" if entry["lr_sha256"] else "-"
        rows.append([entry["name"], str(entry["images"]), f"`{entry['hr_sha256']}`", lr_hash])
    return "## Test sets\n\n" + markdown_table(rows)


def _picture(entry: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{label} {float(psnr_db):.2f}" for label, psnr_db in entry["psnr_y_db"].items()
    )
    caption = f"{entry['test_set']}, {entry['image']}: PSNR-Y of the crop in dB: {figures}."
    return f"![{_one_line(caption)}]({entry['file']})\n\n{_one_line(caption)}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, of which the first are headings and the second say how to align, as Markdown."""
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())
