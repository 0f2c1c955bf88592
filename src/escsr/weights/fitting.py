"""The weights that a network needs, out of those that are there, or exactly why they do not fit."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from escsr.errors import CheckpointError
from escsr.family.configuration import ESCConfig
from escsr.family.weight_shapes import weight_shapes
from escsr.weights.arrays import (
    Array,
    Float32Array,
    Shaped,
    as_float32,
    dtype_name,
    is_floating_point,
)
from escsr.weights.official import reference_names

_NAMES_SHOWN = 4

Naming = Literal["ours", "reference"]


def fitted_weights(
    config: ESCConfig,
    state: Mapping[str, Array],
    *,
    left_over: list[str] | None = None,
    naming: Naming = "ours",
) -> dict[str, Float32Array]:
    """Check that arrays are the weights of a network, and copy them to float32.

    Args:
        config: of the network.
        state: arrays by our names, of any floating-point dtype.
        left_over: names that were set aside before because no ESC has them.
        naming: whose names an error is to speak of.
    Returns:
        All that the network needs and nothing else, in the order of its layers.
    Raises:
        CheckpointError: names or shapes do not fit, or an array holds NaN or Inf.
    """
    _require_depth(config, state)
    expected = {name: _Expected(shape) for name, shape in weight_shapes(config).items()}
    _require_fit(expected, state, left_over or [], naming)
    return {name: _as_float32(name, state[name]) for name in expected}


class _Expected(NamedTuple):
    """An array that a network needs."""

    shape: tuple[int, ...]


def _require_fit(
    expected: Mapping[str, Shaped],
    state: Mapping[str, Shaped],
    left_over: list[str],
    naming: Naming,
) -> None:
    names = list(expected) if naming == "ours" else reference_names(expected)
    in_file = dict(zip(expected, names, strict=True))
    missing = [in_file[name] for name in expected if name not in state]
    extra = [*left_over, *(name for name in state if name not in expected)]
    reshaped = [
        f"{in_file[name]} is {_shape(state[name])} instead of {_shape(expected[name])}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    faults = [
        f"{len(names)} {what}: {_shortened(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", extra),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"The tensors fit no ESC. Of {len(expected)} that it needs: {'; '.join(faults)}. Give "
            "the whole state dict of one network of ESC's family."
        )


def _require_depth(config: ESCConfig, state: Mapping[str, Shaped]) -> None:
    """Refuse more layers than there are tensors, before all of them are built."""
    depth = config.num_blocks * (1 + config.num_conv_layers)
    depth += config.texture_mlp_layers if config.upsampler == "lte" else 0
    if depth > len(state):
        raise CheckpointError(
            f"The network has {depth:,} layers by its configuration, and only {len(state):,} "
            "tensors are there. The file was changed; download or copy it again."
        )


def _as_float32(name: str, array: Array) -> Float32Array:
    """A copy: what is stored may share memory."""
    if not is_floating_point(array.dtype):
        raise CheckpointError(
            f"{name} holds {dtype_name(array.dtype)}; only floating-point weights can be loaded, "
            "so give the checkpoint from before it was quantised."
        )
    copied = as_float32(array)
    if not np.isfinite(copied).all():
        raise CheckpointError(
            f"{name} holds NaN or Inf: the training run diverged or the file was damaged. Give an "
            "earlier checkpoint."
        )
    return copied


def _shape(array: Shaped) -> str:
    return "x".join(map(str, array.shape)) or "a single value"


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
