"""``escsr evaluate``: PSNR and SSIM on test sets, by the field's protocol."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escsr.cli.exit_status import SOME_FAILED, printable

if TYPE_CHECKING:
    from escsr.evaluation.comparison import Comparison, Conditions, Entrants
    from escsr.evaluation.crops import CropGallery
    from escsr.evaluation.metrics import Metric

MODEL_HELP = (
    "A name in the box, a checkpoint, any file that spandrel loads, module:callable, or the word "
    "bicubic."
)
DATA_HELP = (
    "Test set: a folder of HR images, or one with HR and LR_bicubic/X4 inside; may be repeated."
)

METRIC_HELP = (
    "One more column; may be repeated: niqe, or lpips, dists, maniqa, musiq, clipiqa "
    "(pip install 'escsr[metrics]')."
)


class Padding(StrEnum):
    """How LR images are extended."""

    WINDOW = "window"
    NONE = "none"


def evaluate_command(
    model: Annotated[
        list[str], typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)
    ],
    data: Annotated[list[Path], typer.Option(help=DATA_HELP, show_default=False)],
    scale: Annotated[
        int | None,
        typer.Option("-s", "--scale", min=1, help="Default: that of the first network."),
    ] = None,
    padding: Annotated[
        Padding,
        typer.Option(help="window: to whole windows, as the official tester; none: as they are."),
    ] = Padding.WINDOW,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Mean over the 8 flips and rotations.")
    ] = False,
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP, show_default=False)] = None,
    niqe_parameters: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What NIQE compares with, instead of our photographs."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for results.md, .csv, .json and pictures."),
    ] = None,
    crops: Annotated[
        int, typer.Option(min=0, help="Pictures in --out, of where two networks differ most.")
    ] = 4,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into an --out folder that is not ours.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Compare networks on test sets: PSNR and SSIM on Y and on RGB, as papers measure them.

    The result is rounded to 8 bits, the luma is not, and SCALE border pixels are cropped. Models
    and images that fail are named; the rest goes on, and the exit status is 1.
    """
    from escsr.evaluation.comparison import Conditions, enter
    from escsr.evaluation.crops import CropGallery
    from escsr.evaluation.report import report_as_dict
    from escsr.evaluation.report_folder import prepare_report_folder, write_report
    from escsr.inference.devices import choose_device

    chosen_device = choose_device(device)
    metrics = _metrics(metric or [], device, niqe_parameters)
    if out is not None:
        prepare_report_folder(out, overwrite=overwrite)
    entrants = enter(model, data, scale=scale)
    conditions = Conditions(
        scale=entrants.scale,
        padding=padding.value,
        self_ensemble=self_ensemble,
        device=chosen_device,
        metrics=metrics,
    )
    gallery = CropGallery(0 if out is None else crops, scale=entrants.scale)
    comparison = _compared(entrants, conditions, gallery)
    if out is None:
        report = report_as_dict(comparison)
    else:
        report = write_report(out, comparison, gallery.crops)
        typer.echo(f"Results: {printable(out / 'results.md')}", err=True)
    _tell(comparison, report if json else None)
    if comparison.failures:
        raise typer.Exit(SOME_FAILED)


def _metrics(names: list[str], device: str, niqe_parameters: Path | None) -> "tuple[Metric, ...]":
    """The columns of the table: PSNR and SSIM, and what was asked for beside them."""
    from dataclasses import replace

    from escsr.errors import ConfigurationError
    from escsr.evaluation.metrics import FIDELITY_METRICS

    wanted = list(dict.fromkeys(name.strip().lower() for name in names))
    if niqe_parameters is not None and "niqe" not in wanted:
        raise ConfigurationError("--niqe-parameters are for --metric niqe; give that as well.")
    if not wanted:
        return FIDELITY_METRICS
    from escsr.evaluation.perceptual import load_metric
    from escsr.inference.devices import choose_device

    loaded = [
        load_metric(
            name,
            device=choose_device(device),
            niqe_parameters=niqe_parameters if name == "niqe" else None,
        )
        for name in wanted
    ]
    return (*FIDELITY_METRICS, *(replace(m.column(), note=m.note) for m in loaded))


def _compared(
    entrants: "Entrants", conditions: "Conditions", gallery: "CropGallery"
) -> "Comparison":
    from escsr.cli.evaluate_view import progress_shown
    from escsr.cli.interruption import stopping_cleanly
    from escsr.evaluation.comparison import compare

    with stopping_cleanly(), progress_shown(entrants.num_results) as on_result:
        return compare(entrants, conditions, gallery=gallery, on_result=on_result)


def _tell(comparison: "Comparison", report: "dict[str, Any] | None") -> None:
    """Tables, or the report as JSON, on stdout; what failed on stderr."""
    from escsr.cli.evaluate_view import failure_lines, print_comparison
    from escsr.evaluation.report import as_json

    if report is None:
        print_comparison(comparison)
    else:
        typer.echo(as_json(report))
    for line in failure_lines(comparison.failures):
        typer.echo(f"FAILED: {line}", err=True)
