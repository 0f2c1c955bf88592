"""The folder of results: written whole, and never over what is not ours."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from escsr.errors import ImageWriteError, OutputExistsError
from escsr.evaluation.crops import Crop, crop_picture
from escsr.evaluation.records import Comparison
from escsr.evaluation.report import JSON_FORMAT, as_csv, as_json, report_as_dict
from escsr.evaluation.report_markdown import as_markdown
from escsr.evaluation.result_files import not_writable
from escsr.images.writer import write_image
from escsr.temporary_files import replace_file

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
        is_free = overwrite or not any(folder.iterdir()) or _earlier_results(folder) is not None
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


def _earlier_results(folder: Path) -> dict[str, Any] | None:
    """What ``results.json`` holds, if it is ours."""
    try:
        content: object = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    report = cast("dict[str, Any]", content)
    return report if report.get("format") == JSON_FORMAT else None


def _remove_earlier_pictures(folder: Path) -> None:
    for entry in (_earlier_results(folder) or {}).get("crops", ()):
        # Only the last part of what the file says, so that no other folder is reached.
        (folder / CROPS_NAME / Path(str(entry["file"])).name).unlink(missing_ok=True)


def _replace_text(path: Path, text: str) -> None:
    replace_file(path, text.encode("utf-8", errors="backslashreplace"))
