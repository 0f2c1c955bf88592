"""Turn a network for one scale into the start of one for another."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from escsr.errors import CheckpointError
from escsr.weights.arrays import (
    BFLOAT16,
    AnyArray,
    Array,
    as_array,
    as_float32,
    as_given,
    rounded,
)

if TYPE_CHECKING:
    from escsr.model.network import ESC

_LAST_CONVOLUTION = (
    "reconstruction.to_subpixels.weight",
    "reconstruction.to_subpixels.bias",
)


def convert_scale(network: "ESC", *, scale: int) -> "ESC":
    """Copy a network for another scale, its last convolution interpolated.

    The copy is where training for ``scale`` begins (x3 and x4 start from x2); before that it
    blurs. The given network stays as it is.

    Args:
        network: on any device, of any dtype.
        scale: of the copy, an integer >= 1.
    Raises:
        ConfigurationError: the scale is not allowed.
    Source: ESC's official code; paper's recipe for x3 and x4.
    """
    import torch

    from escsr.model.reconstruction import Reconstruction

    config = replace(network.config, scale=scale)
    converted = copy.deepcopy(network)
    state = convert_scale_of_state(converted.state_dict(), scale=scale)
    converted.config = config
    with torch.device("meta"):
        converted.reconstruction = Reconstruction(config)
    converted.load_state_dict(state, assign=True)
    return converted.train(network.training)


def convert_scale_of_state(state: Mapping[str, AnyArray], *, scale: int) -> dict[str, AnyArray]:
    """As ``convert_scale``, from state dict to state dict, by our names.

    Each (output, input, row, column) weight is a picture of r x r sub-pixels; that is enlarged
    bilinearly with half-pixel centres. All others are handed on, not copied.

    Args:
        state: arrays, or tensors, of any floating-point type.
        scale: to convert to.
    Raises:
        CheckpointError: there is no last convolution, or it is of no whole scale.
    """
    missing = [name for name in _LAST_CONVOLUTION if name not in state]
    if missing:
        raise CheckpointError(
            f"The state dict has no {' and no '.join(missing)}; give the whole state dict of an "
            "ESC (a reference checkpoint's through to_ours)."
        )
    converted = dict(state)
    for name in _LAST_CONVOLUTION:
        converted[name] = _resize_subpixels(state[name], scale)
    return converted


def _resize_subpixels(values: AnyArray, scale: int) -> AnyArray:
    """(3 * r * r, …) -> (3 * scale * scale, …)."""
    old_scale = round((values.shape[0] / 3) ** 0.5)
    if 3 * old_scale**2 != values.shape[0]:
        raise CheckpointError(
            f"The last convolution makes {values.shape[0]} channels; an ESC's makes 3 * scale^2."
        )
    array = as_array(cast("Any", values))
    exact = as_float32(array) if array.dtype == BFLOAT16 else array
    pictures = exact.reshape(3, old_scale, old_scale, -1)
    shares = _bilinear_shares(old_scale, scale)
    # float64, so that the result is rounded once, as little as can be.
    resized = np.einsum("yr,xc,krcn->kyxn", shares, shares, pictures.astype(np.float64))
    resized = resized.reshape(3 * scale**2, *array.shape[1:])
    given, converted = cast("Any", values), rounded(resized, array.dtype)
    on_cpu: Any = as_given(given, converted)
    return on_cpu if given is array else on_cpu.to(given.device)


def _bilinear_shares(old_side: int, side: int) -> Array:
    """What each old pixel of a row gives to each new one: (side, old_side)."""
    place = ((np.arange(side) + 0.5) * old_side / side - 0.5).clip(0, old_side - 1)
    return (1 - np.abs(place[:, None] - np.arange(old_side))).clip(min=0)
