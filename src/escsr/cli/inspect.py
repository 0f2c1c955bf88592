"""``escsr inspect``: what a file of weights is."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escsr.cli.console import SOME_FAILED, printable

if TYPE_CHECKING:
    from rich.table import Table

    from escsr.weights import CheckpointReport


_LONGEST = 2000
"""Characters of one entry of a file's header that are shown; --json has them all."""
_OTHERS_SHOWN = 5


def inspect_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Weights: .safetensors, .pth, .pt, .ckpt; a folder of them; or a name in the box "
            "(esc-tiny-x2).",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say what a checkpoint is: network, scale, size, cost, licence, where it came from.

    Of a folder, every file in it but hidden ones. Exit status 1 if any of the files cannot be used;
    the others are still shown.
    """
    from escsr.errors import CheckpointError, ConfigurationError
    from escsr.weights import find_weights, inspect_checkpoint

    reports: list[CheckpointReport] = []
    failures: dict[str, str] = {}
    for file in files:
        try:
            paths = _files_in(file) if _is_folder(file) else [find_weights(file)]
        except (CheckpointError, ConfigurationError) as error:
            failures[file] = str(error)
            continue
        for path in paths:
            try:
                reports.append(inspect_checkpoint(path))
            except (CheckpointError, ConfigurationError) as error:
                failures[str(path)] = str(error)
    if json:
        _print_json(reports, failures)
    else:
        _print_tables(reports, failures)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _print_json(reports: "list[CheckpointReport]", failures: dict[str, str]) -> None:
    from json import dumps

    entries = [report.to_dict() for report in reports]
    entries += [{"path": path, "error": message} for path, message in failures.items()]
    typer.echo(dumps(entries, indent=2))


def _print_tables(reports: "list[CheckpointReport]", failures: dict[str, str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for report in reports:
        console.print(_table(report))
    for message in failures.values():
        typer.echo(f"Error: {printable(message)}", err=True)
    num_files = len(reports) + len(failures)
    if num_files > 1:
        typer.echo(f"{len(reports)} of {num_files} files can be used.", err=True)


def _table(report: "CheckpointReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(printable(report.path)), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(report).items():
        table.add_row(name, Text(value))
    return table


def _rows(report: "CheckpointReport") -> dict[str, str]:
    rows = {
        "Network": report.variant or "custom ESC",
        "Scale": _scale(report),
        "Parameters": f"{report.parameters:,}",
        "MACs": f"{report.macs / 1e9:.1f} G for an output of 1280x720",
        **_architecture(report),
        "Stored": f"{report.file_format}; {report.dtype}",
        **_state_dicts(report),
        "Sha256 of tensors": report.sha256,
    }
    if report.header is None:
        rows["Licence"] = (
            "not stated in the file; the official ESC checkpoints are MIT, others ask their source"
        )
        return rows
    provenance = report.header.provenance
    quality = provenance.quality.items()
    figures = "\n".join(f"{_stated(name)} {value:g}" for name, value in quality)
    rows |= {
        "Licence": _stated(provenance.licence),
        "Trained on": _stated(provenance.training_data),
        "From": _stated(provenance.source) or "not stated",
        "Recipe": _stated(provenance.recipe_name) or "not stated",
        "Date": f"{provenance.date}, written by escsr {_stated(report.header.package_version)}",
        "Quality": figures or "not stated",
    }
    return rows


def _state_dicts(report: "CheckpointReport") -> dict[str, str]:
    """Which weights of a file were taken, where it says so or holds several."""
    if not report.state_dict and not report.other_state_dicts:
        return {}
    taken = _stated(report.state_dict) or "without a prefix"
    if report.is_averaged:
        taken += ", an average of training steps (EMA)"
    others = ", ".join(_stated(other) or "one without a prefix" for other in _few(report))
    return {"Weights": f"{taken}; left aside: {others}" if others else taken}


def _few(report: "CheckpointReport") -> tuple[str, ...]:
    shown = report.other_state_dicts[:_OTHERS_SHOWN]
    return shown if len(shown) == len(report.other_state_dicts) else (*shown, "…")


def _stated(text: str) -> str:
    """What a file says, for a terminal."""
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _scale(report: "CheckpointReport") -> str:
    config = report.config
    if config.is_arbitrary_scale:
        return _marked(report, "scale", f"any size; x{config.scale} unless one is asked for")
    restorer = " (restores at the same size)" if config.scale == 1 else ""
    return _marked(report, "scale", f"x{config.scale}{restorer}")


def _architecture(report: "CheckpointReport") -> dict[str, str]:
    from escsr.family.configuration import WITH_OWN_WIDTH

    config = report.config
    upsampler: str = config.upsampler
    if upsampler in WITH_OWN_WIDTH:
        upsampler += f", {config.upsampler_dim} channels"
    if upsampler.startswith("dysample"):
        upsampler += f" in {config.dysample_groups} groups"
    bias = config.position_bias
    if bias == "implicit":
        bias += f", rank {config.position_rank}, {config.position_frequencies} frequencies"
    rows = {
        "Shape": (
            f"dim {config.dim}, pdim {config.pdim}, {config.num_blocks} blocks of "
            f"{config.num_conv_layers} ConvAttn layers, {config.num_heads} heads, "
            f"{config.large_kernel} kernel {config.large_kernel_size}"
        ),
        "Window": _marked(report, "window_size", str(config.window_size)),
        "Position bias": bias + (", gated attention" if config.attention_gate else ""),
        "Upsampler": _marked(report, "dysample_groups", upsampler),
    }
    if config.unshuffle > 1:
        pixels = f"{config.unshuffle}x{config.unshuffle}"
        rows["Unshuffle"] = f"{config.unshuffle}: {pixels} pixels become channels first"
    shown = ("scale", "window_size", "dysample_groups")
    if others := [name for name in report.assumed if name not in shown]:
        values = config.to_dict()
        rows["Assumed"] = ", ".join(f"{name} {values[name]}" for name in others)
    return rows


def _marked(report: "CheckpointReport", field: str, text: str) -> str:
    """A value, and that it was assumed where the file does not tell it."""
    return f"{text} (assumed; no tensor tells it)" if field in report.assumed else text


def _is_folder(text: str) -> bool:
    from escsr.family import VARIANTS
    from escsr.weights.loading import normalised_name

    # Path.is_dir raises for very long names and below closed folders.
    return os.path.isdir(text) and normalised_name(text) not in VARIANTS  # noqa: PTH112


def _files_in(folder: str) -> list[Path]:
    """Every file in a folder but hidden ones, by name."""
    from escsr.errors import CheckpointError

    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error.strerror or error}); check its permissions."
        ) from error
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise CheckpointError(f"{folder} holds no files; give a folder of weights, or a file.")
    return paths
