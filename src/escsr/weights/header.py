"""What a file of weights says about itself, and how that is written into its header."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, cast

from escsr.errors import CheckpointError, ConfigurationError
from escsr.family.configuration import ESCConfig
from escsr.version import __version__
from escsr.weights.arrays import Array, as_array, dtype_name
from escsr.weights.checkpoint_file import read_metadata

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1

_PREFIX = "escsr."


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where weights come from and what may be done with them.

    Raises:
        ConfigurationError: no licence, no training data, or a date that is none.
    """

    licence: str
    """Of the weights; an SPDX identifier such as ``MIT`` where there is one."""
    training_data: str
    """What they were trained on, and under which licences it stands."""
    date: str
    """Day on which the training ended, ``YYYY-MM-DD``."""
    variant: str | None = None
    """Name of the network, such as ``esc-tiny``; None for one without a name."""
    recipe_name: str = ""
    """Name of the training recipe."""
    recipe: str = ""
    """The recipe's whole text."""
    source: str = ""
    """Who trained them, or where they were taken from."""
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was measured, such as ``{"Set5 PSNR-Y dB": 30.5}``."""

    def __post_init__(self) -> None:
        """Check what no file may go without."""
        for name, value in (("licence", self.licence), ("training_data", self.training_data)):
            if not value.strip():
                raise ConfigurationError(
                    f"Weights need a {name}: nobody may use what does not state it."
                )
        try:
            date.fromisoformat(self.date)
        except ValueError as error:
            raise ConfigurationError(
                f"The date is {self.date!r}; write it as YYYY-MM-DD."
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsHeader:
    """What one of our files says about itself."""

    config: ESCConfig
    provenance: Provenance
    sha256: str
    """Of the tensors as stored: ``hash_tensors``."""
    package_version: str
    """Version of escsr that wrote the file."""


def header_metadata(header: WeightsHeader) -> dict[str, str]:
    """The header as a safetensors file holds it: strings by name, ours beginning ``escsr.``."""
    provenance = header.provenance
    entries = {
        "format": str(FORMAT_VERSION),
        "config": json.dumps(header.config.to_dict()),
        "scale": str(header.config.scale),
        "variant": provenance.variant or "",
        "licence": provenance.licence,
        "training_data": provenance.training_data,
        "date": provenance.date,
        "recipe_name": provenance.recipe_name,
        "recipe": provenance.recipe,
        "source": provenance.source,
        "quality": json.dumps(dict(provenance.quality)),
        "sha256": header.sha256,
        "version": header.package_version,
    }
    # "format: pt" without our prefix is what other readers of safetensors look for.
    return {"format": "pt", **{f"{_PREFIX}{key}": value for key, value in entries.items()}}


def parse_header(path: Path, metadata: Mapping[str, str]) -> WeightsHeader | None:
    """Read our header from a safetensors file's metadata; None where the file is not ours.

    Raises:
        CheckpointError: of a later version, or damaged.
    """
    version = metadata.get(f"{_PREFIX}format")
    if version is None:
        return None
    if version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} is of format version {version}; this escsr {__version__} reads version "
            f"{FORMAT_VERSION}. Upgrade it: pip install --upgrade escsr."
        )
    try:
        return _from_entries(
            {
                key.removeprefix(_PREFIX): value
                for key, value in metadata.items()
                if key.startswith(_PREFIX)
            }
        )
    except Exception as error:  # a file may state anything
        raise CheckpointError(
            f"The header of {path} is damaged ({type(error).__name__}: {str(error)[:200]}). "
            "Download or copy it again."
        ) from error


def _from_entries(entries: Mapping[str, str]) -> WeightsHeader:
    quality = cast("dict[str, float]", json.loads(entries["quality"]))
    return WeightsHeader(
        config=ESCConfig.from_dict(json.loads(entries["config"])),
        provenance=Provenance(
            licence=entries["licence"],
            training_data=entries["training_data"],
            date=entries["date"],
            variant=entries["variant"] or None,
            recipe_name=entries["recipe_name"],
            recipe=entries["recipe"],
            source=entries["source"],
            quality={name: float(value) for name, value in quality.items()},
        ),
        sha256=entries["sha256"],
        package_version=entries["version"],
    )


def read_header(path: str | os.PathLike[str]) -> WeightsHeader:
    """Read what a file says about itself, without its tensors.

    Raises:
        CheckpointError: not one of our files, or a header that is damaged.
    """
    source = Path(path)
    header = parse_header(source, read_metadata(source))
    if header is None:
        raise not_ours(source)
    return header


def check_tensors(path: Path, tensors: Mapping[str, Array], header: WeightsHeader) -> None:
    """Check that the tensors are those that the header was written for.

    Raises:
        CheckpointError: their hash is another one.
    """
    if hash_tensors(tensors) != header.sha256:
        raise CheckpointError(
            f"The tensors of {path} are not those that its header was written for (their sha256 "
            "differs): the file is truncated or was changed. Download or copy it again."
        )


def hash_tensors(tensors: "Mapping[str, Array | Tensor]") -> str:
    """Sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = as_array(tensors[name])
        digest.update(f"{name} torch.{dtype_name(tensor.dtype)} {list(tensor.shape)}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def not_ours(path: Path) -> CheckpointError:
    """The error for a file without our header."""
    return CheckpointError(
        f"{path} has no header of escsr. If it holds reference weights, load it with "
        "escsr.load_model."
    )
