"""The folder of an analysis: never over what is not ours, and never over an input."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from escsr.analysis.figures import PICTURE_NAMES, draw_all, require_matplotlib
from escsr.analysis.report import JSON_FORMAT, analysis_as_dict, as_json
from escsr.analysis.run import Analysis
from escsr.errors import ImageWriteError, OutputExistsError
from escsr.evaluation.result_files import not_writable
from escsr.temporary_files import replace_file

JSON_NAME = "analysis.json"


def require_folder(folder: Path, inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Find out before the work whether its results may be stored; makes nothing.

    Args:
        folder: new, empty, or holding earlier results of ours.
        inputs: files that are read; none of them may be replaced, whatever was allowed.
        overwrite: allow any folder; only files of the same names are replaced then.
    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputExistsError: it holds something else, or an input under a name of ours.
        ImageWriteError: it is a file, or it, or the folder that it would be in, is closed to us.
    """
    require_matplotlib()
    targets = {os.path.realpath(folder / name) for name in (*PICTURE_NAMES, JSON_NAME)}
    taken = next((path for path in inputs if os.path.realpath(path) in targets), None)
    if taken is not None:
        raise OutputExistsError(
            f"{taken} is an input, and the results would replace it; choose another --out folder."
        )
    try:
        is_new = not folder.exists()
        is_free = overwrite or is_new or not any(folder.iterdir())
        is_free = is_free or _holds_earlier_results(folder)
    except OSError as error:
        raise not_writable(folder, error) from error
    if not is_free:
        raise OutputExistsError(
            f"{folder} is not empty, and holds no earlier results of escsr analyze. Choose "
            "another folder with --out, or allow --overwrite."
        )
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ImageWriteError(
            f"The results cannot be written to {folder}: {nearest} is no folder that may be "
            "written to. Choose another."
        )


def write_analysis(folder: Path, analysis: Analysis) -> dict[str, Any]:
    """Write the pictures and ``analysis.json``, which comes last.

    Each file is complete or not there; pictures of earlier results are removed.

    Args:
        folder: as ``require_folder`` allowed it; made if absent.
        analysis: what to tell.
    Returns:
        What ``analysis.json`` holds.
    Raises:
        ImageWriteError: the disk is full, or a file is closed to us.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _holds_earlier_results(folder):
            for name in PICTURE_NAMES:
                (folder / name).unlink(missing_ok=True)
        names: list[str] = []
        for name, content in draw_all(analysis):
            replace_file(folder / name, content)
            names.append(name)
        report = analysis_as_dict(analysis, files=names)
        replace_file(folder / JSON_NAME, (as_json(report) + "\n").encode())
    except OSError as error:
        raise not_writable(folder, error) from error
    return report


def _holds_earlier_results(folder: Path) -> bool:
    try:
        content: object = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == JSON_FORMAT
