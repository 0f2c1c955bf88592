"""Write a comparison: JSON and CSV for programs, tables and Markdown to read, and their folder."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from escsr.errors import ImageWriteError, OutputExistsError
from escsr.evaluation.comparison import Comparison
from escsr.evaluation.contenders import Contender, Padding
from escsr.evaluation.crops import Crop, crop_picture
from escsr.evaluation.environment import describe_software, device_name
from escsr.evaluation.metrics import Column, SetMetric
from escsr.evaluation.protocol import PROTOCOL
from escsr.evaluation.test_sets import TestSet, hash_files
from escsr.images.writer import write_image
from escsr.machine import usable_cores
from escsr.temporary_files import replace_file

JSON_FORMAT = "escsr evaluate 1"
"""By which our own results are recognised."""


def report_as_dict(
    comparison: Comparison, *, crops: Sequence[tuple[str, Crop]] = ()
) -> dict[str, Any]:
    """Everything, as plain JSON values; its keys are promised to programs.

    Args:
        comparison: what to tell.
        crops: the pictures' file names, and what they show.
    Returns:
        Infinite figures are the text "Infinity"; those that there are not are None.
    """
    conditions, torch = comparison.conditions, sys.modules.get("torch")
    return {
        "format": JSON_FORMAT,
        **describe_software(),
        "device": device_name(conditions.device),
        "precision": "float32",
        "threads": usable_cores() if torch is None else torch.get_num_threads(),
        "scale": conditions.scale,
        "padding": conditions.padding,
        "self_ensemble": conditions.self_ensemble,
        "protocol": PROTOCOL,
        "metrics": [_metric_entry(column) for column in conditions.columns],
        "models": [_model_entry(contender, comparison) for contender in comparison.contenders],
        "test_sets": [_test_set_entry(test_set) for test_set in comparison.test_sets],
        "images": [
            {"model": score.model, "test_set": score.test_set, "image": score.image}
            | {m.key: _json_number(score.values.get(m.key)) for m in conditions.metrics}
            for score in comparison.scores
        ],
        "failures": [
            {"model": f.model, "test_set": f.test_set, "image": f.image}
            | {"metric": f.metric, "error": f.error}
            for f in comparison.failures
        ],
        "crops": [_crop_entry(name, crop) for name, crop in crops],
    }


def as_json(report: dict[str, Any]) -> str:
    """A report as JSON text; only ASCII, so that a file name that is no text survives."""
    return json.dumps(report, indent=2, allow_nan=False)


def as_csv(comparison: Comparison) -> str:
    """One row per contender and image, with all digits; what failed has its error instead.

    A metric that could not judge an image leaves its field empty, and its error stands in the row.
    Figures of whole test sets belong to no row and are left out.
    """
    keys = [metric.key for metric in comparison.conditions.metrics]
    stream = io.StringIO(newline="")
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["model", "test_set", "image", *keys, "error"])
    errors: dict[tuple[str | None, ...], list[str]] = {}
    for failure in comparison.failures:
        if failure.metric is not None:
            place = (failure.model, failure.test_set, failure.image)
            errors.setdefault(place, []).append(f"{failure.metric}: {failure.error}")
    for score in comparison.scores:
        place = (score.model, score.test_set, score.image)
        values = [repr(score.values[key]) if key in score.values else "" for key in keys]
        rows.writerow([*place, *values, "; ".join(errors.pop(place, []))])
    for failure in comparison.failures:
        if failure.metric is None:
            place = (failure.model, failure.test_set, failure.image)
            rows.writerow([*(name or "" for name in place), *[""] * len(keys), failure.error])
    for place, told in errors.items():
        rows.writerow([*(name or "" for name in place), *[""] * len(keys), "; ".join(told)])
    return stream.getvalue()


def _metric_entry(column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "name": column.title,
        "per": "test set" if isinstance(column, SetMetric) else "image",
        "higher_is_better": column.higher_is_better,
        "note": column.note,
    }


def _crop_entry(file: str, crop: Crop) -> dict[str, Any]:
    return {
        "file": file,
        "test_set": crop.test_set,
        "image": crop.image,
        "left": crop.left,
        "top": crop.top,
        "difference": crop.difference,
        "psnr_y_db": {panel.label: _json_number(panel.psnr_y_db) for panel in crop.panels[1:]},
    }


def _model_entry(contender: Contender, comparison: Comparison) -> dict[str, Any]:
    conditions = comparison.conditions
    return {
        "name": contender.label,
        "source": contender.source,
        "architecture": contender.architecture,
        "backend": comparison.backend_of(contender),
        "parameters": contender.parameters,
        "licence": contender.licence,
        "sha256": contender.sha256,
        "padded_to_multiple_of": contender.padding_multiple(conditions.padding),
        "means": {
            test_set.name: _means_entry(contender.label, test_set.name, comparison)
            for test_set in comparison.test_sets
        },
    }


def _means_entry(model: str, test_set: str, comparison: Comparison) -> dict[str, Any]:
    columns = comparison.conditions.columns
    return {
        "images": len(comparison.scores_of(model, test_set)),
        "images_per_metric": {c.key: comparison.count(model, test_set, c) for c in columns},
        **{c.key: _json_number(comparison.figure(model, test_set, c)) for c in columns},
    }


def _test_set_entry(test_set: TestSet) -> dict[str, Any]:
    lr_paths = [pair.lr_path for pair in test_set.pairs if pair.lr_path is not None]
    return {
        "name": test_set.name,
        "folder": str(test_set.folder),
        "images": len(test_set.pairs),
        "lr_from_files": len(lr_paths),
        "lr_made": len(test_set.pairs) - len(lr_paths),
        "notes": list(test_set.notes),
        "hr_sha256": hash_files(pair.hr_path for pair in test_set.pairs),
        "lr_sha256": hash_files(lr_paths) if lr_paths else None,
    }


def _json_number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    # JSON has no infinity; float() of this text gives it back, in Python and in JavaScript.
    return str(value).replace("inf", "Infinity")


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


JSON_NAME = "results.json"
CROPS_NAME = "crops"


def prepare_report_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Find out before the work whether its results may be stored, and make the folder.

    Args:
        folder: new, empty, or holding earlier results of ours.
        overwrite: allow any folder; only files of the same names are replaced then.
    Raises:
        OutputExistsError: it holds something else.
        ImageWriteError: it cannot be made, or is closed to us.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_free = (
            overwrite
            or not any(folder.iterdir())
            or bool(earlier_results(folder / JSON_NAME, JSON_FORMAT))
        )
    except OSError as error:
        raise not_writable(folder, error) from error
    if not is_free:
        raise OutputExistsError(
            f"{folder} is not empty, and holds no earlier results of escsr evaluate. Choose "
            "another folder, or allow overwriting."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageWriteError(f"The folder {folder} may not be written to; choose another.")


def write_report(folder: Path, comparison: Comparison, crops: Sequence[Crop]) -> dict[str, Any]:
    """Write ``results.md``, ``results.csv``, ``results.json`` and ``crops/*.png``.

    Each file is complete or not there; ``results.json`` comes last. Pictures of earlier results
    are removed.

    Args:
        folder: from ``prepare_report_folder``.
        comparison: what to tell.
        crops: what to show, in this order.
    Returns:
        What ``results.json`` holds.
    Raises:
        ImageWriteError: the disk is full, or a file is closed to us.
    """
    named = [
        (f"{CROPS_NAME}/{number:02}-{crop.file_stem}.png", crop)
        for number, crop in enumerate(crops, start=1)
    ]
    report = report_as_dict(comparison, crops=named)
    try:
        _remove_earlier_pictures(folder)
        if named:
            (folder / CROPS_NAME).mkdir(exist_ok=True)
        for name, crop in named:
            write_image(folder / name, crop_picture(crop), overwrite=True)
        _replace_text(folder / "results.csv", as_csv(comparison))
        _replace_text(folder / "results.md", as_markdown(comparison, report))
        _replace_text(folder / JSON_NAME, as_json(report) + "\n")
    except OSError as error:
        raise not_writable(folder, error) from error
    return report


def earlier_results(path: Path, json_format: str) -> dict[str, Any] | None:
    """What a file of results holds, if it is there and of our own format."""
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    report = cast("dict[str, Any]", content)
    return report if report.get("format") == json_format else None


def _remove_earlier_pictures(folder: Path) -> None:
    for entry in (earlier_results(folder / JSON_NAME, JSON_FORMAT) or {}).get("crops", ()):
        # Only the last part of what the file says, so that no other folder is reached.
        (folder / CROPS_NAME / Path(str(entry["file"])).name).unlink(missing_ok=True)


def _replace_text(path: Path, text: str) -> None:
    replace_file(path, text.encode("utf-8", errors="backslashreplace"))


def not_writable(folder: Path, error: OSError) -> ImageWriteError:
    """What to raise where results cannot be stored."""
    return ImageWriteError(
        f"The results cannot be written to {folder}: {error.strerror or error}. Free space, or "
        "choose another folder."
    )
