"""Plan a run of escsr upscale from headers alone, so that no clash is found halfway through."""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from escsr.cli.console import STANDARD_STREAM, printable
from escsr.cli.inputs import (
    InputFile,
    LeftOut,
    MissingInput,
    home_opened,
    name_identity,
    path_identity,
    special_kind,
)
from escsr.errors import (
    ConfigurationError,
    EscsrError,
    ImageFormatError,
    ImageWriteError,
    NothingToEnlargeError,
)
from escsr.images.files import ImageHeader, probe_image
from escsr.images.formats import READABLE_SUFFIXES, WRITABLE_SUFFIXES, format_for_writing
from escsr.images.writer import check_names, check_output
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
    return json.dumps([result_as_dict(result) for result in results], indent=2)


def result_as_dict(result: FileResult) -> dict[str, str | int | float | None]:
    """One input as an object whose keys are promised to programs."""
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


TileChoice = Literal["auto", "whole"] | int
"""Side of a tile in pixels of the input, or who chooses it."""

Existing = Literal["refuse", "overwrite", "skip"]
"""What happens to a file that already stands where a result would go."""

BYTES_OF_UNIT = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


def parse_tile(text: str) -> TileChoice:
    """Read ``--tile``: ``auto``, ``whole`` (also ``0``), or a side in pixels of the input.

    Raises:
        ConfigurationError: anything else.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word in ("whole", "0"):
        return "whole"
    if word.isascii() and word.isdigit():
        return int(word)
    raise ConfigurationError(
        f"--tile is {text!r}; it must be auto, a side in pixels such as 256, or 0 for no tiles."
    )


def parse_memory(text: str | None, *, option: str = "--memory") -> int | None:
    """Read an amount of memory such as ``2GB``, ``1.5GiB`` or ``800M``.

    Returns:
        Bytes; None where nothing was asked for.
    Raises:
        ConfigurationError: not a positive amount in a known unit.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper(), re.ASCII)
    num_bytes = int(float(match[1]) * BYTES_OF_UNIT[match[2] or ""]) if match else 0
    if num_bytes < 1:
        raise ConfigurationError(
            f"{option} is {text!r}; it must be an amount such as 2GB, 1.5GiB or 800MB."
        )
    return num_bytes


def parse_format(text: str | None) -> str | None:
    """Read ``--format``: ``png``, ``.png`` and ``PNG`` all give ``.png``.

    Raises:
        ConfigurationError: not a format that can be written.
    """
    if text is None:
        return None
    suffix = "." + text.strip().lower().removeprefix(".")
    if suffix not in WRITABLE_SUFFIXES:
        raise ConfigurationError(
            f"--format is {text!r}; it must be one of {suffix_names(WRITABLE_SUFFIXES)}."
        )
    return suffix


def suffix_names(suffixes: Collection[str]) -> str:
    """Suffixes as words for a message: ``avif, jpg, png``."""
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))


def check_name_suffix(text: str | None) -> None:
    """Refuse a ``--suffix`` that would lead out of the folder.

    Raises:
        ConfigurationError: it holds a path separator.
    """
    if text is not None and any(sign in text for sign in "/\\\0"):
        raise ConfigurationError(
            f"--suffix is {text!r}; it is a part of a file name such as _big, without slashes."
        )


def existing_rule(*, overwrite: bool, skip_existing: bool) -> Existing:
    """What ``--overwrite`` and ``--skip-existing`` ask for.

    Raises:
        ConfigurationError: both at once.
    """
    if overwrite and skip_existing:
        raise ConfigurationError("Give --overwrite or --skip-existing, not both.")
    if overwrite:
        return "overwrite"
    return "skip" if skip_existing else "refuse"


def parse_max_pixels(megapixels: float | None) -> int | None:
    """Read ``--max-megapixels`` into pixels; None where nothing was asked for.

    Raises:
        ConfigurationError: not a number above 0.
    """
    if megapixels is None:
        return None
    if not (math.isfinite(megapixels) and megapixels > 0):
        raise ConfigurationError(
            f"--max-megapixels is {megapixels:g}; it must be a number above 0, such as 500."
        )
    return max(1, int(megapixels * 1e6))


FALLBACK_SUFFIX = ".png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go; with neither file nor folder they go beside their inputs."""

    file: Path | None = None
    """The one output file."""

    to_stdout: bool = False
    """The one result goes to standard output, by way of a file in ``folder``."""

    folder: Path | None = None
    """The output folder; it need not exist."""

    name_suffix: str | None = None
    """Put between stem and ``.png``; None means the size, or nothing in an output folder."""

    image_suffix: str | None = None
    """The format that was asked for, as ``.png``; None means the input's where it can be."""

    def path_for(
        self,
        file: InputFile,
        *,
        size_label: str,
        image_suffix: str,
        keeps_suffix: bool = False,
    ) -> Path:
        """The output of one input.

        Args:
            file: the input.
            size_label: names the size beside the input, as ``x4`` or ``1920x1080``.
            image_suffix: of the format that the result is written in, as ``.png``.
            keeps_suffix: put the input's own suffix before that: ``photo.jpg.png``.
        """
        if self.file is not None:
            return self.file
        default = f"_{size_label}" if self.folder is None else ""
        name_suffix = default if self.name_suffix is None else self.name_suffix
        parent = file.path.parent if self.folder is None else self.folder / file.subfolder
        stem = file.path.name if keeps_suffix else file.path.stem
        return parent / f"{stem}{name_suffix}{image_suffix}"

    def first_choice_suffix(self, file: InputFile) -> str:
        """The suffix, as ``.png``, of the format to try first for one input."""
        if self.file is not None:
            return self.file.suffix
        if self.image_suffix is not None:
            return self.image_suffix
        suffix = file.path.suffix
        return suffix if suffix.lower() in WRITABLE_SUFFIXES else FALLBACK_SUFFIX

    @property
    def format_is_free(self) -> bool:
        """Nobody asked for a format, so that another may be taken where the first cannot do."""
        return self.file is None and self.image_suffix is None


def destination_of(
    text: str | None,
    *,
    is_collection: bool,
    name_suffix: str | None,
    image_suffix: str | None,
) -> Destination:
    """Read ``--output`` together with ``--suffix`` and ``--format``.

    Args:
        text: what was given to ``--output``; None where it was not.
        is_collection: the inputs may be more than one file.
        name_suffix: what was given to ``--suffix``.
        image_suffix: the format that was asked for, as ``.png``.
    Raises:
        ConfigurationError: the output cannot be what it is asked to be.
    """
    if text is None:
        return Destination(name_suffix=name_suffix, image_suffix=image_suffix)
    path = home_opened(text)
    if is_output_folder(text) or is_collection:
        _check_folder_name(path, text)
        _check_folders(path, "folder")
        return Destination(folder=path, name_suffix=name_suffix, image_suffix=image_suffix)
    _check_folders(path.parent, "file")
    if kind := special_kind(path):
        raise ConfigurationError(
            f"The output {path} is {kind}, not a file, and cannot be replaced by a result. Name a "
            "file, or write to standard output with -o - and redirect that."
        )
    _check_file_suffix(path, image_suffix)
    return Destination(file=path)


def is_output_folder(text: str) -> bool:
    """Whether ``--output`` names a folder by itself: it is one, or ends in a slash."""
    ends_in_slash = text.endswith(("/", os.sep))
    # Path.is_dir raises for very long names and below closed folders.
    return ends_in_slash or os.path.isdir(home_opened(text))  # noqa: PTH112


def _check_folder_name(folder: Path, text: str) -> None:
    """Refuse to make a folder with the name of an image, unless a slash says so."""
    if is_output_folder(text) or folder.suffix.lower() not in READABLE_SUFFIXES:
        return
    raise ConfigurationError(
        f"The output {folder} has the name of an image file, and there can be several results. "
        "Name a folder, or end the name with a slash if it is one."
    )


def _check_folders(folder: Path, what: str) -> None:
    existing = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), None)
    if existing is not None and not existing.is_dir():
        raise ConfigurationError(
            f"The output {what} cannot be made: {existing} is a file, not a folder. "
            "Give another --output."
        )


def _check_file_suffix(path: Path, image_suffix: str | None) -> None:
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        if image_suffix is not None:
            raise ConfigurationError(
                f"The output {path} is a file without the suffix of its format; name it "
                f"{path.name}{image_suffix}. For a folder, end the name with a slash."
            )
        raise ConfigurationError(
            f"The output {path} has no suffix of a known format; known are "
            f"{suffix_names(WRITABLE_SUFFIXES)}. For a folder, end the name with a slash."
        )
    if image_suffix is None or image_suffix in format_for_writing(path).suffixes:
        return
    raise ConfigurationError(
        f"The output {path} and --format {image_suffix.removeprefix('.')} contradict each other; "
        "leave out one of them."
    )


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

    header: ImageHeader | None = None
    """Of the input, so that it is read once."""

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
        header=header,
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
