"""``escsr evaluate``: PSNR and SSIM on test sets, by the field's protocol."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import typer

from escsr.cli.console import SOME_FAILED, printable

if TYPE_CHECKING:
    from escsr.engines.engine import BackendChoice
    from escsr.evaluation.comparison import Comparison, Conditions, Entrants, Failure
    from escsr.evaluation.crops import CropGallery
    from escsr.evaluation.metrics import Column

MODEL_HELP = (
    "A name in the box, a checkpoint, any file that spandrel loads, module:callable, or the word "
    "bicubic."
)
DATA_HELP = (
    "Test set: a folder of HR images, or one with HR and LR_bicubic/X4 inside; may be repeated."
)
METRIC_HELP = (
    "One more column; may be repeated: niqe, or lpips, dists, maniqa, musiq, clipiqa, fid "
    "(pip install 'escsr[metrics]'). FID is of a whole test set, and takes a minute for each."
)
PADDING_HELP = "window: to whole windows, as the official tester; none: as they are."


class Padding(StrEnum):
    """How LR images are extended."""

    WINDOW = "window"
    NONE = "none"


ModelArgument: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)
]
DataOption: TypeAlias = Annotated[list[Path], typer.Option(help=DATA_HELP, show_default=False)]
ScaleOption: TypeAlias = Annotated[
    int | None, typer.Option("-s", "--scale", min=1, help="Default: that of the first network.")
]
PaddingOption: TypeAlias = Annotated[Padding, typer.Option(help=PADDING_HELP)]
EnsembleOption: TypeAlias = Annotated[
    bool, typer.Option("--self-ensemble", help="Mean over the 8 flips and rotations.")
]
MetricOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(help=METRIC_HELP, show_default=False)
]
NiqeOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What NIQE compares with, instead of our photographs."),
]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
BackendOption: TypeAlias = Annotated[
    str,
    typer.Option(metavar="NAME", help="How ESC networks run: auto, native, eager, reference."),
]
OutOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Folder for results.md, .csv, .json and pictures."),
]
CropsOption: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Pictures in --out, of where two networks differ most.")
]
OverwriteOption: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Write into an --out folder that is not ours.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def evaluate_command(
    model: ModelArgument,
    data: DataOption,
    scale: ScaleOption = None,
    padding: PaddingOption = Padding.WINDOW,
    self_ensemble: EnsembleOption = False,
    metric: MetricOption = None,
    niqe_parameters: NiqeOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    out: OutOption = None,
    crops: CropsOption = 4,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Compare networks on test sets: PSNR and SSIM on Y and on RGB, as papers measure them.

    The result is rounded to 8 bits, the luma is not, and SCALE border pixels are cropped. Models,
    images and metrics that fail are named; the rest goes on, and the exit status is 1.
    """
    from dataclasses import replace

    from escsr.cli.evaluate_view import failure_lines, note_lines
    from escsr.engines.core_engine import choose_backend
    from escsr.engines.devices import choose_device
    from escsr.evaluation.comparison import enter
    from escsr.evaluation.crops import CropGallery
    from escsr.evaluation.report import prepare_report_folder

    chosen_device = choose_device(device)
    chosen_backend = choose_backend(cast("BackendChoice", backend), chosen_device)
    columns, unloaded = _columns(metric or [], chosen_device, niqe_parameters)
    if out is not None:
        prepare_report_folder(out, overwrite=overwrite)
    entrants = enter(model, data, scale=scale)
    entrants = replace(entrants, failures=[*entrants.failures, *unloaded])
    # Told again in the end; whoever mistyped a name need not wait for that.
    left_out = [f"left out: {line}" for line in failure_lines(entrants.failures)]
    for line in (*left_out, *note_lines(entrants.test_sets)):
        typer.echo(f"NOTE: {line}", err=True)
    conditions = replace(
        _conditions(entrants.scale, columns),
        padding=padding.value,
        self_ensemble=self_ensemble,
        device=chosen_device,
        backend=chosen_backend,
    )
    gallery = CropGallery(0 if out is None else crops, scale=entrants.scale)
    _tell(_compared(entrants, conditions, gallery), gallery, out=out, as_json=json)


def _columns(
    names: list[str], device: str, niqe_parameters: Path | None
) -> "tuple[list[Column], list[Failure]]":
    """PSNR, SSIM and what was asked for beside them; what misses its weights is named."""
    from escsr.errors import CheckpointError, ConfigurationError
    from escsr.evaluation.comparison import Failure
    from escsr.evaluation.metrics import FIDELITY_METRICS, load_column

    wanted = list(dict.fromkeys(name.strip().lower() for name in names))
    if niqe_parameters is not None and "niqe" not in wanted:
        raise ConfigurationError("--niqe-parameters are for --metric niqe; give that as well.")
    columns: list[Column] = [*FIDELITY_METRICS]
    failures: list[Failure] = []
    for name in wanted:
        try:
            columns.append(load_column(name, device=device, niqe_parameters=niqe_parameters))
        except CheckpointError as error:
            # The file of NIQE is the user's own, and a slip in its name is no reason to go on.
            if name == "niqe":
                raise
            failures.append(Failure(metric=name.upper(), error=str(error)))
    return columns, failures


def _conditions(scale: int, columns: "Sequence[Column]") -> "Conditions":
    from escsr.evaluation.comparison import Conditions
    from escsr.evaluation.metrics import Metric, SetMetric

    return Conditions(
        scale=scale,
        metrics=[column for column in columns if isinstance(column, Metric)],
        set_metrics=[column for column in columns if isinstance(column, SetMetric)],
    )


def _compared(
    entrants: "Entrants", conditions: "Conditions", gallery: "CropGallery"
) -> "Comparison":
    from escsr.cli.console import stopping_cleanly
    from escsr.cli.evaluate_view import progress_shown
    from escsr.evaluation.comparison import compare

    num_results = entrants.num_results(conditions)
    with stopping_cleanly(), progress_shown(num_results) as on_result:
        return compare(entrants, conditions, gallery=gallery, on_result=on_result)


def _tell(
    comparison: "Comparison", gallery: "CropGallery", *, out: Path | None, as_json: bool
) -> None:
    """Tables, or the report as JSON, on stdout and as files; what failed on stderr."""
    from escsr.cli.evaluate_view import failure_lines, print_comparison
    from escsr.evaluation import report
    from escsr.evaluation.report import write_report

    content: dict[str, Any]
    if out is None:
        content = report.report_as_dict(comparison)
    else:
        content = write_report(out, comparison, gallery.crops)
        typer.echo(f"Results: {printable(out / 'results.md')}", err=True)
    if as_json:
        typer.echo(report.as_json(content))
    else:
        print_comparison(comparison)
    for line in failure_lines(comparison.failures):
        typer.echo(f"FAILED: {line}", err=True)
    if comparison.failures:
        raise typer.Exit(SOME_FAILED)
