"""The results of an analysis as JSON and pictures, and the folder that they are written to."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from escsr.analysis.drawing import as_png, require_matplotlib
from escsr.analysis.kernels import (
    DynamicKernels,
    LargeKernels,
    draw_dynamic_kernels,
    draw_large_kernels,
)
from escsr.analysis.pictures import Picture
from escsr.analysis.reach import (
    LocalAttribution,
    ReceptiveField,
    draw_attribution,
    draw_receptive_field,
)
from escsr.analysis.records import Skipped
from escsr.analysis.run import Analysis, Findings
from escsr.analysis.similarity import Similarity, draw_attention_similarity, draw_feature_similarity
from escsr.analysis.spectrum import Spectra, draw_spectra
from escsr.errors import ImageWriteError, OutputExistsError
from escsr.evaluation.environment import describe_software, device_name
from escsr.evaluation.report import earlier_results, not_writable
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
        is_free = is_free or bool(earlier_results(folder / JSON_NAME, JSON_FORMAT))
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
        if earlier_results(folder / JSON_NAME, JSON_FORMAT):
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


JSON_FORMAT = "escsr analyze 1"
"""By which our own results are recognised."""


def analysis_as_dict(analysis: Analysis, *, files: list[str] | None = None) -> dict[str, Any]:
    """Everything, as plain JSON values; its keys are promised to programs.

    Args:
        analysis: what to tell.
        files: the names of the pictures that were drawn of it.
    Returns:
        What was not asked is None, what makes no sense is ``{"skipped": why}``.
    """
    settings, first = analysis.settings, analysis.pictures[0]
    return {
        "format": JSON_FORMAT,
        **describe_software(),
        "device": device_name(str(settings.device)),
        "parts": list(settings.parts),
        "crop_pixels": analysis.crop_pixels,
        "attribution_of": {
            "image": str(first.path),
            "x": first.left + settings.patch.x,
            "y": first.top + settings.patch.y,
            "side": settings.patch.side,
        },
        "images": [_picture_entry(picture) for picture in analysis.pictures],
        "models": [_model_entry(findings) for findings in analysis.findings],
        "pictures": files or [],
    }


def as_json(report: dict[str, Any]) -> str:
    """A report as JSON text, only ASCII; lists of numbers take one line each."""
    text = json.dumps(report, indent=1, allow_nan=False)
    return _joined_lists(text)


def skipped_lines(analysis: Analysis) -> list[str]:
    """What was asked and makes no sense, one line each: network, question, reason."""
    return [
        f"{findings.contender.label}, {question}: {answer.reason}"
        for findings in analysis.findings
        for _, field, question in _QUESTIONS
        if isinstance(answer := getattr(findings, field), Skipped)
    ]


_QUESTIONS = (
    ("feature_similarity", "features", "similarity of features"),
    ("attention_similarity", "attention", "similarity of attention maps"),
    ("receptive_field", "field", "receptive field"),
    ("attribution", "attribution", "attribution"),
    ("large_kernel", "large_kernel", "large kernel"),
    ("dynamic_kernels", "dynamic_kernel", "dynamic kernels"),
    ("spectrum", "spectrum", "spectrum"),
)
"""Key of the report, field of ``Findings``, and words."""


def _picture_entry(picture: Picture) -> dict[str, Any]:
    height, width = picture.image.shape[-2:]
    return {
        "path": str(picture.path),
        "width": picture.width,
        "height": picture.height,
        "crop": {"left": picture.left, "top": picture.top, "width": width, "height": height},
    }


def _model_entry(findings: Findings) -> dict[str, Any]:
    contender = findings.contender
    answers = {key: getattr(findings, field) for key, field, _ in _QUESTIONS}
    return {
        "name": contender.label,
        "source": contender.source,
        "architecture": contender.architecture,
        "scale": contender.scale,
        "parameters": contender.parameters,
        "sha256": contender.sha256,
        **{key: answer and answer.as_dict() for key, answer in answers.items()},
    }


def _joined_lists(text: str) -> str:
    """Write each innermost list in one line; a matrix is then one line per row."""
    lines: list[str] = []
    pending: list[str] = []
    for line in text.splitlines():
        if line.endswith("["):
            lines += pending
            pending = [line]
        elif pending and line.strip() in ("]", "],"):
            lines.append(pending[0] + " ".join(p.strip() for p in pending[1:]) + line.strip())
            pending = []
        elif pending and line.rstrip(",").endswith(("{", "}")):
            lines += [*pending, line]
            pending = []
        elif pending:
            pending.append(line)
        else:
            lines.append(line)
    return "\n".join([*lines, *pending])


_DRAWINGS: dict[str, Callable[[Analysis], Any]] = {
    "feature-similarity.png": lambda analysis: draw_feature_similarity(
        analysis.found("features", Similarity)
    ),
    "attention-similarity.png": lambda analysis: draw_attention_similarity(
        analysis.found("attention", Similarity)
    ),
    "receptive-field.png": lambda analysis: draw_receptive_field(
        analysis.found("field", ReceptiveField)
    ),
    "attribution.png": lambda analysis: draw_attribution(
        analysis.found("attribution", LocalAttribution),
        analysis.pictures[0],
        analysis.settings.patch,
    ),
    "large-kernel.png": lambda analysis: draw_large_kernels(
        analysis.found("large_kernel", LargeKernels)
    ),
    "dynamic-kernels.png": lambda analysis: draw_dynamic_kernels(
        analysis.found("dynamic_kernel", DynamicKernels)
    ),
    "spectrum.png": lambda analysis: draw_spectra(analysis.found("spectrum", Spectra)),
}
PICTURE_NAMES = tuple(_DRAWINGS)


def draw_all(analysis: Analysis) -> Iterator[tuple[str, bytes]]:
    """Draw every picture that there is something for: its file's name, and the PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    for name, draw in _DRAWINGS.items():
        figure = draw(analysis)
        if figure is not None:
            yield name, as_png(figure)
