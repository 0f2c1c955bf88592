"""Networks that cannot take any size, or are judged by what they do with whole windows."""

import torch
from torch import nn

from escsr.model.padding import reflected_positions
from escsr.shapes import ImageBatch


class SizePadded(nn.Module):
    """A network whose input is extended by reflection to a size it is made for.

    The image is extended at the bottom and right, and the result cropped to what belongs to the
    image itself.

    Args:
        network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
        scale: its factor.
        multiple: both sides become multiples of this many pixels.
        minimum: and at least this many.
        square: and equal.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        scale: int,
        multiple: int = 1,
        minimum: int = 1,
        square: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.multiple = multiple
        self.minimum = minimum
        self.square = square

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W), for any H, W >= 1."""
        height, width = lr_image.shape[-2:]
        sr_image = self.network(_extended(lr_image, self.padded_size(height, width)))
        return sr_image[..., : self.scale * height, : self.scale * width]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what the network is given."""
        rows, columns = self._padded_side(height), self._padded_side(width)
        return (max(rows, columns), max(rows, columns)) if self.square else (rows, columns)

    def _padded_side(self, side: int) -> int:
        return -(-max(side, self.minimum) // self.multiple) * self.multiple


def _extended(image: ImageBatch, size: tuple[int, int]) -> ImageBatch:
    for axis, length in zip((-2, -1), size, strict=True):
        if length != image.shape[axis]:
            position = torch.arange(length, device=image.device)
            image = image.index_select(axis, reflected_positions(position, image.shape[axis]))
    return image
