"""What ``escsr upscale`` does: check, find the inputs, plan, work, and say what became of it."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from escsr.cli.console import (
    SOME_FAILED,
    STANDARD_STREAM,
    check_stdout_takes_images,
    printable,
    receive_image,
    send_image,
    stopping_cleanly,
    write_line,
)
from escsr.cli.inputs import (
    FoundInputs,
    InputFile,
    MissingInput,
    collect_inputs,
    home_opened,
    is_collection,
)
from escsr.cli.upscale_plan import (
    Destination,
    Existing,
    FileResult,
    Job,
    PlanRules,
    check_name_suffix,
    destination_of,
    error_in_words,
    existing_rule,
    parse_format,
    parse_max_pixels,
    parse_memory,
    parse_tile,
    plan_jobs,
    result_of_left_out,
    result_of_missing,
    results_as_json,
)
from escsr.cli.upscale_progress import (
    Outcome,
    ShownAs,
    parse_progress,
    result_line,
    run_jobs,
    shown_run,
    summary_line,
)
from escsr.engines.engine import AttentionChoice, BackendChoice, EngineOptions, PrecisionChoice
from escsr.errors import ConfigurationError, EscsrError, ImageReadError, ImageWriteError
from escsr.images.files import DEFAULT_MAX_PIXELS, READABLE_SUFFIXES
from escsr.images.formats import WRITABLE_SUFFIXES
from escsr.temporary_files import TemporaryFolder
from escsr.upscaling.borders import Edges
from escsr.upscaling.files import FileJob, UpscaleReport, run_files
from escsr.upscaling.models import ModelPool
from escsr.upscaling.passes import MultiPassUpscaler, WorkPlan, WorkSettings
from escsr.upscaling.pixels import AlphaMeaning
from escsr.upscaling.sizes import SizeRequest, require_factor_of

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FileOptions",
    "ShownAs",
    "SizeRequest",
    "engine_options",
    "existing_rule",
    "parse_format",
    "parse_max_pixels",
    "parse_progress",
    "run_upscale",
    "work_settings",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How files are found, named and written."""

    name_suffix: str | None
    """As given to ``--suffix``."""
    image_suffix: str | None
    """The format that was asked for, as ``.png``."""
    quality: int | None
    """1 to 100."""
    recursive: bool
    """Whether folders below folders are searched."""
    existing: Existing
    """What happens to results that are there."""
    keep_time: bool
    """Whether results get the dates of their inputs."""
    max_pixels: int
    """Larger inputs are refused."""


def engine_options(
    *, device: str, backend: str, precision: str, attention: str, num_threads: int
) -> EngineOptions:
    """Read the options that say how networks run; ``EngineOptions`` checks them.

    A device may be the number of a GPU, or -1 for the CPU, as other programs have it.
    """
    if device.lstrip("-").isdigit():
        device = "cpu" if device.startswith("-") else f"cuda:{device}"
    return EngineOptions(
        device=device,
        backend=cast(BackendChoice, backend),
        precision=cast(PrecisionChoice, precision),
        attention=cast(AttentionChoice, attention),
        num_threads=num_threads,
    )


def work_settings(
    *,
    tile: str,
    overlap_pixels: int | None,
    memory: str | None,
    tta: bool,
    exact: bool,
    keep_colours: bool,
    alpha: str,
    edges: str,
) -> WorkSettings:
    """Read the options that say how images are worked on; ``WorkSettings`` checks them."""
    return WorkSettings(
        tile=parse_tile(tile),
        overlap_pixels=overlap_pixels,
        memory_limit_bytes=parse_memory(memory),
        tta=tta,
        exact=exact,
        keep_colours=keep_colours,
        alpha=cast(AlphaMeaning, alpha),
        edges=cast(Edges, edges),
    )


def run_upscale(
    inputs: Sequence[str],
    output: str | None,
    *,
    model: str,
    size: SizeRequest,
    engine: EngineOptions,
    settings: WorkSettings,
    files: FileOptions,
    shown: ShownAs,
    dry_run: bool,
) -> int:
    """Upscale what was asked for, and say what became of it.

    Returns:
        The exit status.
    Raises:
        ConfigurationError: the request cannot be met; nothing was done.
        CheckpointError: the model cannot be used; nothing was done.
    """
    with stopping_cleanly(), ExitStack() as stack:
        found, destination = _collect(inputs, output, files, shown, stack)
        models = ModelPool(model, engine)
        if size.scale is not None:
            require_factor_of(size.scale, models.scales, makes_any_size=models.makes_any_size)
        upscaler = MultiPassUpscaler(models, settings, default_scale=size.scale)
        factors = ", ".join(f"x{scale}" for scale in models.scales)
        logger.info(
            "Model %s (%s) on %s with the back-end %s",
            models.name,
            factors,
            models.device,
            models.engine(models.default_scale).name,
        )
        rules = PlanRules(
            destination=destination,
            target_size=lambda source: upscaler.plan_size(*source, size).target_size,
            scale_label=_scale_label(upscaler, size),
            existing=files.existing,
            max_pixels=files.max_pixels,
        )
        planned = [
            *plan_jobs(found.files, rules),
            *map(result_of_left_out, found.left_out),
            *map(result_of_missing, found.missing),
        ]
        if dry_run:
            planned = [_rehearsed(e, upscaler, size) if isinstance(e, Job) else e for e in planned]
        with shown_run(planned, shown, to_stdout=destination.to_stdout) as view:
            outcome = run_jobs(
                planned,
                lambda jobs, watch: run_files(
                    upscaler, [_file_job(job, size, files) for job in jobs], watch
                ),
                view,
                _log_report,
                leaves_existing=files.existing == "skip",
            )
        if destination.to_stdout:
            _send(planned, outcome)
    is_told = _tell(outcome, shown, found.num_other_files)
    return outcome.exit_status if is_told else outcome.exit_status or SOME_FAILED


def _collect(
    inputs: Sequence[str],
    output: str | None,
    files: FileOptions,
    shown: ShownAs,
    stack: ExitStack,
) -> tuple[FoundInputs, Destination]:
    """Find the inputs and settle where results go; images from pipes are copied to files.

    Args:
        inputs: as typed.
        output: as typed.
        files: how to find and name files.
        shown: who has standard output.
        stack: removes temporary folders in the end.
    """
    check_name_suffix(files.name_suffix)
    if not inputs:
        raise ConfigurationError("No input was given; name image files, folders or patterns.")
    found = collect_inputs(
        inputs,
        suffixes=READABLE_SUFFIXES,
        recursive=files.recursive,
        excluded_folder=None if output is None else home_opened(output),
    )
    found = _with_hint_at_output(found, inputs, output)
    if not found.files:
        reasons = [f"{entry.text}: {entry.reason}" for entry in found.missing]
        reasons += [f"{entry.path}: {entry.reason}" for entry in found.left_out]
        raise ConfigurationError(f"No input was found. {'; '.join(reasons)}")
    collection = is_collection(inputs, found.files)
    if output in (STANDARD_STREAM, "/dev/stdout"):
        _check_stdout(shown, collection)
        folder = _temporary_folder(stack)
        destination = Destination(folder=folder, to_stdout=True, image_suffix=files.image_suffix)
    else:
        destination = destination_of(
            output,
            is_collection=collection,
            name_suffix=files.name_suffix,
            image_suffix=files.image_suffix,
        )
    return _with_copies(found, output, stack), destination


def _with_hint_at_output(
    found: FoundInputs, inputs: Sequence[str], output: str | None
) -> FoundInputs:
    """Where the second of two names is no file: perhaps it was meant for the result."""
    if output is not None or len(inputs) != 2 or len(found.missing) != 1:
        return found
    missing = found.missing[0]
    is_writable = Path(missing.text).suffix.lower() in WRITABLE_SUFFIXES
    if missing.text != inputs[1] or not is_writable:
        return found
    hint = f"{missing.reason} If it names the result, write -o {missing.text}."
    return replace(found, missing=[replace(missing, reason=hint)])


def _temporary_folder(stack: ExitStack) -> Path:
    try:
        return Path(stack.enter_context(TemporaryFolder()))
    except OSError as error:
        raise ImageWriteError(
            f"No temporary folder can be made: {error.strerror or error}. Point TMPDIR to a folder "
            "that may be written to."
        ) from error


def _check_stdout(shown: ShownAs, collection: bool) -> None:
    if collection:
        raise ConfigurationError(
            "--output - writes one image to standard output, and there can be several. Name one "
            "file, or a folder for the output."
        )
    if shown.as_json:
        raise ConfigurationError("--output - and --json both need standard output; leave out one.")
    check_stdout_takes_images()


def _with_copies(found: FoundInputs, output: str | None, stack: ExitStack) -> FoundInputs:
    """Copy what comes through pipes to files of their own."""
    if all(file.stream is None for file in found.files):
        return found
    if output is None:
        raise ConfigurationError(
            "Say with --output where the result of an image from a pipe goes; - is standard output."
        )
    files: list[InputFile] = []
    missing = list(found.missing)
    for file in found.files:
        if file.stream is None:
            files.append(file)
            continue
        try:
            copy = receive_image(file.stream, _temporary_folder(stack))
            files.append(replace(file, path=copy))
        except ImageReadError as error:
            missing.append(MissingInput(text=file.stream, reason=str(error)))
    return replace(found, files=files, missing=missing)


def _send(planned: Sequence[Job | FileResult], outcome: Outcome) -> None:
    """Send the one result to standard output."""
    for index, (entry, result) in enumerate(zip(planned, outcome.results, strict=True)):
        if isinstance(entry, Job) and result.status == "done":
            try:
                send_image(entry.output)
            except ImageWriteError as error:
                outcome.results[index] = entry.result("failed", error=printable(error))
                write_line(result_line(outcome.results[index]), to_stderr=True)


def _scale_label(upscaler: MultiPassUpscaler, size: SizeRequest) -> str | None:
    """``x4``; None where the size was asked for in pixels."""
    if size.scale is not None:
        return f"x{size.scale:g}"
    if size == SizeRequest():
        # Nothing asked for: one pixel becomes as many as the model's own factor.
        return f"x{upscaler.plan_size(1, 1, size).target_size[0]}"
    return None


def _rehearsed(job: Job, upscaler: MultiPassUpscaler, size: SizeRequest) -> FileResult:
    """What a dry run says of a job: the tiles and the memory, or that no tile fits."""
    assert job.header is not None
    try:
        plan = upscaler.plan_of_file(job.header, size)
    except EscsrError as error:
        return job.result("failed", error=error_in_words(error, job.file))
    notes = [job.note] if job.note else []
    notes.append(f"{_work_in_words(plan, num_passes=len(plan.tiles))} of memory")
    if plan.disk_bytes:
        notes.append(f"{plan.disk_bytes / 1e6:.0f} MB of temporary files")
    return replace(job, note="; ".join(notes)).result("planned")


def _work_in_words(plan: WorkPlan | UpscaleReport, *, num_passes: int) -> str:
    """How an image is cut, and how much memory that takes."""
    size = f"about {plan.peak_memory_bytes / 1e6:.0f} MB"
    if plan.num_tiles == num_passes:
        return f"exact, {size}" if plan.disk_bytes else f"whole, {size}"
    if plan.is_exact:
        return f"exact, in {plan.num_tiles} parts of at most {plan.tile_pixels} pixels, {size}"
    return f"{plan.num_tiles} tiles of at most {plan.tile_pixels} pixels, {size}"


def _file_job(job: Job, size: SizeRequest, files: FileOptions) -> FileJob:
    return FileJob(
        input=job.file.path,
        output=job.output,
        request=size,
        overwrite=files.existing == "overwrite",
        make_folder=True,
        quality=files.quality,
        max_pixels=files.max_pixels,
        keep_time=files.keep_time,
        is_copy=job.file.stream is not None,
        header=job.header,
    )


def _log_report(report: UpscaleReport) -> None:
    passes = " then ".join(f"x{factor:.4g}" for factor in report.passes)
    logger.info(
        "%s: %s %s on %s in %s, %s planned",
        printable(report.input),
        report.model,
        passes,
        report.device,
        report.precision,
        _work_in_words(report, num_passes=len(report.passes)),
    )


def _tell(outcome: Outcome, shown: ShownAs, num_other_files: int) -> bool:
    """Write JSON and the summary; False where nobody got the JSON."""
    is_told = True
    if shown.as_json and not write_line(results_as_json(outcome.results)):
        is_told = False
        write_line("Error: The JSON could not be written to standard output.", to_stderr=True)
    if shown.quiet:
        return is_told
    if num_other_files:
        files = "1 file that is" if num_other_files == 1 else f"{num_other_files} files that are"
        write_line(f"Left out: {files} no image by name.", to_stderr=True)
    if len(outcome.results) > 1 or outcome.interruption is not None:
        start = "Interrupted: " if outcome.interruption is not None else ""
        write_line(start + summary_line(outcome.results), to_stderr=True)
    return is_told
