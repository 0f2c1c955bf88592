"""A checkpoint that was read and recognised, ready to become a network."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escsr.errors import CheckpointError, ConfigurationError
from escsr.family.configuration import ESCConfig
from escsr.weights.arrays import Array, Float32Array
from escsr.weights.checkpoint_file import CheckpointFile, Container, read_checkpoint, reading
from escsr.weights.fitting import Naming, fitted_weights
from escsr.weights.header import WeightsHeader, check_tensors, parse_header
from escsr.weights.recognition import is_named_as_ours, own_names, recognise

if TYPE_CHECKING:
    from escsr.model.attention.backends import AttentionBackend
    from escsr.model.network import ESC

_TOLD_BY_SHAPES = (
    "scale",
    "dim",
    "pdim",
    "num_blocks",
    "num_conv_layers",
    "window_size",
    "num_heads",
    "large_kernel_size",
    "upsampler",
    "unshuffle",
    "feature_skip",
    "position_bias",
    "attention_gate",
    "first_mixer",
    "layer_mixer",
    "dynamic_kernel",
    "share_large_kernel",
)

_TOLD_OF_LTE = ("texture_dim", "texture_mlp_dim", "texture_mlp_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The weights of one ESC, whoever wrote the file."""

    path: Path
    config: ESCConfig
    state: dict[str, Array]
    """By our names, dtypes as stored; arrays may share memory."""
    header: WeightsHeader | None
    """None where the file is not one of ours."""
    container: Container
    naming: Naming
    left_over: list[str]
    """Names in the file that no ESC has; ``weights`` refuses them."""
    section: str
    """The way to these weights in the file, such as ``params_ema``; empty where there is none."""
    is_averaged: bool
    """Whether that says that they are an average of training steps (EMA, SWA)."""
    other_sections: tuple[str, ...]
    """Other weights of an ESC in the file, which were left aside."""
    assumed: tuple[str, ...] = ()
    """Fields of the configuration that the file does not tell: published values were taken."""

    def weights(self) -> dict[str, Float32Array]:
        """All that the network needs, in float32: copies, in the order of its layers.

        Raises:
            CheckpointError: the tensors do not fit it; says which and how.
        """
        with reading(self.path), _naming(self.path):
            return fitted_weights(
                self.config, self.state, left_over=self.left_over, naming=self.naming
            )

    def build(self, *, attention_backend: "AttentionBackend" = "sdpa") -> "ESC":
        """The network as a module of torch's: evaluation mode, float32, on the CPU.

        Raises:
            CheckpointError: as of ``weights``.
        """
        from escsr.weights.building import network_of

        return network_of(self.config, self.weights(), attention_backend=attention_backend)


def open_checkpoint(path: Path, **overrides: Any) -> Checkpoint:
    """Read a file of weights and find out what network they are.

    Args:
        path: ``.safetensors``, ``.pth``, ``.pt`` or ``.ckpt``, ours or the reference's.
        overrides: fields of ``ESCConfig`` that the file does not tell.
    Raises:
        CheckpointError: unreadable, damaged, malicious, or not the weights of an ESC.
        ConfigurationError: an override is unknown, or contradicts the file.
    """
    file = read_checkpoint(path, only_esc=True)
    with reading(path):
        header = parse_header(path, file.metadata)
        if header is not None:
            check_tensors(path, file.tensors, header)
        with _naming(path):
            return _recognise(path, file, header, overrides)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Put the file's name before an error that does not say it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _recognise(
    path: Path,
    file: CheckpointFile,
    header: WeightsHeader | None,
    overrides: Mapping[str, Any],
) -> Checkpoint:
    stated = None if header is None else header.config
    recognised = recognise(file.tensors, stated=stated)
    inferred, assumed = recognised.config, recognised.assumed
    if header is not None:
        _require_agreement(header.config, inferred, assumed)
        assumed = ()
    config = _overridden(stated or inferred, header, overrides, assumed)
    left_over, state = own_names(file.tensors)
    return Checkpoint(
        path=path,
        config=config,
        state=state,
        header=header,
        container=file.container,
        naming="ours" if is_named_as_ours(file.tensors) else "reference",
        left_over=left_over,
        section=file.section,
        is_averaged=file.is_averaged,
        other_sections=file.other_sections,
        assumed=tuple(name for name in assumed if name not in overrides),
    )


def _require_agreement(stated: ESCConfig, inferred: ESCConfig, assumed: tuple[str, ...]) -> None:
    stated_values, inferred_values = stated.to_dict(), inferred.to_dict()
    names = (*_TOLD_BY_SHAPES, *(_TOLD_OF_LTE if inferred.upsampler == "lte" else ()))
    for name in names:
        if name not in assumed and stated_values[name] != inferred_values[name]:
            raise CheckpointError(
                f"The header says {name} {stated_values[name]}, the tensors say "
                f"{inferred_values[name]}. The file was changed; download or copy it again."
            )
    widths = [
        (int(config.dim * config.first_expansion), int(config.dim * config.expansion))
        for config in (stated, inferred)
    ]
    if widths[0] != widths[1] and stated.num_conv_layers > 0:
        raise CheckpointError(
            f"The header says hidden widths {widths[0]}, the tensors say {widths[1]}. The file was "
            "changed; download or copy it again."
        )


def _overridden(
    config: ESCConfig,
    header: WeightsHeader | None,
    overrides: Mapping[str, Any],
    assumed: tuple[str, ...],
) -> ESCConfig:
    known = config.to_dict()
    told = [name for name in _TOLD_BY_SHAPES if name not in assumed]
    for name, value in overrides.items():
        if name not in known:
            raise ConfigurationError(
                f"Unknown option {name!r}; allowed are attention_backend, {', '.join(known)}."
            )
        if value != known[name] and (header is not None or name in told):
            raise ConfigurationError(
                f"{name} was asked to be {value!r}, but the file says {known[name]!r}. Leave it "
                "out: only what a file does not tell can be set."
            )
    return replace(config, **overrides)
