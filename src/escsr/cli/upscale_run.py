"""What ``escsr upscale`` does: check, find the inputs, plan, work, and say what became of it."""

import logging
from collections.abc import Callable
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
from escsr.errors import ConfigurationError, EscsrError, ImageWriteError
from escsr.images.files import DEFAULT_MAX_PIXELS, READABLE_SUFFIXES
from escsr.inference.devices import Precision
from escsr.inference.file_job import UpscaleReport
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
    attention: str
    memory: str | None
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
            outcome = run_jobs(planned, _work_of(request, upscaler, rules, wish), view)
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
        attention_backend=cast(FoldedBackend, request.attention),  # it checks this too
        tile=parse_tile(request.tile),
        overlap_pixels=request.overlap_pixels,
        memory_limit_bytes=parse_memory(request.memory),
        keep_colours=request.keep_colours,
    )
    factors = ", ".join(f"x{scale}" for scale in upscaler.scales)
    logger.info("Model %s (%s) on %s", upscaler.model_name, factors, upscaler.device)
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
    tiles = _tiles_in_words(plan.num_tiles, len(plan.tiles), plan.tile_pixels)
    notes.append(f"{tiles}, about {plan.peak_memory_bytes / 1e6:.0f} MB of memory")
    return replace(job, note="; ".join(notes)).result("planned")


def _tiles_in_words(num_tiles: int, num_passes: int, tile_pixels: int) -> str:
    whole = num_tiles == num_passes
    return "whole" if whole else f"{num_tiles} tiles of at most {tile_pixels} pixels"


def _missing_result(missing: MissingInput) -> FileResult:
    return FileResult(input=Path(missing.text), status="failed", error=missing.reason)


def _work_of(request: UpscaleRequest, upscaler: Upscaler, rules: PlanRules, wish: SizeWish) -> Work:
    def work(job: Job, on_progress: Callable[[float], None]) -> UpscaleReport:
        _make_folder(job.output.parent)
        report = upscaler.upscale_file(
            job.file.path,
            job.output,
            scale=wish.scale,
            width=wish.width,
            height=wish.height,
            longest=wish.longest,
            overwrite=rules.existing == "overwrite",
            quality=request.quality,
            max_pixels=rules.max_pixels,
            on_progress=on_progress,
        )
        _log_report(report)
        return report

    return work


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(
            f"The output folder {folder} cannot be made: {error.strerror}. Give another --output."
        ) from error


def _log_report(report: UpscaleReport) -> None:
    passes = " then ".join(f"x{factor:.4g}" for factor in report.passes)
    logger.info(
        "%s: %s %s on %s in %s, %s, about %.0f MB planned",
        printable(report.input),
        report.model,
        passes,
        report.device,
        report.precision,
        _tiles_in_words(report.num_tiles, len(report.passes), report.tile_pixels),
        report.peak_memory_bytes / 1e6,
    )


def _tell(outcome: Outcome, request: UpscaleRequest) -> None:
    if request.as_json:
        typer.echo(results_as_json(outcome.results))
    if len(outcome.results) > 1 or outcome.interruption is not None:
        start = "Interrupted: " if outcome.interruption is not None else ""
        typer.echo(start + summary_line(outcome.results), err=True)
