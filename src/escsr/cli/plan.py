"""The jobs of a run, settled from headers alone, so that no clash is found halfway through."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from escsr.cli.collection import InputFile, LeftOut, MissingInput, name_identity, path_identity
from escsr.cli.destination import FALLBACK_SUFFIX, Destination
from escsr.cli.exit_status import printable
from escsr.cli.options import Existing
from escsr.cli.results import FileResult, Size, Status
from escsr.cli.streams import STANDARD_STREAM
from escsr.errors import EscsrError, ImageFormatError, ImageWriteError, NothingToEnlargeError
from escsr.images.files import ImageHeader, probe_image
from escsr.images.output_checks import check_names, check_output
from escsr.upscaling.files import UpscaleReport


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

    size_label: str
    """Names the size beside the input, as ``x4`` or ``1920x1080``."""

    to_stdout: bool = False
    """``output`` is copied to standard output when it is done."""

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
            input=self.file.shown,
            output=Path(STANDARD_STREAM) if self.to_stdout else self.output,
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
        output that two inputs share, that is an input, or that stands there already. Skipped: what
        is large enough already, and results of an earlier run.
    """
    planned = [_plan_file(file, rules) for file in files]
    planned = _with_names_of_their_own(planned, rules.destination)
    outputs = {path_identity(e.output): e for e in planned if isinstance(e, Job)}
    planned = _settle(planned, lambda job: _earlier_result(job, outputs, rules))
    sources = _sizes_by_stem(planned)
    planned = _settle(planned, lambda job: _result_of_another_size(job, sources))
    inputs = {path_identity(entry.file.path) for entry in planned if isinstance(entry, Job)}
    planned = _settle(planned, lambda job: _writes_an_input(job, inputs))
    count = Counter(path_identity(e.output) for e in planned if isinstance(e, Job))
    planned = _settle(planned, lambda job: _shares_output(job, count))
    return _settle(planned, lambda job: _existing_output(job, rules.existing))


def _plan_file(file: InputFile, rules: PlanRules) -> Job | FileResult:
    destination = rules.destination
    output = Path(STANDARD_STREAM) if destination.to_stdout else destination.file
    input_size = None
    try:
        header = probe_image(file.path, max_pixels=rules.max_pixels)
        input_size = (header.width, header.height)
        output_size = rules.target_size(input_size)
        label = rules.scale_label or f"{output_size[0]}x{output_size[1]}"
        output, note = _choose_output(file, destination, header, output_size, label)
    except NothingToEnlargeError as error:
        # Whoever names the file of the result counts on it.
        if output is None and input_size is not None:
            note = f"nothing to enlarge: it has {input_size[0]}x{input_size[1]} pixels already"
            return FileResult(input=file.shown, status="skipped", note=note, input_size=input_size)
        return failure(file, output, error)
    except EscsrError as error:
        return failure(file, output, error)
    return Job(
        file=file,
        output=output,
        input_size=input_size,
        output_size=output_size,
        size_label=label,
        note=note,
        to_stdout=destination.to_stdout,
    )


def failure(file: InputFile, output: Path | None, error: EscsrError) -> FileResult:
    """The result of an input that failed before it was a job."""
    text = error_in_words(error, file)
    return FileResult(input=file.shown, output=output, status="failed", error=text)


def error_in_words(error: BaseException, file: InputFile) -> str:
    """What an error says, about what the user typed where the image came through a pipe."""
    text = printable(error)
    if file.stream is None:
        return text
    name = "standard input" if file.stream == STANDARD_STREAM else file.stream
    return text.replace(printable(file.path), name)


def result_of_left_out(entry: LeftOut) -> FileResult:
    """What is told of something that is not read."""
    if entry.is_failure:
        return FileResult(input=entry.path, status="failed", error=entry.reason)
    return FileResult(input=entry.path, status="skipped", note=entry.reason)


def result_of_missing(entry: MissingInput) -> FileResult:
    """What is told of an argument without an image."""
    return FileResult(input=Path(entry.text), status="failed", error=entry.reason)


def _choose_output(
    file: InputFile, destination: Destination, header: ImageHeader, size: Size, label: str
) -> tuple[Path, str | None]:
    """The output and a note: PNG instead of the input's format where that cannot hold it."""
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
    check_names(path)
    try:
        check_output(
            path,
            width=width,
            height=height,
            channels=header.channels,
            bit_depth=header.bit_depth,
            colour=header.colour,
            extra=header.extra,
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


def _with_names_of_their_own(
    planned: Sequence[Job | FileResult], destination: Destination
) -> list[Job | FileResult]:
    """Give results that would have the same name others, where their inputs' names allow it.

    Inputs of several folders: the results go to folders of the same names below the output folder.
    Inputs of one folder that differ by their suffix: those whose format changes keep it in their
    names. What is the same even so is left as it is.
    """
    apart = list(planned)
    for rename in (_apart_by_folder, _apart_by_suffix):
        groups: dict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(apart):
            if isinstance(entry, Job):
                groups[path_identity(entry.output)].append(index)
        for group in groups.values():
            if len(group) > 1:
                jobs = [entry for index in group if isinstance(entry := apart[index], Job)]
                for index, job in zip(group, rename(jobs, destination), strict=True):
                    apart[index] = job
    return apart


def _apart_by_folder(jobs: list[Job], destination: Destination) -> list[Job]:
    parents = [job.file.path.parent for job in jobs]
    is_one_folder = len(set(map(path_identity, parents))) == 1
    if destination.folder is None or is_one_folder or any(job.file.stream for job in jobs):
        return jobs
    folders = list(map(os.path.abspath, parents))
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # several drives of Windows
        return jobs
    files = [
        replace(job.file, subfolder=Path(os.path.relpath(folder, common)))
        for job, folder in zip(jobs, folders, strict=True)
    ]
    return [
        _renamed(replace(job, file=file), destination)
        for job, file in zip(jobs, files, strict=True)
    ]


def _apart_by_suffix(jobs: list[Job], destination: Destination) -> list[Job]:
    return [
        _renamed(job, destination, keeps_suffix=True)
        if job.file.path.suffix != job.output.suffix
        else job
        for job in jobs
    ]


def _renamed(job: Job, destination: Destination, *, keeps_suffix: bool = False) -> Job:
    output = destination.path_for(
        job.file,
        size_label=job.size_label,
        image_suffix=job.output.suffix,
        keeps_suffix=keeps_suffix,
    )
    return replace(job, output=output)


def _earlier_result(job: Job, outputs: dict[str, Job], rules: PlanRules) -> FileResult | None:
    """A file that another input of this run is upscaled to, and that was only come across.

    In the output folder, and where existing results are left anyway, also one that was named: the
    shell names what its patterns match.
    """
    origin = outputs.get(path_identity(job.file.path))
    if origin is None or origin is job:
        return None
    is_left_anyway = rules.existing == "skip" and rules.destination.folder is not None
    if job.file.is_named and not is_left_anyway:
        return None
    return FileResult(
        input=job.file.shown,
        status="skipped",
        note=f"the result of {origin.file.shown}, from an earlier run",
    )


_SIZED_STEM = re.compile(r"(?P<stem>.+)_(?:x(?P<factor>\d+(?:\.\d+)?)|(?P<size>\d+x\d+))")


def _sizes_by_stem(planned: Sequence[Job | FileResult]) -> dict[str, list[tuple[InputFile, Size]]]:
    """The inputs by folder and stem."""
    found: dict[str, list[tuple[InputFile, Size]]] = defaultdict(list)
    for entry in planned:
        if isinstance(entry, Job):
            key = name_identity(entry.file.path.with_name(entry.file.path.stem))
            found[key].append((entry.file, entry.input_size))
    return found


def _result_of_another_size(
    job: Job, sources: dict[str, list[tuple[InputFile, Size]]]
) -> FileResult | None:
    """A file that was come across, called and sized as the result of another input of this run."""
    match = _SIZED_STEM.fullmatch(job.file.path.stem)
    if match is None or job.file.is_named:
        return None
    width, height = job.input_size
    if match["size"] is not None and match["size"] != f"{width}x{height}":
        return None
    key = name_identity(job.file.path.with_name(match["stem"]))
    candidates = sources.get(key, [])
    # Of a.jpg and a.png, a_x2.png is more likely the result of a.png.
    suffix = job.file.path.suffix.lower()
    for file, size in sorted(candidates, key=lambda s: s[0].path.suffix.lower() != suffix):
        factor = float(match["factor"]) if match["factor"] else max(width, height) / max(size)
        if factor > 1 and all(
            abs(large - factor * small) <= 1
            for large, small in zip(job.input_size, size, strict=True)
        ):
            note = f"the result of {file.shown}, from a run for another size; name it to enlarge it"
            return FileResult(input=job.file.shown, status="skipped", note=note)
    return None


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
