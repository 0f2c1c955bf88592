"""How large an image may be whose gradient is asked for."""

import math

import torch
from torch import Tensor, nn

from escsr.engines.devices import available_memory_bytes, is_out_of_memory

SMALLEST_CROP_PIXELS = 32
"""Memory is not asked for less than this."""
_PROBE_PIXELS = 64
_SHARE_OF_MEMORY = 0.5
"""Of what is free; the rest is for what comes and goes between layers."""


def affordable_side(network: nn.Module, device: torch.device, *, wanted_pixels: int) -> int:
    """The side of the largest square whose gradient fits into memory, but no more than wanted.

    Args:
        network: on ``device``, its parameters without gradients.
        device: where it runs.
        wanted_pixels: what was asked for.
    Returns:
        ``wanted_pixels``, or less: a multiple of 16, at least ``SMALLEST_CROP_PIXELS``.
    """
    free_bytes = available_memory_bytes(str(device))
    if free_bytes is None or wanted_pixels <= SMALLEST_CROP_PIXELS:
        return wanted_pixels
    try:
        per_pixel = kept_bytes_per_pixel(network, device)
    except RuntimeError as error:  # a foreign network; each question will tell why
        return SMALLEST_CROP_PIXELS if is_out_of_memory(error) else wanted_pixels
    side = int(math.sqrt(_SHARE_OF_MEMORY * free_bytes / max(per_pixel, 1.0)))
    if side >= wanted_pixels:
        return wanted_pixels
    return max(SMALLEST_CROP_PIXELS, side // 16 * 16)


def kept_bytes_per_pixel(network: nn.Module, device: torch.device) -> float:
    """What a network keeps of each pixel of its input until the gradient has been computed."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.full((1, 3, _PROBE_PIXELS, _PROBE_PIXELS), 0.5, device=device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(image.requires_grad_())
    return sum(kept.values()) / _PROBE_PIXELS**2
