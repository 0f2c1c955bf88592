"""Judge networks on real photographs without a truth: NIQE of each result, and sheets to look at.

    python benchmarks/measure_real_world.py FOLDER esc-tiny-real rival.pth --out real.json \
        --sheets sheets/

Lower NIQE is better; ours is fitted on our own photographs (docs/training-photographs.tsv), so its
values compare networks here and are not those of papers. A sheet shows a crop of the input
enlarged by bicubic, then each network's.
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr import Upscaler
from escsr.evaluation.niqe import load_niqe_parameters, niqe
from escsr.evaluation.protocol import to_batch, to_pixels
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic
from escsr.images.writer import write_image
from escsr.rivals.rivals import load_rival
from escsr.version import __version__

SCALE = 4
CROP_PIXELS = 96
"""Side of a sheet's crop, in pixels of the input."""
LARGEST_PIXELS = 640
"""Larger inputs are cropped to their middle, so that no network is judged on tiles."""


def main() -> None:
    """Judge, print, write."""
    options = _options()
    parameters = load_niqe_parameters()
    models = ["bicubic", *options.models]
    figures: dict[str, dict[str, float]] = {model: {} for model in models}
    enlargers = {model: _enlarger(model) for model in options.models}
    for path in sorted(options.folder.iterdir()):
        image = _read(path)
        results = {
            "bicubic": torch.from_numpy(resize_bicubic(image.numpy(), scale=SCALE)).clamp(0, 1)
        }
        results |= {model: enlarge(image).clamp(0, 1) for model, enlarge in enlargers.items()}
        for model, result in results.items():
            figures[model][path.name] = niqe(result.numpy(), parameters)
        print(path.name, *(f"{figures[model][path.name]:.2f}" for model in models), flush=True)
        if options.sheets is not None:
            options.sheets.mkdir(parents=True, exist_ok=True)
            write_image(
                options.sheets / f"{path.stem}.png", _sheet(list(results.values())), overwrite=True
            )
    means = {model: float(np.mean(list(values.values()))) for model, values in figures.items()}
    print("mean", *(f"{model} {mean:.3f}" for model, mean in means.items()))
    if options.out is not None:
        record = {
            "date": datetime.date.today().isoformat(),
            "escsr": __version__,
            "torch": torch.__version__,
            "niqe": "of escsr, fitted on its training photographs; lower is better",
            "mean_niqe": {Path(model).stem: mean for model, mean in means.items()},
            "niqe_by_image": {Path(model).stem: values for model, values in figures.items()},
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", help="names in the box, or files that spandrel loads")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheets", type=Path)
    return parser.parse_args()


def _enlarger(model: str):
    """A function (1, 3, H, W) -> (1, 3, 4H, 4W)."""
    if Path(model).suffix:
        network = load_rival(model).network.eval()
        return lambda image: _run(network, image)
    upscaler = Upscaler(model, scale=SCALE, tile="whole")
    return lambda image: upscaler(image)


def _run(network: torch.nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(image)


def _read(path: Path) -> Tensor:
    pixels = to_rgb_uint8(read_image(path).pixels)
    height, width = pixels.shape[:2]
    top, left = (max(0, (side - LARGEST_PIXELS) // 2) for side in (height, width))
    pixels = pixels[top : top + LARGEST_PIXELS, left : left + LARGEST_PIXELS]
    return torch.from_numpy(to_batch(pixels))


def _sheet(results: list[Tensor]) -> npt.NDArray[np.uint8]:
    side = SCALE * CROP_PIXELS
    height, width = results[0].shape[-2:]
    top, left = (max(0, (length - side) // 2) for length in (height, width))
    window = (slice(top, top + side), slice(left, left + side))
    panels = [to_pixels(result.numpy())[window] for result in results]
    gap = np.full((panels[0].shape[0], 6, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


if __name__ == "__main__":
    main()
