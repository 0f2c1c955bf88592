"""Our own file of weights: one ``.safetensors`` that says everything about itself."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from escsr.errors import CheckpointError, ConfigurationError
from escsr.model.network import ESC
from escsr.temporary_files import replace_file
from escsr.version import __version__
from escsr.weights.building import build_network
from escsr.weights.checkpoint_file import read_checkpoint, reading
from escsr.weights.header import (
    Provenance,
    WeightsHeader,
    check_tensors,
    hash_tensors,
    header_metadata,
    not_ours,
    parse_header,
)
from escsr.weights.official import to_reference

_STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def save_weights(
    path: str | os.PathLike[str],
    network: ESC,
    *,
    provenance: Provenance,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network and everything about it to one file, whole or not at all.

    Args:
        path: of a ``.safetensors`` file; an old one is replaced.
        network: on any device.
        provenance: licence, training data and so on.
        dtype: to store in: float32, float16 (half the size) or bfloat16; None keeps the network's.
    Raises:
        ConfigurationError: another dtype or suffix.
        CheckpointError: NaN or Inf in the weights, or in them as ``dtype``; or writing failed.
    """
    target = Path(path)
    if target.suffix.lower() != ".safetensors":
        raise ConfigurationError(f"{target} must end in .safetensors, the format that is written.")
    tensors = _storable(network.state_dict(), dtype)
    header = WeightsHeader(
        config=network.config,
        provenance=provenance,
        sha256=hash_tensors(tensors),
        package_version=__version__,
    )
    try:
        replace_file(target, safetensors.torch.save(tensors, header_metadata(header)))
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from error


def save_reference_weights(path: str | os.PathLike[str], network: ESC) -> None:
    """Write a network as the reference's code reads it: a ``.pth`` with ``params``, ``params_ema``.

    Licence and provenance have no place in that file: give them beside it.

    Raises:
        CheckpointError: writing failed.
    """
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in to_reference(network.state_dict(), network.config).items()
    }
    target = Path(path)
    try:
        content = io.BytesIO()
        torch.save({"params": state, "params_ema": state}, content)
        replace_file(target, content.getbuffer())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from error


def load_weights(path: str | os.PathLike[str]) -> ESC:
    """Read a network from one of our files, and from nothing else; see also ``load_model``.

    Returns:
        The network in float32 on the CPU, in evaluation mode.
    Raises:
        CheckpointError: not such a file, truncated, or changed since it was written.
    """
    source = Path(path)
    file = read_checkpoint(source)
    with reading(source):
        header = parse_header(source, file.metadata)
        if header is None:
            raise not_ours(source)
        check_tensors(source, file.tensors, header)
        return build_network(header.config, file.tensors)


def _storable(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    if dtype is not None and dtype not in _STORED_DTYPES:
        raise ConfigurationError(
            f"Weights cannot be stored as {dtype}; allowed are "
            f"{', '.join(str(allowed) for allowed in _STORED_DTYPES)}."
        )
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stored[name] = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        if not torch.isfinite(stored[name]).all():
            raise CheckpointError(
                f"{name} holds NaN or Inf as {stored[name].dtype} (its largest value is "
                f"{tensor.abs().max().item():g}). Save an earlier step, or as float32."
            )
    return stored
