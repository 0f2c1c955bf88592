"""``escsr evaluate``: PSNR and SSIM on test sets, by the field's protocol."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Name in the box, or a file of weights.")],
    data: Annotated[
        list[Path], typer.Option(help="Test set; may be repeated.", show_default=False)
    ],
    scale: Annotated[int | None, typer.Option("-s", "--scale", show_default=False)] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Do not extend the image to whole windows first.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure PSNR and SSIM on Y: 8-bit result, unrounded luma, SCALE border pixels cropped.

    As the reference's own tester, the LR image is extended by reflection to whole windows and the
    result cropped; --plain leaves that out.
    """
    from escsr.evaluation import evaluate, find_test_pairs
    from escsr.weights import load_model

    network = load_model(model, scale=scale)
    padding = 1 if plain else network.config.window_size
    test_sets: dict[str, list[dict[str, float | str]]] = {}
    for folder in data:
        pairs = find_test_pairs(folder, scale=network.scale)
        results = evaluate(network, pairs, scale=network.scale, pad_to_multiple=padding)
        test_sets[folder.name] = [
            {"name": r.name, "psnr_y_db": r.psnr_y_db, "ssim_y": r.ssim_y} for r in results
        ]
    means = {
        name: {
            "images": len(rows),
            **{
                key: sum(float(row[key]) for row in rows) / len(rows)
                for key in ("psnr_y_db", "ssim_y")
            },
        }
        for name, rows in test_sets.items()
    }
    if json:
        from json import dumps

        report = {"model": model, "scale": network.scale, "padded_to_windows": not plain}
        typer.echo(dumps(report | {"means": means, "images": test_sets}, indent=2))
        return
    for name, mean in means.items():
        typer.echo(
            f"{model} x{network.scale}  {name} ({mean['images']} images)  "
            f"PSNR-Y {mean['psnr_y_db']:.3f} dB  SSIM-Y {mean['ssim_y']:.4f}"
        )
