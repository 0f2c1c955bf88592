"""``escsr models``: what is in the box."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from escsr.cli.console import SOME_FAILED, printable

if TYPE_CHECKING:
    from escsr.weights import BundledModel


def models_command(
    all_variants: Annotated[
        bool, typer.Option("--all", help="Every network that can be loaded, and what it costs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the trained networks that come with the package, and those that it can load."""
    from escsr.errors import CheckpointError
    from escsr.weights import bundled_models

    try:
        models = bundled_models()
    except CheckpointError as error:
        typer.echo(f"Error: {printable(error)}", err=True)
        raise typer.Exit(SOME_FAILED) from error
    if json:
        from json import dumps

        listing: dict[str, Any] = {
            "in_the_box": [_entry(model) for model in models],
            "loadable": _loadable(),
        }
        if all_variants:
            listing["variants"] = _variants(at_all_scales=True)
        typer.echo(dumps(listing, indent=2))
    elif all_variants:
        _print_variants()
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
    from escsr.family import VARIANTS
    from escsr.weights import bundled_models

    in_box = {model.name for model in bundled_models()}
    return [name for name in VARIANTS if name not in in_box]


def _print_table(models: "list[BundledModel]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    # No edge: three test sets just fit into 80 columns.
    table = Table(
        title="In the box", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False
    )
    for heading in ("Name", "Scale", "Parameters", "GMACs", "Licence", "PSNR-Y in dB"):
        table.add_column(heading, justify="right" if heading in ("Parameters", "GMACs") else "left")
    for entry in map(_entry, models):
        table.add_row(
            Text(printable(entry["name"])),
            f"x{entry['scale']}",
            f"{entry['parameters']:,}",
            f"{entry['macs'] / 1e9:.1f}",
            Text(printable(entry["licence"])),
            Text(printable(", ".join(_figures(entry["quality"])))),
        )
    if models:
        console.print(table)
        console.print("MACs are for an output of 1280x720 pixels.", style="dim")
    else:
        console.print("There are no weights in the box.")
    console.print(
        f"Loadable from a checkpoint's path: {', '.join(_loadable())}, and any other ESC. "
        "What they cost: escsr models --all",
        style="dim",
    )


def _variants(*, at_all_scales: bool) -> list[dict[str, Any]]:
    """Every named network, with what it costs at each factor it was published for, or the last."""
    from escsr.family import VARIANTS, variant
    from escsr.family.variants import variant_scales
    from escsr.weights.inspection import config_parameters, output_macs

    loadable = set(_loadable())
    entries: list[dict[str, Any]] = []
    for name, config in VARIANTS.items():
        scales = variant_scales(name)
        shown = scales if at_all_scales else scales[-1:]
        configs = [variant(name, scale=scale) for scale in shown]
        entries.append(
            {
                "name": name,
                "in_the_box": name not in loadable,
                "any_size": config.is_arbitrary_scale,
                "scales": list(scales),
                "window_size": config.window_size,
                "upsampler": config.upsampler,
                "at_scale": [
                    {
                        "scale": at_scale.scale,
                        "parameters": config_parameters(at_scale),
                        "macs": output_macs(at_scale),
                        "unshuffle": at_scale.unshuffle,
                    }
                    for at_scale in configs
                ],
            }
        )
    return entries


def _print_variants() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    # No edge: the widest name and upsampler just fit into 80 columns.
    table = Table(
        title="Networks", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False
    )
    right = ("Parameters", "GMACs", "Window")
    for heading in ("Name", "Parameters", "GMACs", "Scales", "Window", "Upsampler"):
        justify = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading == "Name")
    for entry in _variants(at_all_scales=False):
        largest = entry["at_scale"][-1]
        table.add_row(
            entry["name"],
            f"{largest['parameters']:,}",
            f"{largest['macs'] / 1e9:.1f}",
            _scales_in_words(entry),
            str(entry["window_size"]),
            entry["upsampler"],
        )
    console.print(table)
    console.print(
        "Parameters and MACs are of the largest scale, MACs for an output of 1280x720 pixels; "
        "--json has them all. Only names that 'escsr models' lists come with weights; of the "
        "others give a checkpoint's path: escsr upscale photo.jpg -n weights.pth",
        style="dim",
    )


def _scales_in_words(entry: dict[str, Any]) -> str:
    """``x2-x4``, ``x1`` or ``any``."""
    if entry["any_size"]:
        return "any"
    scales = entry["scales"]
    return f"x{scales[0]}" if len(scales) == 1 else f"x{scales[0]}-x{scales[-1]}"


def _figures(quality: dict[str, float]) -> list[str]:
    """``{"Set5 PSNR-Y dB": 30.574, …}`` -> ``["Set5 30.57"]``; the rest is in ``--json``.

    A network for photographs as they are is judged by NIQE alone: PSNR on clean ones is not its
    purpose.
    """
    niqe = [f"{name} {value:.2f}" for name, value in quality.items() if name.endswith(" NIQE")]
    ending = " PSNR-Y dB"
    return niqe or [
        f"{name.removesuffix(ending)} {value:.2f}"
        for name, value in quality.items()
        if name.endswith(ending)
    ]
