"""``escsr models``: what is in the box."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from escsr.weights import BundledModel


def models_command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the trained networks that come with the package, and those that it can load."""
    from escsr.errors import CheckpointError
    from escsr.weights import bundled_models

    try:
        models = bundled_models()
    except CheckpointError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    if json:
        from json import dumps

        typer.echo(
            dumps(
                {"in_the_box": [_entry(model) for model in models], "loadable": _loadable()},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        _print_table(models)


def _entry(model: "BundledModel") -> dict[str, Any]:
    from escsr.weights.inspection import config_parameters, output_macs

    provenance = model.header.provenance
    return {
        "name": model.name,
        "scale": model.scale,
        "parameters": config_parameters(model.header.config),
        "macs": output_macs(model.header.config),
        "size_bytes": model.size_bytes,
        "licence": provenance.licence,
        "date": provenance.date,
        "quality": dict(provenance.quality),
    }


def _loadable() -> list[str]:
    """Networks without weights in the box, which load from a checkpoint's path."""
    from escsr.model import VARIANTS
    from escsr.weights import bundled_models

    in_box = {model.name for model in bundled_models()}
    return [name for name in VARIANTS if name not in in_box]


def _print_table(models: "list[BundledModel]") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title="In the box", title_justify="left", box=None)
    for heading in ("Name", "Scale", "Parameters", "GMACs", "Licence", "PSNR-Y in dB"):
        table.add_column(heading, justify="right" if heading in ("Parameters", "GMACs") else "left")
    for entry in map(_entry, models):
        table.add_row(
            entry["name"],
            f"x{entry['scale']}",
            f"{entry['parameters']:,}",
            f"{entry['macs'] / 1e9:.1f}",
            entry["licence"],
            ", ".join(_luma_psnr(entry["quality"])),
        )
    if models:
        console.print(table)
        console.print("MACs are for an output of 1280x720 pixels.", style="dim")
    else:
        console.print("There are no weights in the box.")
    console.print(
        f"Loadable from a checkpoint's path: {', '.join(_loadable())}, and any other ESC.",
        style="dim",
    )


def _luma_psnr(quality: dict[str, float]) -> list[str]:
    """``{"Set5 PSNR-Y dB": 30.574, …}`` -> ``["Set5 30.57"]``; the rest is in ``--json``."""
    ending = " PSNR-Y dB"
    return [
        f"{name.removesuffix(ending)} {value:.2f}"
        for name, value in quality.items()
        if name.endswith(ending)
    ]
