"""What ``escsr upscale`` does: check, find the inputs, plan, work, and say what became of it."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import typer

from escsr.cli.batch import Outcome, Work, run_jobs
from escsr.cli.collection import InputFile, MissingInput, collect_inputs, home_opened, is_collection
from escsr.cli.destination import Destination, destination_of
from escsr.cli.exit_status import printable
from escsr.cli.interruption import stopping_cleanly
from escsr.cli.options import (
    check_name_suffix,
    existing_rule,
    parse_format,
    parse_max_pixels,
    parse_memory,
    parse_tile,
)
from escsr.cli.plan import Job, PlanRules, plan_jobs
from escsr.cli.progress import shown_run, summary_line
from escsr.cli.results import FileResult, Size, results_as_json
from escsr.errors import ConfigurationError, EscsrError
from escsr.images.files import DEFAULT_MAX_PIXELS, READABLE_SUFFIXES
from escsr.inference.backends import BackendChoice
from escsr.inference.devices import Precision
from escsr.inference.enlarger import WorkPlan
from escsr.inference.file_job import FileJob, UpscaleReport
from escsr.inference.geometry import SizeWish
from escsr.inference.upscaler import Upscaler
from escsr.model.attention_backends import FoldedBackend

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
    name_suffix: str | None
    image_format: str | None
    quality: int | None
    recursive: bool
    overwrite: bool
    skip_existing: bool
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
    wish = SizeWish(
        scale=request.scale, width=request.width, height=request.height, longest=request.longest
    )
    with stopping_cleanly():
        files, missing, destination = _collect(request)
        upscaler = _make_upscaler(request)
        rules = PlanRules(
            destination=destination,
            target_size=lambda size: _target_size(upscaler, size, wish),
            scale_label=_scale_label(upscaler, wish),
            existing=existing,
            max_pixels=max_pixels,
        )
        planned = [*plan_jobs(files, rules), *map(_missing_result, missing)]
        if request.dry_run:
            rehearse = partial(_rehearsed, upscaler=upscaler, rules=rules, wish=wish)
            planned = [rehearse(e) if isinstance(e, Job) else e for e in planned]
        with shown_run(planned, stdout_is_taken=request.as_json) as view:
            work = _work_of(request, upscaler, rules, wish)
            outcome = run_jobs(planned, work, view, _log_report)
    _tell(outcome, request)
    return outcome.exit_status


def _collect(
    request: UpscaleRequest,
) -> tuple[list[InputFile], list[MissingInput], Destination]:
    check_name_suffix(request.name_suffix)
    image_suffix = parse_format(request.image_format)
    if not request.inputs:
        raise ConfigurationError("No input was given; name image files, folders or patterns.")
    files, missing = collect_inputs(
        request.inputs,
        suffixes=READABLE_SUFFIXES,
        recursive=request.recursive,
        excluded_folder=None if request.output is None else home_opened(request.output),
    )
    if not files:
        reasons = "; ".join(f"{entry.text}: {entry.reason}" for entry in missing)
        raise ConfigurationError(f"No input was found. {reasons}")
    destination = destination_of(
        request.output,
        is_collection=is_collection(request.inputs, files),
        name_suffix=request.name_suffix,
        image_suffix=image_suffix,
    )
    return files, missing, destination


def _make_upscaler(request: UpscaleRequest) -> Upscaler:
    upscaler = Upscaler(
        request.model,
        scale=request.scale,  # refused here where the model cannot be asked for it
        device=request.device,
        precision=cast(Precision, request.precision),  # the Upscaler checks it
        backend=cast(BackendChoice, request.backend),  # it checks this too
        attention_backend=cast(FoldedBackend, request.attention),  # and this
        tile=parse_tile(request.tile),
        overlap_pixels=request.overlap_pixels,
        memory_limit_bytes=parse_memory(request.memory),
        exact=request.exact,
        keep_colours=request.keep_colours,
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


def _target_size(upscaler: Upscaler, size: Size, wish: SizeWish) -> Size:
    return upscaler.output_size(
        size, scale=wish.scale, width=wish.width, height=wish.height, longest=wish.longest
    )


def _scale_label(upscaler: Upscaler, wish: SizeWish) -> str | None:
    """``x4``; None where the size was asked for in pixels."""
    if wish.scale is not None:
        return f"x{wish.scale:g}"
    if wish == SizeWish():
        # Nothing asked for: one pixel becomes as many as the model's own factor.
        return f"x{upscaler.output_size((1, 1))[0]}"
    return None


def _rehearsed(job: Job, *, upscaler: Upscaler, rules: PlanRules, wish: SizeWish) -> FileResult:
    """What a dry run says of a job: the tiles and the memory, or that no tile fits."""
    try:
        plan = upscaler.plan_file(
            job.file.path,
            max_pixels=rules.max_pixels,
            scale=wish.scale,
            width=wish.width,
            height=wish.height,
            longest=wish.longest,
        )
    except EscsrError as error:
        return job.result("failed", error=printable(error))
    notes = [job.note] if job.note else []
    notes.append(f"{_work_in_words(plan, num_passes=len(plan.tiles))} of memory")
    if plan.disk_bytes:
        notes.append(f"{plan.disk_bytes / 1e6:.0f} MB of temporary files")
    return replace(job, note="; ".join(notes)).result("planned")


def _work_in_words(plan: WorkPlan | UpscaleReport, *, num_passes: int) -> str:
    """How an image is cut, and how much memory that takes."""
    size = f"about {plan.peak_memory_bytes / 1e6:.0f} MB"
    if plan.num_tiles == num_passes:
        return f"whole, {size}"
    if plan.is_exact:
        return f"exact, in {plan.num_tiles} parts of at most {plan.tile_pixels} pixels, {size}"
    return f"{plan.num_tiles} tiles of at most {plan.tile_pixels} pixels, {size}"


def _missing_result(missing: MissingInput) -> FileResult:
    return FileResult(input=Path(missing.text), status="failed", error=missing.reason)


def _work_of(request: UpscaleRequest, upscaler: Upscaler, rules: PlanRules, wish: SizeWish) -> Work:
    def file_job(job: Job) -> FileJob:
        return FileJob(
            input=job.file.path,
            output=job.output,
            wish=wish,
            overwrite=rules.existing == "overwrite",
            make_folder=True,
            quality=request.quality,
            max_pixels=rules.max_pixels,
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


def _tell(outcome: Outcome, request: UpscaleRequest) -> None:
    if request.as_json:
        typer.echo(results_as_json(outcome.results))
    if len(outcome.results) > 1 or outcome.interruption is not None:
        start = "Interrupted: " if outcome.interruption is not None else ""
        typer.echo(start + summary_line(outcome.results), err=True)
