"""``escsr inspect``: what a file of weights is."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from escsr.weights import CheckpointReport


def inspect_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Weights: .safetensors, .pth, .pt, .ckpt, or a name in the box (esc-tiny-x2).",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say what a checkpoint is: network, scale, size, cost, licence, where it came from.

    Exit status 1 if any of the files cannot be used; the others are still shown.
    """
    from escsr.errors import CheckpointError, ConfigurationError
    from escsr.weights import find_weights, inspect_checkpoint

    reports: list[CheckpointReport] = []
    failures: dict[str, str] = {}
    for file in files:
        try:
            reports.append(inspect_checkpoint(find_weights(file)))
        except (CheckpointError, ConfigurationError) as error:
            failures[file] = str(error)
    if json:
        _print_json(reports, failures)
    else:
        _print_tables(reports, failures)
    if failures:
        raise typer.Exit(1)


def _print_json(reports: "list[CheckpointReport]", failures: dict[str, str]) -> None:
    from json import dumps

    entries = [report.to_dict() for report in reports]
    entries += [{"path": path, "error": message} for path, message in failures.items()]
    typer.echo(dumps(entries, indent=2, ensure_ascii=False))


def _print_tables(reports: "list[CheckpointReport]", failures: dict[str, str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for report in reports:
        console.print(_table(report))
    for message in failures.values():
        typer.echo(f"Error: {message}", err=True)


def _table(report: "CheckpointReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(str(report.path)), title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(report).items():
        table.add_row(name, Text(value))
    return table


def _rows(report: "CheckpointReport") -> dict[str, str]:
    config = report.config
    rows = {
        "Network": report.variant or "custom ESC",
        "Scale": f"x{report.scale}",
        "Parameters": f"{report.parameters:,}",
        "MACs": f"{report.macs / 1e9:.1f} G for an output of 1280x720",
        "Shape": (
            f"dim {config.dim}, pdim {config.pdim}, {config.num_blocks} blocks of "
            f"{config.num_conv_layers} ConvAttn layers, window {config.window_size}, "
            f"{config.num_heads} heads, {config.large_kernel} kernel {config.large_kernel_size}"
        ),
        "Stored": f"{report.file_format}; {report.dtype}",
        "Sha256 of tensors": report.sha256,
    }
    if report.header is None:
        rows["Licence"] = (
            "not stated in the file; the official ESC checkpoints are MIT, others ask their source"
        )
        return rows
    provenance = report.header.provenance
    figures = "\n".join(f"{name} {value:g}" for name, value in provenance.quality.items())
    rows |= {
        "Licence": provenance.licence,
        "Trained on": provenance.training_data,
        "From": provenance.source or "not stated",
        "Recipe": provenance.recipe_name or "not stated",
        "Date": f"{provenance.date}, written by escsr {report.header.package_version}",
        "Quality": figures or "not stated",
    }
    return rows
