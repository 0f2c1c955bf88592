"""``escsr evaluate``: PSNR and SSIM on test sets, by the field's protocol."""

from dataclasses import asdict
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
    from escsr.evaluation import evaluate, evaluate_officially, find_test_pairs, mean_quality
    from escsr.weights import load_model

    network = load_model(model, scale=scale)
    report = {"model": model, "scale": network.scale, "padded_to_windows": not plain}
    means: dict[str, object] = {}
    images: dict[str, object] = {}
    for folder in data:
        pairs = find_test_pairs(folder, scale=network.scale)
        judged = (
            evaluate(network, pairs, scale=network.scale)
            if plain
            else evaluate_officially(network, pairs)
        )
        results = list(judged)
        psnr_y_db, ssim_y = mean_quality(results)
        means[folder.name] = {"images": len(results), "psnr_y_db": psnr_y_db, "ssim_y": ssim_y}
        images[folder.name] = [asdict(result) for result in results]
        if not json:
            typer.echo(
                f"{model} x{network.scale}  {folder.name} ({len(results)} images)  "
                f"PSNR-Y {psnr_y_db:.3f} dB  SSIM-Y {ssim_y:.4f}"
            )
    if json:
        from json import dumps

        typer.echo(dumps(report | {"means": means, "images": images}, indent=2))
