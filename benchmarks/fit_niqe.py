"""Fit the parameters of NIQE on a folder of photographs.

Photographs are shrunk first, by MATLAB's bicubic, until their longer side is at most --longest
pixels: that hides traces of JPEG and of the camera's colour filter. Prints what was fitted as JSON.

    python benchmarks/fit_niqe.py photos/ -o niqe.safetensors --licence "MIT" --source "my photos"
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from escsr.engines.engine import Floats
from escsr.errors import ImageValueError
from escsr.evaluation.niqe import (
    NUM_FEATURES,
    NiqeParameters,
    PatchStatistics,
    describe_patches,
    fit_gaussian,
    save_niqe_parameters,
)
from escsr.evaluation.protocol import to_batch
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.resize import resize_bicubic_uint8


def photographs(folder: Path, *, longest_pixels: int) -> Iterator[Floats]:
    """Read the photographs of a folder and its subfolders, shrunk, (1, 3, H, W) in [0, 1]."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in READABLE_SUFFIXES:
            continue
        pixels = to_rgb_uint8(read_image(path).pixels)
        longest = max(pixels.shape[:2])
        if longest > longest_pixels:
            pixels = resize_bicubic_uint8(pixels, scale=longest_pixels / longest)
        yield to_batch(pixels)


SHARPNESS_THRESHOLD = 0.75
"""Patches less sharp than this share of their image's sharpest are left out: what lies out of
focus, and skies, says little of quality."""


def fit_niqe_parameters(
    photographs: Iterable[Floats], *, provenance: Mapping[str, str]
) -> NiqeParameters:
    """Fit the Gaussian of the sharp patches of good photographs.

    Args:
        photographs: each (1, 3, H, W) in [0, 1], at least two patches of 96x96; undistorted.
        provenance: what to say of them: source, licence. How many photographs and patches there
            were is added.
    Raises:
        ImageSizeError, ImageValueError: a photograph cannot be used; see ``niqe``.
        ImageValueError: not more patches than features, so that there is no covariance.
    Source: Mittal, Soundararajan, Bovik 2013, section II.
    """
    of_each = [_sharp_features(describe_patches(photograph)) for photograph in photographs]
    num_patches = sum(len(features) for features in of_each)
    if num_patches <= NUM_FEATURES:
        raise ImageValueError(
            f"{len(of_each)} photographs have {num_patches} sharp patches; to fit NIQE more than "
            f"{NUM_FEATURES} are needed, and thousands are better. Add photographs."
        )
    mean, covariance = fit_gaussian(np.concatenate(of_each))
    counts = {"photographs": str(len(of_each)), "patches": str(num_patches)}
    return NiqeParameters(
        mean=mean,
        covariance=covariance,
        provenance={**provenance, **counts},
    )


def _sharp_features(patches: PatchStatistics) -> Floats:
    is_sharp = patches.sharpness > SHARPNESS_THRESHOLD * patches.sharpness.max()
    return patches.features[is_sharp]


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
