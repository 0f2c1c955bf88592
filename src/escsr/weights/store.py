"""Our own file of weights: one ``.safetensors`` that says everything about itself."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy

from escsr.errors import CheckpointError, ConfigurationError
from escsr.family.configuration import ESCConfig
from escsr.temporary_files import replace_file
from escsr.version import __version__
from escsr.weights.arrays import (
    BFLOAT16,
    Array,
    DType,
    as_array,
    as_float32,
    as_tensor,
    dtype_name,
    rounded,
)
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

if TYPE_CHECKING:
    import torch

    from escsr.model.network import ESC

_STORED_DTYPES: dict[str, DType] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}


def save_weights(
    path: str | os.PathLike[str],
    network: "ESC",
    *,
    provenance: Provenance,
    dtype: "torch.dtype | str | None" = None,
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
    state = {name: as_array(tensor) for name, tensor in network.state_dict().items()}
    save_state(path, network.config, state, provenance=provenance, dtype=dtype)


def save_state(
    path: str | os.PathLike[str],
    config: ESCConfig,
    state: Mapping[str, Array],
    *,
    provenance: Provenance,
    dtype: "torch.dtype | str | None" = None,
) -> None:
    """The same for arrays by our names, without torch; arguments and errors as there."""
    target = Path(path)
    if target.suffix.lower() != ".safetensors":
        raise ConfigurationError(f"{target} must end in .safetensors, the format that is written.")
    arrays = _storable(state, dtype)
    header = WeightsHeader(
        config=config,
        provenance=provenance,
        sha256=hash_tensors(arrays),
        package_version=__version__,
    )
    try:
        replace_file(target, _serialized(arrays, header_metadata(header)))
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from error


def _serialized(arrays: Mapping[str, Array], metadata: dict[str, str]) -> bytes:
    """The content of a file; safetensors knows bfloat16 by torch's tensors alone."""
    if all(array.dtype != BFLOAT16 for array in arrays.values()):
        return safetensors.numpy.save(dict(arrays), metadata)
    from safetensors.torch import save

    return save({name: as_tensor(array) for name, array in arrays.items()}, metadata)


def save_reference_weights(path: str | os.PathLike[str], network: "ESC") -> None:
    """Write a network as the reference's code reads it: a ``.pth`` with ``params``, ``params_ema``.

    Licence and provenance have no place in that file: give them beside it.

    Raises:
        CheckpointError: writing failed.
    """
    import torch

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


def load_weights(path: str | os.PathLike[str]) -> "ESC":
    """Read a network from one of our files, and from nothing else; see also ``load_model``.

    Returns:
        The network in float32 on the CPU, in evaluation mode.
    Raises:
        CheckpointError: not such a file, truncated, or changed since it was written.
    """
    from escsr.weights.building import build_network

    source = Path(path)
    file = read_checkpoint(source)
    with reading(source):
        header = parse_header(source, file.metadata)
        if header is None:
            raise not_ours(source)
        check_tensors(source, file.tensors, header)
        return build_network(header.config, file.tensors)


def _storable(state: Mapping[str, Array], dtype: "torch.dtype | str | None") -> dict[str, Array]:
    wanted = None if dtype is None else str(dtype).removeprefix("torch.")
    if wanted is not None and wanted not in _STORED_DTYPES:
        raise ConfigurationError(
            f"Weights cannot be stored as {dtype}; allowed are {', '.join(_STORED_DTYPES)}."
        )
    stored: dict[str, Array] = {}
    for name, array in state.items():
        values = as_float32(array)
        largest = float(np.abs(values).max(initial=0))
        with np.errstate(over="ignore"):
            kept = array if wanted is None else rounded(values, _STORED_DTYPES[wanted])
        if not np.isfinite(as_float32(kept)).all():
            raise CheckpointError(
                f"{name} holds NaN or Inf as {dtype_name(kept.dtype)} (its largest value is "
                f"{largest:g}). Save an earlier step, or as float32."
            )
        stored[name] = np.ascontiguousarray(kept)
    return stored
