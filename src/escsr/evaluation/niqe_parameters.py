"""What NIQE compares an image with: the statistics of natural photographs, and their files."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from escsr.errors import CheckpointError, ConfigurationError, MissingExtraError

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

    mean: Tensor
    """(36,) float64."""
    covariance: Tensor
    """(36, 36) float64, symmetric."""
    provenance: Mapping[str, str]
    """What is known of the fit: photographs, patches, licence; empty for files of others."""

    def __post_init__(self) -> None:
        shapes = tuple(self.mean.shape), tuple(self.covariance.shape)
        if shapes != ((NUM_FEATURES,), (NUM_FEATURES, NUM_FEATURES)):
            raise ConfigurationError(
                f"The mean of NIQE's parameters has shape {shapes[0]} and the covariance "
                f"{shapes[1]}; they must be ({NUM_FEATURES},) and ({NUM_FEATURES}, {NUM_FEATURES})."
            )
        if not bool(self.mean.isfinite().all() and self.covariance.isfinite().all()):
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
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata=header)


def _read_ours(path: Path) -> NiqeParameters:
    with safe_open(path, framework="pt") as file:
        header: dict[str, str] = file.metadata() or {}
        if header.get("kind") != FILE_KIND:
            raise ValueError(f'its kind is {header.get("kind")!r}, not "{FILE_KIND}"')
        mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
    provenance = {key: value for key, value in header.items() if key != "kind"}
    return NiqeParameters(mean=mean.double(), covariance=covariance.double(), provenance=provenance)


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
    found: dict[str, Tensor] = {}
    for name, spellings in _PUBLISHED_KEYS.items():
        key = next((key for key in spellings if key in arrays), None)
        if key is None:
            raise ValueError(f"it has no {' or '.join(spellings)}, but {sorted(arrays)}")
        found[name] = torch.from_numpy(np.array(arrays[key], dtype=np.float64))
    # MATLAB knows no vectors: the mean is a matrix of one row.
    return NiqeParameters(
        mean=found["mean"].flatten(), covariance=found["covariance"], provenance={}
    )
