"""3x3 convolutions by Winograd's F(4x4, 3x3): a quarter of the products."""

import torch
from torch import Tensor, nn

from escsr.inference.native.calls import convolve_3x3, lanes
from escsr.inference.native.maps import as_matrix, new_map
from escsr.inference.native.matrix import bias_of
from escsr.shapes import FeatureMap

_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""From three weights to six. Source: Lavin and Gray, arXiv:1509.09308, section 4.3."""


class NativeConvolution(nn.Module):
    """A 3x3 convolution of whole vectors of channels: (B, C, H, W) -> (B, C', H, W), float32.

    Differs: sums are of transformed numbers, whose rounding is about seven times a direct sum's:
    5e-6 of the range (tests/inference/native/test_convolution.py).
    """

    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__()
        transform = torch.tensor(_TRANSFORM, dtype=torch.float64, device="cpu")
        taps = source.weight.detach().double()
        transformed = torch.einsum("ak,oikl,bl->abio", transform, taps, transform)
        self.weight: Tensor = transformed.flatten(0, 1).float().contiguous()
        self.bias: Tensor = bias_of(source).float().contiguous()

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Convolve; the result is in channels_last."""
        batch, _, height, width = features.shape
        images = (as_matrix(image) for image in torch.split(features, 1))
        results = [self.of_matrix(image, (height, width)) for image in images]
        result = results[0] if batch == 1 else torch.cat(results)
        return result.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def of_matrix(
        self, features: Tensor, size: tuple[int, int], *, added: Tensor | None = None
    ) -> Tensor:
        """(H*W, C) -> (H*W, C'), and something added."""
        result = new_map(features.shape[0], self.bias.shape[0])
        convolve_3x3(features, self.weight, self.bias, size=size, added=added, result=result)
        return result


def convolves_natively(module: nn.Conv2d) -> bool:
    """Whether ``NativeConvolution`` can stand for a convolution."""
    return (
        module.kernel_size == (3, 3)
        and module.padding == (1, 1)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and module.bias is not None
        and module.in_channels % lanes() == 0
        and module.out_channels % lanes() == 0
    )
