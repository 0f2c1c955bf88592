"""The checkpoint doctor: what a file of weights is, in figures and words."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escsr.errors import ConfigurationError
from escsr.family.complexity import count_macs
from escsr.family.configuration import WITH_OWN_WIDTH, ESCConfig
from escsr.family.variants import VARIANTS, variant
from escsr.family.weight_shapes import count_weights
from escsr.weights.arrays import dtype_name
from escsr.weights.checkpoint import Checkpoint, open_checkpoint
from escsr.weights.checkpoint_file import reading
from escsr.weights.header import WeightsHeader, hash_tensors

OUTPUT_WIDTH, OUTPUT_HEIGHT = 1280, 720
"""Of the image that multiply-accumulates are counted for, in pixels, as in the field's tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReport:
    """What one file of weights is."""

    path: Path
    variant: str | None
    """Name of the network; None where its configuration has none."""
    config: ESCConfig
    assumed: tuple[str, ...]
    """Fields of the configuration that the file does not tell: published values were taken."""
    parameters: int
    macs: int
    """For an output of 1280x720 pixels."""
    file_format: str
    """Who wrote the file, in which container, and which state dict of it was taken."""
    state_dict: str
    """The way to the weights in the file, such as ``params_ema`` or ``state_dict.net``."""
    is_averaged: bool
    """Whether that says that they are an average of training steps (EMA, SWA)."""
    other_state_dicts: tuple[str, ...]
    """Other weights of an ESC in the file, which were left aside."""
    dtype: str
    """Of the stored tensors; several are joined by a comma."""
    sha256: str
    """Of the tensors as stored, by our names."""
    header: WeightsHeader | None
    """Licence, training data, quality …; None where the file states none of it."""

    @property
    def scale(self) -> int:
        """Upscaling factor per side."""
        return self.config.scale

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        provenance = self.header.provenance if self.header is not None else None
        return {
            "path": str(self.path),
            "variant": self.variant,
            "scale": self.scale,
            "parameters": self.parameters,
            "macs": self.macs,
            "config": self.config.to_dict(),
            "assumed": list(self.assumed),
            "file_format": self.file_format,
            "state_dict": self.state_dict,
            "is_averaged": self.is_averaged,
            "other_state_dicts": list(self.other_state_dicts),
            "dtype": self.dtype,
            "sha256": self.sha256,
            "licence": provenance.licence if provenance else None,
            "training_data": provenance.training_data if provenance else None,
            "date": provenance.date if provenance else None,
            "recipe_name": provenance.recipe_name if provenance else None,
            "source": provenance.source if provenance else None,
            "quality": dict(provenance.quality) if provenance else {},
            "package_version": self.header.package_version if self.header else None,
        }


def inspect_checkpoint(path: str | os.PathLike[str]) -> CheckpointReport:
    """Say what a file of weights is, after checking that it can be loaded.

    Raises:
        CheckpointError: it cannot; says why and what to do.
    """
    with reading(Path(path)):
        return _report(open_checkpoint(Path(path)))


def _report(checkpoint: Checkpoint) -> CheckpointReport:
    weights = checkpoint.weights()
    return CheckpointReport(
        path=checkpoint.path,
        variant=variant_name(checkpoint.config),
        config=checkpoint.config,
        assumed=checkpoint.assumed,
        parameters=sum(array.size for array in weights.values()),
        macs=output_macs(checkpoint.config),
        file_format=_file_format(checkpoint),
        state_dict=checkpoint.section,
        is_averaged=checkpoint.is_averaged,
        other_state_dicts=checkpoint.other_sections,
        dtype=", ".join(sorted({dtype_name(array.dtype) for array in checkpoint.state.values()})),
        sha256=hash_tensors(checkpoint.state),
        header=checkpoint.header,
    )


def variant_name(config: ESCConfig) -> str | None:
    """The name of the network with this configuration at any scale; None where it has none."""
    for name in VARIANTS:
        try:
            if _used(variant(name, scale=config.scale)) == _used(config):
                return name
        except ConfigurationError:
            continue  # this one does not come at that scale
    return None


def _used(config: ESCConfig) -> ESCConfig:
    """With defaults for what its upsampler has no use for: records of upsamplers state all."""
    defaults = ESCConfig()
    if config.upsampler not in WITH_OWN_WIDTH:
        config = replace(config, upsampler_dim=defaults.upsampler_dim)
    if config.upsampler != "dysample":
        config = replace(config, dysample_groups=defaults.dysample_groups)
    return config


def output_macs(config: ESCConfig) -> int:
    """Multiply-accumulates for an output of 1280x720 pixels."""
    return count_macs(config, -(-OUTPUT_HEIGHT // config.scale), -(-OUTPUT_WIDTH // config.scale))


def config_parameters(config: ESCConfig) -> int:
    """Number of trainable values of a network with this configuration."""
    return count_weights(config)


def _file_format(checkpoint: Checkpoint) -> str:
    container = "safetensors" if checkpoint.container == "safetensors" else "PyTorch"
    if checkpoint.header is not None:
        return f"escsr, {container}"
    writer = "reference names" if checkpoint.naming == "reference" else "our names, no header"
    section = f", state dict {checkpoint.section}" if checkpoint.section else ""
    return f"{writer}, {container}{section}"
