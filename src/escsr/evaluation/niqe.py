"""NIQE: how natural an image looks, told without a reference.

The pixels of a photograph, less their local mean and divided by their local deviation, follow much
the same distribution in every natural photograph. Blur, noise and compression change its shape.
NIQE describes the patches of an image by that shape and measures how far they lie from those of
good photographs.

Legend, beside ``escsr.shapes``: P patches of an image, N samples of one of them.

Source: Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", 2013.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from escsr.engines.engine import Floats
from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    ImageSizeError,
    ImageValueError,
    MissingExtraError,
)
from escsr.images.metrics import gaussian_window, windowed_mean
from escsr.images.resize import resize_bicubic

_Float64 = npt.NDArray[np.float64]

PATCH_PIXELS = 96
"""Side of a patch; what is left over at the right and bottom is not looked at."""

LEAST_PATCHES = 2
"""Of an image: one alone has no covariance."""

_WINDOW = gaussian_window(7, 7 / 6)
_ROUNDING_REST = 1e-9
"""In levels of 255: less than any difference of pixels leaves under the window, more than float64
rounds away."""

_GREY_WEIGHTS = (0.298936021293776, 0.587043074451121, 0.114020904255103)
"""Of R, G and B in the luma of BT.601 over the full range, as MATLAB's ``rgb2gray`` has them."""

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Steps (down, right) between the two coefficients of a pair."""


@dataclass(frozen=True, slots=True)
class PatchStatistics:
    """What an image's patches look like, row by row of the image."""

    features: _Float64
    """(P, 36) float64: 18 at full size, then 18 at half. NaN in patches without texture."""
    sharpness: _Float64
    """(P,) float64: mean local deviation, in levels of 255."""


def niqe(image: Floats, parameters: "NiqeParameters") -> float:
    """Measure how far an image lies from natural photographs; 0 is nearest.

    The luma of BT.601 over the full range 0 to 255 is rounded to integers, as in the authors'
    program. (BasicSR's is from 16 to 235; pyiqa's weights have three digits, which rounds 1 % of
    the pixels differently and moved values by up to 0.03.) Borders are extended by repeating the
    edge pixel; the half size is MATLAB's bicubic with antialiasing. All is float64.

    Args:
        image: (1, 3, H, W) in [0, 1], rounded to 8 bits where the protocol asks for it; at least
            192x96 or 96x192 pixels.
        parameters: what natural photographs look like. Values measured with different parameters
            cannot be compared; published values use the authors' own.
    Returns:
        The distance, at least 0; low is good.
    Raises:
        ImageSizeError: fewer than two patches of 96x96.
        ImageValueError: another shape or type, NaN, or hardly any texture (a constant image).
    """
    mean, covariance = fit_gaussian(describe_patches(image).features)
    difference = mean - parameters.mean
    # An image has fewer patches than features, so the inverse may not exist.
    inverse = np.linalg.pinv((covariance + parameters.covariance) / 2, hermitian=True)
    return math.sqrt(max(0.0, float(difference @ inverse @ difference)))


def fit_gaussian(features: _Float64) -> tuple[_Float64, _Float64]:
    """Fit a multivariate Gaussian to patches.

    As in the authors' program, a patch where only some features are numbers counts for the mean of
    those, and not for the covariance.

    Args:
        features: (P, 36), with NaN where a patch has no texture.
    Returns:
        Mean (36,) and covariance (36, 36).
    Raises:
        ImageValueError: fewer than two patches have texture.
    """
    complete = features[np.isfinite(features).all(axis=1)]
    if len(complete) < LEAST_PATCHES:
        raise ImageValueError(
            f"NIQE needs texture in at least {LEAST_PATCHES} patches of {PATCH_PIXELS}x"
            f"{PATCH_PIXELS} pixels; here {len(complete)} of {len(features)} have it, and the "
            "others are constant. Leave the image out."
        )
    return np.nanmean(features, axis=0), np.cov(complete.T)


def describe_patches(image: Floats) -> PatchStatistics:
    """Cut an image into patches and describe each by its natural-scene statistics.

    Args and errors as in :func:`niqe`.
    """
    grey = _whole_patches(_grey_levels(image))
    coefficients, deviation = normalize_contrast(grey)
    half_coefficients, _ = normalize_contrast(resize_bicubic(grey, scale=0.5))
    full = _scene_statistics(_cut_patches(coefficients, PATCH_PIXELS))
    half = _scene_statistics(_cut_patches(half_coefficients, PATCH_PIXELS // 2))
    sharpness = _cut_patches(deviation, PATCH_PIXELS).mean(axis=(1, 2))
    return PatchStatistics(np.concatenate((full, half), axis=1), sharpness)


def normalize_contrast(grey: _Float64) -> tuple[_Float64, _Float64]:
    """Subtract the local mean and divide by the local deviation plus 1 (MSCN coefficients).

    Differs: what rounding leaves of a constant area is set to 0, since the fit counts signs, and
    the sign of such a rest depends on the machine (test_niqe.py::test_a_constant_area_is_zero).

    Args:
        grey: (1, 1, H, W) float64, 0 to 255.
    Returns:
        The coefficients and the local deviation, both (1, 1, H, W).
    """
    mean = _local_mean(grey)
    # Rounding can leave a constant area a little below zero.
    deviation = np.sqrt(np.abs(_local_mean(grey * grey) - mean * mean))
    rest = grey - mean
    rest[np.abs(rest) <= _ROUNDING_REST] = 0.0
    return rest / (deviation + 1.0), deviation


def fit_asymmetric_gaussian(samples: _Float64) -> tuple[_Float64, _Float64, _Float64]:
    """Fit generalised Gaussians whose two sides differ in width, by matching moments.

    The density is proportional to exp(-(|x| / scale)^shape), with another scale left of zero.

    Args:
        samples: (P, N) float64, one row per fit.
    Returns:
        Shape (2 is Gaussian, 1 Laplacian; 0.2 to 10 in steps of 0.001), left scale and right
        scale, each (P,); the scales are NaN where a side has no samples.
    Source: Lasmar, Stitou, Berthoumieu, "Multiscale skewed heavy tailed model", 2009.
    """
    squares = samples * samples
    left = _root_mean(squares, where=samples < 0)
    right = _root_mean(squares, where=samples > 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a constant patch
        ratio = left / right
        peakedness = np.abs(samples).mean(axis=1) ** 2 / squares.mean(axis=1)
        moment_ratio = peakedness * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, midpoints = _moment_ratios_by_shape()
    shape = shapes[np.searchsorted(midpoints, moment_ratio)]
    scale_of_deviation = np.exp((_lgamma(1 / shape) - _lgamma(3 / shape)) / 2)
    return shape, left * scale_of_deviation, right * scale_of_deviation


def _scene_statistics(patches: _Float64) -> _Float64:
    """Describe patches of coefficients, (P, side, side), by (P, 18) numbers."""
    shape, left, right = fit_asymmetric_gaussian(patches.reshape(len(patches), -1))
    columns = [shape, (left + right) / 2]
    for step in _NEIGHBOURS:
        # Around the patch's edge, as the authors do.
        products = patches * np.roll(patches, step, axis=(1, 2))
        shape, left, right = fit_asymmetric_gaussian(products.reshape(len(patches), -1))
        mean = (right - left) * np.exp(_lgamma(2 / shape) - _lgamma(1 / shape))
        columns += [shape, mean, left, right]
    return np.stack(columns, axis=1)


_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


@cache
def _moment_ratios_by_shape() -> tuple[_Float64, _Float64]:
    """Shapes, and the ratios of moments halfway between two neighbouring ones, ascending."""
    shapes = np.arange(200, 10_001) / 1000
    ratios = np.exp(2 * _lgamma(2 / shapes) - _lgamma(1 / shapes) - _lgamma(3 / shapes))
    return shapes, (ratios[1:] + ratios[:-1]) / 2


def _root_mean(squares: _Float64, *, where: npt.NDArray[np.bool_]) -> _Float64:
    with np.errstate(invalid="ignore"):  # NaN of no samples
        return np.sqrt((squares * where).sum(axis=1) / where.sum(axis=1))


def _local_mean(plane: _Float64) -> _Float64:
    beyond = len(_WINDOW) // 2
    padded = np.pad(plane, ((0, 0), (0, 0), (beyond, beyond), (beyond, beyond)), mode="edge")
    return windowed_mean(padded, _WINDOW)


def _cut_patches(plane: _Float64, side: int) -> _Float64:
    """(1, 1, H, W) -> (P, side, side), row-major; H and W are multiples of ``side``."""
    _, _, height, width = plane.shape
    grid = plane.reshape(height // side, side, width // side, side)
    return grid.swapaxes(1, 2).reshape(-1, side, side)


def _whole_patches(grey: _Float64) -> _Float64:
    height, width = grey.shape[2:]
    rows, columns = height // PATCH_PIXELS, width // PATCH_PIXELS
    if rows * columns < LEAST_PATCHES:
        raise ImageSizeError(
            f"NIQE needs at least {LEAST_PATCHES} patches of {PATCH_PIXELS}x{PATCH_PIXELS} pixels; "
            f"{width}x{height} pixels hold {rows * columns}. Leave the image out, or judge a "
            "larger one."
        )
    return grey[..., : rows * PATCH_PIXELS, : columns * PATCH_PIXELS]


def _grey_levels(image: Floats) -> _Float64:
    if image.ndim != 4 or image.shape[:2] != (1, 3) or image.dtype.kind != "f":
        raise ImageValueError(
            f"NIQE judges one floating-point RGB image (1, 3, H, W); came {image.dtype} of shape "
            f"{image.shape}."
        )
    levels = image.astype(np.float64) * 255
    if not np.isfinite(levels).all():
        raise ImageValueError("The image holds NaN or infinity; NIQE needs values in [0, 1].")
    red, green, blue = np.split(levels, 3, axis=1)
    of_red, of_green, of_blue = _GREY_WEIGHTS
    return np.floor(of_red * red + of_green * green + of_blue * blue + 0.5)


# Parameters, and their files.

NUM_FEATURES = 36
"""18 of each patch at two sizes."""

FILE_KIND = "escsr NIQE parameters, version 1"
"""Stands in the header of a file of ours, under ``kind``."""

SHIPPED_FILE = Path(__file__).with_name("niqe_photographs.safetensors")
"""Our own fit; ``benchmarks/fit_niqe.py`` made it, and its header says of what."""

_PUBLISHED_KEYS = {
    "mean": ("mu_prisparam", "mu_pris_param"),
    "covariance": ("cov_prisparam", "cov_pris_param"),
}
"""As the authors' ``modelparameters.mat`` spells them, and as its NumPy copies do."""

_DAMAGED = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    SafetensorError,
)
"""What the three readers raise at a file that is not what its suffix says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NiqeParameters:
    """The multivariate Gaussian that the patches of natural photographs follow."""

    mean: _Float64
    """(36,) float64."""
    covariance: _Float64
    """(36, 36) float64, symmetric."""
    provenance: Mapping[str, str]
    """What is known of the fit: photographs, patches, licence; empty for files of others."""

    def __post_init__(self) -> None:
        shapes = self.mean.shape, self.covariance.shape
        if shapes != ((NUM_FEATURES,), (NUM_FEATURES, NUM_FEATURES)):
            raise ConfigurationError(
                f"The mean of NIQE's parameters has shape {shapes[0]} and the covariance "
                f"{shapes[1]}; they must be ({NUM_FEATURES},) and ({NUM_FEATURES}, {NUM_FEATURES})."
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ConfigurationError("NIQE's parameters hold NaN or infinity; fit them again.")


def load_niqe_parameters(path: Path | None = None) -> NiqeParameters:
    """Read parameters of NIQE.

    Args:
        path: ``.safetensors`` as ``save_niqe_parameters`` writes it; the authors'
            ``modelparameters.mat``; or a ``.npz`` with the same two arrays. None means ours.
    Raises:
        ConfigurationError: another suffix.
        CheckpointError: missing, damaged, without the arrays, or with others of another shape.
        MissingExtraError: a ``.mat`` file, and SciPy is not installed.
    """
    path = SHIPPED_FILE if path is None else path.expanduser()
    readers = {".safetensors": _read_ours, ".npz": _read_npz, ".mat": _read_mat}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(
            f"{path} is no file of NIQE parameters by its suffix; allowed are {', '.join(readers)}."
        )
    try:
        path.stat()  # before SciPy is asked for
        return reader(path)
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} cannot be read as parameters of NIQE ({error}). Give the authors' "
            "modelparameters.mat, a .npz with its mu_prisparam and cov_prisparam, or a "
            ".safetensors that benchmarks/fit_niqe.py wrote."
        ) from error


def save_niqe_parameters(parameters: NiqeParameters, path: Path) -> None:
    """Write parameters as a ``.safetensors`` file, the provenance in its header."""
    header = {**parameters.provenance, "kind": FILE_KIND}
    tensors = {"mean": parameters.mean, "covariance": parameters.covariance}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata=header)


def _read_ours(path: Path) -> NiqeParameters:
    with safe_open(path, framework="np") as file:
        header: dict[str, str] = file.metadata() or {}
        if header.get("kind") != FILE_KIND:
            raise ValueError(f'its kind is {header.get("kind")!r}, not "{FILE_KIND}"')
        mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
    provenance = {key: value for key, value in header.items() if key != "kind"}
    return NiqeParameters(
        mean=mean.astype(np.float64),
        covariance=covariance.astype(np.float64),
        provenance=provenance,
    )


def _read_npz(path: Path) -> NiqeParameters:
    with np.load(path, allow_pickle=False) as arrays:
        return _of_published(arrays)


def _read_mat(path: Path) -> NiqeParameters:
    try:
        # SciPy is not among the tools of [dev], so its types are not known.
        from scipy.io import loadmat  # pyright: ignore[reportMissingImports]
        from scipy.io.matlab import MatReadError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            f"Reading {path.name} needs SciPy: pip install 'escsr[metrics]'"
        ) from error
    try:
        return _of_published(loadmat(path))
    except MatReadError as error:
        raise ValueError(str(error)) from error


def _of_published(arrays: Mapping[str, Any]) -> NiqeParameters:
    found: dict[str, _Float64] = {}
    for name, spellings in _PUBLISHED_KEYS.items():
        key = next((key for key in spellings if key in arrays), None)
        if key is None:
            raise ValueError(f"it has no {' or '.join(spellings)}, but {sorted(arrays)}")
        found[name] = np.array(arrays[key], dtype=np.float64)
    # MATLAB knows no vectors: the mean is a matrix of one row.
    return NiqeParameters(mean=found["mean"].ravel(), covariance=found["covariance"], provenance={})
