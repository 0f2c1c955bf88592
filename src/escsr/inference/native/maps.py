"""Maps as the kernels take them: (H*W, C) float32 on the CPU, contiguous.

That is a feature map in channels_last, seen as a matrix.
"""

import ctypes

import torch
from torch import Tensor

from escsr.inference.native.library import native_library
from escsr.shapes import FeatureMap


class Maps:
    """What an image needs while it passes: one allocation of each map, however many layers.

    Args:
        size: (H, W).
        dim: channels of the features.
        convolved_dim: channels that the large kernel sees, padded to whole vectors.
    """

    def __init__(self, size: tuple[int, int], dim: int, convolved_dim: int) -> None:
        pixels = size[0] * size[1]
        self.size = size
        self.features, self.spare = new_map(pixels, dim), new_map(pixels, dim)
        self.attended = new_map(pixels, dim)
        self.query_key_value = new_map(pixels, 3 * dim)
        # Queries, keys and values are done with when the convolutions begin.
        room = self.query_key_value.view(-1)
        self.to_convolve = room[: pixels * convolved_dim].view(pixels, convolved_dim)
        self.convolved = room[pixels * dim :][: pixels * convolved_dim].view(pixels, convolved_dim)

    def swap(self) -> None:
        """Read next what was written last."""
        self.features, self.spare = self.spare, self.features

    def as_features(self, values: Tensor) -> FeatureMap:
        """(H*W, C) -> (1, C, H, W) in channels_last, without a copy."""
        return values.view(1, *self.size, -1).permute(0, 3, 1, 2)


def new_map(pixels: int, channels: int) -> Tensor:
    """A map to write to, (pixels, channels) float32 on the CPU, whatever is torch's default."""
    made = torch.empty(pixels, channels, dtype=torch.float32, device="cpu")
    start, length = ctypes.c_void_p(made.data_ptr()), ctypes.c_int64(made.nbytes)
    native_library().escsr_prefer_large_pages(start, length)
    return made


def as_matrix(features: FeatureMap) -> Tensor:
    """(1, C, H, W) -> (H*W, C), contiguous; without a copy in channels_last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).contiguous()


def place_of(values: Tensor) -> int:
    """Where numbers lie that a kernel reads or writes: float32 on the CPU, contiguous.

    A kernel would take anything else for these, and write over what is not its own.
    """
    assert values.dtype == torch.float32, f"a kernel was given {values.dtype}"
    assert values.device.type == "cpu", f"a kernel was given numbers on {values.device}"
    assert values.is_contiguous(), "a kernel was given numbers that do not lie in order"
    return values.data_ptr()
