"""Turn a network for one scale into the start of one for another."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.errors import CheckpointError
from escsr.model.network import ESC
from escsr.model.reconstruction import Reconstruction

_LAST_CONVOLUTION = (
    "reconstruction.to_subpixels.weight",
    "reconstruction.to_subpixels.bias",
)


def convert_scale(network: ESC, *, scale: int) -> ESC:
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
    config = replace(network.config, scale=scale)
    converted = copy.deepcopy(network)
    state = convert_scale_of_state(converted.state_dict(), scale=scale)
    converted.config = config
    with torch.device("meta"):
        converted.reconstruction = Reconstruction(config)
    converted.load_state_dict(state, assign=True)
    return converted.train(network.training)


def convert_scale_of_state(state: Mapping[str, Tensor], *, scale: int) -> dict[str, Tensor]:
    """As ``convert_scale``, from state dict to state dict, by our names.

    Each (output, input, row, column) weight is a picture of r x r sub-pixels; that is enlarged
    bilinearly with half-pixel centres. All other tensors are handed on, not copied.

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


def _resize_subpixels(tensor: Tensor, scale: int) -> Tensor:
    """(3 * r * r, …) -> (3 * scale * scale, …)."""
    old_scale = round((tensor.shape[0] / 3) ** 0.5)
    if 3 * old_scale**2 != tensor.shape[0]:
        raise CheckpointError(
            f"The last convolution makes {tensor.shape[0]} channels; an ESC's makes 3 * scale^2."
        )
    pictures = tensor.reshape(3, old_scale, old_scale, -1).permute(0, 3, 1, 2)
    # float16 is interpolated in float32 and rounded once, as little as can be.
    exact = pictures if tensor.dtype == torch.float64 else pictures.float()
    resized = F.interpolate(exact, size=(scale, scale), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(3 * scale**2, *tensor.shape[1:]).to(tensor.dtype)
