"""Fit the parameters of NIQE on a folder of photographs.

Photographs are shrunk first, by MATLAB's bicubic, until their longer side is at most --longest
pixels: that hides traces of JPEG and of the camera's colour filter. Prints what was fitted as JSON.

    python benchmarks/fit_niqe.py photos/ -o niqe.safetensors --licence "MIT" --source "my photos"
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from escsr.evaluation.niqe_fit import fit_niqe_parameters
from escsr.evaluation.niqe_parameters import save_niqe_parameters
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.resize import resize_bicubic_uint8
from escsr.shapes import ImageBatch


def photographs(folder: Path, *, longest_pixels: int) -> Iterator[ImageBatch]:
    """Read the photographs of a folder and its subfolders, shrunk, (1, 3, H, W) in [0, 1]."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in READABLE_SUFFIXES:
            continue
        pixels = to_rgb_uint8(read_image(path).pixels)
        longest = max(pixels.shape[:2])
        if longest > longest_pixels:
            pixels = resize_bicubic_uint8(pixels, scale=longest_pixels / longest)
        yield torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def main() -> None:
    """Fit what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--longest", type=int, default=1280, help="longer side, in pixels")
    parser.add_argument("--source", required=True, help="what the photographs are")
    parser.add_argument("--licence", required=True, help="of the fitted parameters")
    options = parser.parse_args()
    provenance = {
        "source": options.source,
        "licence": options.licence,
        "longest_side_pixels": str(options.longest),
    }
    images = photographs(options.folder, longest_pixels=options.longest)
    parameters = fit_niqe_parameters(images, provenance=provenance)
    save_niqe_parameters(parameters, options.output)
    print(json.dumps({"file": options.output.name, **parameters.provenance}, indent=2))


if __name__ == "__main__":
    main()
