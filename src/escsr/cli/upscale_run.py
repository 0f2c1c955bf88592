"""What ``escsr upscale`` does: check, find the inputs, plan, work, and say what became of it."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from escsr.cli.batch import Outcome, Work, run_jobs
from escsr.cli.collection import (
    FoundInputs,
    InputFile,
    MissingInput,
    collect_inputs,
    home_opened,
    is_collection,
)
from escsr.cli.destination import Destination, destination_of
from escsr.cli.exit_status import SOME_FAILED, printable
from escsr.cli.interruption import stopping_cleanly
from escsr.cli.options import (
    check_name_suffix,
    existing_rule,
    parse_format,
    parse_max_pixels,
    parse_memory,
    parse_tile,
)
from escsr.cli.plan import (
    Job,
    PlanRules,
    error_in_words,
    plan_jobs,
    result_of_left_out,
    result_of_missing,
)
from escsr.cli.progress import result_line, shown_run, summary_line
from escsr.cli.results import FileResult, Size, results_as_json
from escsr.cli.streams import (
    STANDARD_STREAM,
    check_stdout_takes_images,
    receive_image,
    send_image,
    write_line,
)
from escsr.engines.engine import AttentionChoice, BackendChoice, PrecisionChoice
from escsr.errors import ConfigurationError, EscsrError, ImageReadError, ImageWriteError
from escsr.images.files import DEFAULT_MAX_PIXELS, READABLE_SUFFIXES
from escsr.images.formats import WRITABLE_SUFFIXES
from escsr.temporary_files import TemporaryFolder
from escsr.upscaling.borders import Edges
from escsr.upscaling.files import FileJob, UpscaleReport
from escsr.upscaling.passes import WorkPlan
from escsr.upscaling.pixels import AlphaMeaning
from escsr.upscaling.sizes import SizeRequest
from escsr.upscaling.upscaler import Upscaler

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """The options as typed; the help of ``escsr upscale`` describes them."""

    inputs: list[str]
    output: str | None
    scale: float | None
    width: int | None
    height: int | None
    longest: int | None
    model: str
    tile: str
    overlap_pixels: int | None
    device: str
    precision: str
    backend: str
    attention: str
    memory: str | None
    exact: bool
    keep_colours: bool
    alpha: str
    edges: str
    name_suffix: str | None
    image_format: str | None
    quality: int | None
    recursive: bool
    overwrite: bool
    skip_existing: bool
    keep_time: bool
    max_megapixels: float | None
    dry_run: bool
    as_json: bool


def run_upscale(request: UpscaleRequest) -> int:
    """Upscale what was asked for, and say what became of it.

    Returns:
        The exit status.
    Raises:
        ConfigurationError: the request cannot be; nothing was done.
        CheckpointError: the model cannot be used; nothing was done.
    """
    existing = existing_rule(overwrite=request.overwrite, skip_existing=request.skip_existing)
    max_pixels = parse_max_pixels(request.max_megapixels) or DEFAULT_MAX_PIXELS
    wanted = SizeRequest(
        scale=request.scale, width=request.width, height=request.height, longest=request.longest
    )
    with stopping_cleanly(), ExitStack() as stack:
        found, destination = _collect(request, stack)
        upscaler = _make_upscaler(request)
        rules = PlanRules(
            destination=destination,
            target_size=lambda size: _target_size(upscaler, size, wanted),
            scale_label=_scale_label(upscaler, wanted),
            existing=existing,
            max_pixels=max_pixels,
        )
        planned = [
            *plan_jobs(found.files, rules),
            *map(result_of_left_out, found.left_out),
            *map(result_of_missing, found.missing),
        ]
        if request.dry_run:
            rehearse = partial(_rehearsed, upscaler=upscaler, rules=rules, wanted=wanted)
            planned = [rehearse(e) if isinstance(e, Job) else e for e in planned]
        takes_stdout = request.as_json or destination.to_stdout
        with shown_run(planned, stdout_is_taken=takes_stdout) as view:
            work = _work_of(request, upscaler, rules, wanted)
            leaves_existing = existing == "skip"
            outcome = run_jobs(planned, work, view, _log_report, leaves_existing=leaves_existing)
        if destination.to_stdout:
            _send(planned, outcome)
    is_told = _tell(outcome, request, found.num_other_files)
    return outcome.exit_status if is_told else outcome.exit_status or SOME_FAILED


def _collect(request: UpscaleRequest, stack: ExitStack) -> tuple[FoundInputs, Destination]:
    """Find the inputs and settle where results go; images from pipes are copied to files.

    Args:
        request: the options.
        stack: removes temporary folders in the end.
    """
    check_name_suffix(request.name_suffix)
    image_suffix = parse_format(request.image_format)
    if not request.inputs:
        raise ConfigurationError("No input was given; name image files, folders or patterns.")
    found = collect_inputs(
        request.inputs,
        suffixes=READABLE_SUFFIXES,
        recursive=request.recursive,
        excluded_folder=None if request.output is None else home_opened(request.output),
    )
    found = _with_hint_at_output(found, request)
    if not found.files:
        reasons = [f"{entry.text}: {entry.reason}" for entry in found.missing]
        reasons += [f"{entry.path}: {entry.reason}" for entry in found.left_out]
        raise ConfigurationError(f"No input was found. {'; '.join(reasons)}")
    collection = is_collection(request.inputs, found.files)
    if request.output in (STANDARD_STREAM, "/dev/stdout"):
        _check_stdout(request, collection)
        folder = _temporary_folder(stack)
        destination = Destination(folder=folder, to_stdout=True, image_suffix=image_suffix)
    else:
        destination = destination_of(
            request.output,
            is_collection=collection,
            name_suffix=request.name_suffix,
            image_suffix=image_suffix,
        )
    return _with_copies(found, request, stack), destination


def _with_hint_at_output(found: FoundInputs, request: UpscaleRequest) -> FoundInputs:
    """Where the second of two names is no file: perhaps it was meant for the result."""
    if request.output is not None or len(request.inputs) != 2 or len(found.missing) != 1:
        return found
    missing = found.missing[0]
    is_writable = Path(missing.text).suffix.lower() in WRITABLE_SUFFIXES
    if missing.text != request.inputs[1] or not is_writable:
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


def _check_stdout(request: UpscaleRequest, collection: bool) -> None:
    if collection:
        raise ConfigurationError(
            "--output - writes one image to standard output, and there can be several. Name one "
            "file, or a folder for the output."
        )
    if request.as_json:
        raise ConfigurationError("--output - and --json both need standard output; leave out one.")
    check_stdout_takes_images()


def _with_copies(found: FoundInputs, request: UpscaleRequest, stack: ExitStack) -> FoundInputs:
    """Copy what comes through pipes to files of their own."""
    if all(file.stream is None for file in found.files):
        return found
    if request.output is None:
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


def _make_upscaler(request: UpscaleRequest) -> Upscaler:
    upscaler = Upscaler(
        request.model,
        scale=request.scale,  # refused here where the model cannot be asked for it
        device=request.device,
        precision=cast(PrecisionChoice, request.precision),  # the Upscaler checks it
        backend=cast(BackendChoice, request.backend),  # it checks this too
        attention_backend=cast(AttentionChoice, request.attention),  # and this
        tile=parse_tile(request.tile),
        overlap_pixels=request.overlap_pixels,
        memory_limit_bytes=parse_memory(request.memory),
        exact=request.exact,
        keep_colours=request.keep_colours,
        alpha=cast(AlphaMeaning, request.alpha),  # and these two
        edges=cast(Edges, request.edges),
    )
    factors = ", ".join(f"x{scale}" for scale in upscaler.scales)
    logger.info(
        "Model %s (%s) on %s with the back-end %s",
        upscaler.model_name,
        factors,
        upscaler.device,
        upscaler.backend,
    )
    return upscaler


def _target_size(upscaler: Upscaler, size: Size, wanted: SizeRequest) -> Size:
    return upscaler.output_size(size, **wanted.as_options())


def _scale_label(upscaler: Upscaler, wanted: SizeRequest) -> str | None:
    """``x4``; None where the size was asked for in pixels."""
    if wanted.scale is not None:
        return f"x{wanted.scale:g}"
    if wanted == SizeRequest():
        # Nothing asked for: one pixel becomes as many as the model's own factor.
        return f"x{upscaler.output_size((1, 1))[0]}"
    return None


def _rehearsed(
    job: Job, *, upscaler: Upscaler, rules: PlanRules, wanted: SizeRequest
) -> FileResult:
    """What a dry run says of a job: the tiles and the memory, or that no tile fits."""
    try:
        plan = upscaler.plan_file(
            job.file.path,
            max_pixels=rules.max_pixels,
            **wanted.as_options(),
        )
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


def _work_of(
    request: UpscaleRequest, upscaler: Upscaler, rules: PlanRules, wanted: SizeRequest
) -> Work:
    def file_job(job: Job) -> FileJob:
        return FileJob(
            input=job.file.path,
            output=job.output,
            request=wanted,
            overwrite=rules.existing == "overwrite",
            make_folder=True,
            quality=request.quality,
            max_pixels=rules.max_pixels,
            keep_time=request.keep_time,
            is_copy=job.file.stream is not None,
        )

    return lambda jobs, watch: upscaler.upscale_files([file_job(job) for job in jobs], watch)


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


def _tell(outcome: Outcome, request: UpscaleRequest, num_other_files: int) -> bool:
    """Write JSON and the summary; False where nobody got the JSON."""
    is_told = True
    if request.as_json and not write_line(results_as_json(outcome.results)):
        is_told = False
        write_line("Error: The JSON could not be written to standard output.", to_stderr=True)
    if num_other_files:
        files = "1 file that is" if num_other_files == 1 else f"{num_other_files} files that are"
        write_line(f"Left out: {files} no image by name.", to_stderr=True)
    if len(outcome.results) > 1 or outcome.interruption is not None:
        start = "Interrupted: " if outcome.interruption is not None else ""
        write_line(start + summary_line(outcome.results), to_stderr=True)
    return is_told
