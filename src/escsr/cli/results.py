"""What became of each input, for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from escsr.upscaling.files import UpscaleReport

Size = tuple[int, int]
"""Width and height in pixels."""

Status = Literal["done", "planned", "skipped", "failed", "interrupted"]
"""``planned``: a dry run would do it; ``skipped``: nothing to do, which is a success;
``interrupted``: the run was ended before this file was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What became of one input."""

    input: Path
    """The input, or what was typed where no file was found."""

    status: Status
    """What became of it."""

    output: Path | None = None
    """Where the result is, or would have been."""

    error: str | None = None
    """Why it failed."""

    note: str | None = None
    """What the user would not expect, such as another format."""

    input_size: Size | None = None
    """Of the input as it is seen, with its orientation applied."""

    output_size: Size | None = None
    """Of the result."""

    seconds: float | None = None
    """Time that this file took."""

    report: UpscaleReport | None = None
    """How it was done, where it was."""


def results_as_json(results: Sequence[FileResult]) -> str:
    """One JSON list with an object per input; its keys are promised to programs.

    Only ASCII is written: a file name that is no text survives as an escape.
    """
    return json.dumps([_as_dict(result) for result in results], indent=2)


def _as_dict(result: FileResult) -> dict[str, str | int | float | None]:
    input_width, input_height = result.input_size or (None, None)
    output_width, output_height = result.output_size or (None, None)
    report = result.report
    return {
        "input": str(result.input),
        "output": None if result.output is None else str(result.output),
        "status": result.status,
        "error": result.error,
        "note": result.note,
        "input_width": input_width,
        "input_height": input_height,
        "output_width": output_width,
        "output_height": output_height,
        "seconds": None if result.seconds is None else round(result.seconds, 3),
        "model": None if report is None else report.model,
        "device": None if report is None else report.device,
        "precision": None if report is None else report.precision,
        "num_tiles": None if report is None else report.num_tiles,
        "exact": None if report is None else report.is_exact,
    }
