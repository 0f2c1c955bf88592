"""The jobs of a run, settled from headers alone, so that no clash is found halfway through."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from escsr.cli.collection import InputFile, path_identity
from escsr.cli.destination import FALLBACK_SUFFIX, Destination
from escsr.cli.exit_status import printable
from escsr.cli.options import Existing
from escsr.cli.results import FileResult, Size, Status
from escsr.errors import EscsrError, ImageFormatError, ImageWriteError
from escsr.images.files import ImageHeader, probe_image
from escsr.images.writer import check_output
from escsr.inference.file_job import UpscaleReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file that will be upscaled."""

    file: InputFile
    """The input."""

    output: Path
    """Where the result goes; its suffix is the format."""

    input_size: Size
    """Of the input, with its orientation applied."""

    output_size: Size
    """Of the result."""

    note: str | None = None
    """What the user would not expect, such as another format."""

    def result(
        self,
        status: Status,
        *,
        error: str | None = None,
        seconds: float | None = None,
        report: UpscaleReport | None = None,
    ) -> FileResult:
        """What became of this job."""
        return FileResult(
            input=self.file.path,
            output=self.output,
            status=status,
            error=error,
            note=self.note,
            input_size=self.input_size,
            output_size=self.output_size,
            seconds=seconds,
            report=report,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRules:
    """What the jobs of a run have in common."""

    destination: Destination
    """Where results go."""

    target_size: Callable[[Size], Size]
    """Size of the result for a size of an input; raises an EscsrError where there is none."""

    scale_label: str | None
    """Names a factor, as ``x4``; None where the size was given in pixels."""

    existing: Existing
    """What happens to a file that already stands where a result would go."""

    max_pixels: int
    """Larger inputs are refused."""


def plan_jobs(files: Sequence[InputFile], rules: PlanRules) -> list[Job | FileResult]:
    """Settle every input: a job to do, or what became of it already.

    Args:
        files: the inputs, each once.
        rules: what the jobs have in common.
    Returns:
        One entry per input, in order. Failed without work: an input that cannot be opened, an
        output that two inputs share, that is an input, or that stands there already.
    """
    planned = [_plan_file(file, rules) for file in files]
    outputs = {path_identity(e.output): e for e in planned if isinstance(e, Job)}
    planned = _settle(planned, lambda job: _earlier_result(job, outputs))
    inputs = {path_identity(entry.file.path) for entry in planned if isinstance(entry, Job)}
    planned = _settle(planned, lambda job: _writes_an_input(job, inputs))
    count = Counter(path_identity(e.output) for e in planned if isinstance(e, Job))
    planned = _settle(planned, lambda job: _shares_output(job, count))
    return _settle(planned, lambda job: _existing_output(job, rules.existing))


def _plan_file(file: InputFile, rules: PlanRules) -> Job | FileResult:
    output = rules.destination.file
    try:
        header = probe_image(file.path, max_pixels=rules.max_pixels)
        input_size = (header.width, header.height)
        output_size = rules.target_size(input_size)
        output, note = _choose_output(file, rules, header, output_size)
    except EscsrError as error:
        return FileResult(input=file.path, output=output, status="failed", error=printable(error))
    return Job(file=file, output=output, input_size=input_size, output_size=output_size, note=note)


def _choose_output(
    file: InputFile, rules: PlanRules, header: ImageHeader, size: Size
) -> tuple[Path, str | None]:
    """The output and a note: PNG instead of the input's format where that cannot hold it."""
    label = rules.scale_label or f"{size[0]}x{size[1]}"
    destination = rules.destination
    suffix = destination.first_choice_suffix(file)
    path = destination.path_for(file, size_label=label, image_suffix=suffix)
    note = None
    try:
        _check_format(path, header, size)
    except ImageFormatError as error:
        if not destination.format_is_free:
            raise
        path = destination.path_for(file, size_label=label, image_suffix=FALLBACK_SUFFIX)
        note = f"written as PNG: {printable(error)}"
    else:
        if destination.format_is_free and suffix != file.path.suffix:
            note = f"written as PNG: escsr does not write {file.path.suffix or 'this format'}"
    return path, note


def _check_format(path: Path, header: ImageHeader, size: Size) -> None:
    width, height = size
    try:
        check_output(
            path,
            width=width,
            height=height,
            channels=header.channels,
            bit_depth=header.bit_depth,
            colour=header.colour,
            overwrite=True,
        )
    except ImageWriteError:
        # Otherwise the folder is made when its first file is. Path.is_dir raises in closed folders.
        if os.path.isdir(path.parent):  # noqa: PTH112
            raise


def _settle(
    planned: Sequence[Job | FileResult], judge: Callable[[Job], FileResult | None]
) -> list[Job | FileResult]:
    return [
        entry if isinstance(entry, FileResult) else (judge(entry) or entry) for entry in planned
    ]


def _earlier_result(job: Job, outputs: dict[str, Job]) -> FileResult | None:
    """A file that was only come across, and that another input of this run is upscaled to."""
    origin = outputs.get(path_identity(job.file.path))
    if origin is None or origin is job or job.file.is_named:
        return None
    return FileResult(
        input=job.file.path,
        status="skipped",
        note=f"the result of {origin.file.path}, from an earlier run",
    )


def _writes_an_input(job: Job, inputs: set[str]) -> FileResult | None:
    identity = path_identity(job.output)
    if identity not in inputs:
        return None
    own = identity == path_identity(job.file.path)
    return job.result(
        "failed",
        error=f"The output {job.output} is {'the' if own else 'another'} input itself; "
        "inputs are never overwritten. Give --suffix or another --output.",
    )


def _shares_output(job: Job, count: Counter[str]) -> FileResult | None:
    num_inputs = count[path_identity(job.output)]
    if num_inputs < 2:
        return None
    return job.result(
        "failed",
        error=f"{num_inputs} inputs would be written to {job.output}; none of them was. Upscale "
        "them one by one with different --suffix or --output.",
    )


def _existing_output(job: Job, existing: Existing) -> FileResult | None:
    if existing == "overwrite" or not os.path.lexists(job.output):
        return None
    if existing == "skip":
        return replace(job, note="it exists already").result("skipped")
    return job.result(
        "failed",
        error=f"The output {job.output} exists already; use --overwrite or --skip-existing.",
    )
