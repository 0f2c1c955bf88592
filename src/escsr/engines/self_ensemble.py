"""Self-ensemble: the mean over the eight flips and rotations of the image."""

import torch
from torch import Tensor, nn

from escsr.shapes import ImageBatch


class SelfEnsemble(nn.Module):
    """A network asked eight times, about each flip and rotation of the image, and averaged.

    A little better and eight times slower. The result turns and flips with the image, whatever the
    network does.

    Args:
        network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
    Source: Timofte et al., "Seven ways to improve example-based single image super resolution",
    CVPR 2016; the "+" behind the names of models in the field's tables.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W), not clamped."""
        results = [
            _undone(self.network(_turned(lr_image, turns, mirrored)), turns, mirrored)
            for turns in range(4)
            for mirrored in (False, True)
        ]
        return torch.stack(results).mean(dim=0)


def _turned(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    turned = torch.rot90(image, turns, dims=(-2, -1))
    return (turned.flip(-1) if mirrored else turned).contiguous()


def _undone(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(image.flip(-1) if mirrored else image, -turns, dims=(-2, -1))
