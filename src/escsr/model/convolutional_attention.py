"""ConvAttention: what ESC puts in place of most self-attention.

One large kernel, shared by the whole network, reaches far; one small kernel, made from each image,
weighs by content. Only the first P channels are convolved; a 1x1 convolution mixes them back.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.family.configuration import LargeKernel
from escsr.family.weight_shapes import DYNAMIC_KERNEL_SIZE, dynamic_hidden_dim
from escsr.shapes import FeatureMap

PAIRED_CHANNELS = 8
"""Up to so many channels, two pixels go through the large kernel at a time."""

LargeKernelWeights: TypeAlias = tuple[Tensor, ...]
"""("dense") one (P, P, K, K); ("decomposed") a (P, P, 1, 1) and a (P, 1, K, K)."""


class ConvAttention(nn.Module):
    """Convolve the first P channels with the shared large and the dynamic kernel.

    ``a' = LK * a + DK * a`` for the first P channels ``a``, DK depthwise and made from the global
    average of ``a``; the other channels pass through; then a 1x1 convolution mixes all of them.

    Args:
        dim: channels of the features (C).
        pdim: channels that are convolved (P).
        kind: of the large kernel that ``forward`` is given; as in :class:`SharedLargeKernel`.
        has_dynamic_kernel: whether there is a DK.
        own_kernel: used instead of the one that ``forward`` is given.
    Source: ESC, arXiv:2503.06671, section 3.2, equation 4; "decomposed" is ESC-FP's form.
    """

    def __init__(
        self,
        dim: int,
        pdim: int,
        *,
        kind: LargeKernel = "dense",
        has_dynamic_kernel: bool = True,
        own_kernel: "SharedLargeKernel | None" = None,
    ) -> None:
        super().__init__()
        self.pdim = pdim
        self.kind: LargeKernel = kind
        self.dynamic_kernel = (
            DynamicKernel(
                pdim,
                hidden_dim=dynamic_hidden_dim(pdim, kind),
                starts_at_zero=kind == "dense",
            )
            if has_dynamic_kernel
            else None
        )
        self.own_kernel: nn.Module | None = own_kernel
        self.aggregate = nn.Conv2d(dim, dim, 1)

    def forward(
        self, features: FeatureMap, large_kernel: LargeKernelWeights | None = None
    ) -> FeatureMap:
        """Mix features: (B, C, H, W) -> (B, C, H, W); ``large_kernel`` from SharedLargeKernel."""
        weights = large_kernel if self.own_kernel is None else self.own_kernel()
        assert weights is not None, "a ConvAttention without a kernel of its own is given one"
        convolved, untouched = features[:, : self.pdim], features[:, self.pdim :]
        dynamic_kernel = self.dynamic_kernel(convolved) if self.dynamic_kernel is not None else None
        attended = self.convolve(convolved, weights, dynamic_kernel)
        return self.aggregate(torch.cat((attended, untouched), dim=1))

    def convolve(
        self,
        features: FeatureMap,
        large_kernel: LargeKernelWeights,
        dynamic_kernel: Tensor | None,
    ) -> FeatureMap:
        """``LK * a + DK * a``: (B, P, H, W) -> (B, P, H, W)."""
        if self.kind == "dense":
            return convolve_dense(features, large_kernel, dynamic_kernel)
        return convolve_decomposed(features, large_kernel, dynamic_kernel)


class DynamicKernel(nn.Module):
    """Make one 3x3 depthwise kernel per channel and image from the image's own statistics."""

    def __init__(self, pdim: int, *, hidden_dim: int, starts_at_zero: bool) -> None:
        super().__init__()
        self.to_hidden = nn.Conv2d(pdim, hidden_dim, 1)
        self.to_kernel = nn.Conv2d(hidden_dim, pdim * DYNAMIC_KERNEL_SIZE**2, 1)
        if starts_at_zero:
            nn.init.zeros_(self.to_kernel.weight)
            nn.init.zeros_(_bias(self.to_kernel))

    def forward(self, features: FeatureMap) -> Tensor:
        """(B, P, H, W) -> (B, P, 3, 3)."""
        return self.kernel_of(features.mean(dim=(-2, -1), keepdim=True))

    def kernel_of(self, statistics: Tensor) -> Tensor:
        """The second half of ``forward``, from the mean of each channel.

        (B, P, 1, 1) -> (B, P, 3, 3).
        """
        kernel = self.to_kernel(F.gelu(self.to_hidden(statistics)))
        size = DYNAMIC_KERNEL_SIZE
        return kernel.reshape(-1, statistics.shape[1], size, size)


class SharedLargeKernel(nn.Module):
    """The one K x K kernel that every ConvAttention of a network uses.

    Args:
        pdim: channels that it convolves (P).
        kernel_size: K, odd.
        kind: "dense", P x P x K x K; or "decomposed", 1x1 P x P and then depthwise K x K.
    """

    def __init__(self, pdim: int, kernel_size: int = 13, kind: LargeKernel = "dense") -> None:
        super().__init__()
        if kind == "dense":
            weights = (torch.empty(pdim, pdim, kernel_size, kernel_size),)
            nn.init.orthogonal_(weights[0])
        else:
            weights = (
                torch.empty(pdim, pdim, 1, 1),
                torch.empty(pdim, 1, kernel_size, kernel_size),
            )
            nn.init.normal_(weights[0])
            nn.init.orthogonal_(weights[1])
        self.weights = nn.ParameterList(weights)
        self.is_averaged = kind == "dense"

    def forward(self) -> LargeKernelWeights:
        """The weights as convolutions use them: dense ones averaged over the square's symmetries.

        Source: ESC, arXiv:2503.06671, section 3.2 (geometric re-parameterisation).
        """
        if self.is_averaged:
            return (average_over_symmetries(self.weights[0]),)
        return tuple(self.weights)


def average_over_symmetries(kernel: Tensor) -> Tensor:
    """Average (…, K, K) over the 8 flips and rotations of the square."""
    mirrored = kernel + kernel.flip(-1)
    mirrored = mirrored + mirrored.flip(-2)
    return (mirrored + mirrored.transpose(-2, -1)) / 8


def convolve_dense(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor | None
) -> FeatureMap:
    """``LK * a + DK * a`` with a dense large kernel.

    Args:
        features: (B, P, H, W).
        large_kernel: one (P, P, K, K).
        dynamic_kernel: (B, P, 3, 3), depthwise, one per image; or none.
    """
    far = convolve_large(features, large_kernel[0])
    return far if dynamic_kernel is None else far + convolve_per_image(features, dynamic_kernel)


def convolve_large(features: FeatureMap, dense: Tensor) -> FeatureMap:
    """``LK * a``; with few channels on a CPU, two neighbouring pixels at a time.

    A CPU's vectors hold 16 numbers, and convolutions in channels_last fill them with channels. Two
    pixels of 8 channels lie in memory as one of 16, so the map is seen as half as wide and twice as
    deep, and the kernel as one over pairs of pixels: 1.08 times the arithmetic in about 0.6 of the
    time (8 channels, 13x13, forward and backward).

    Args:
        features: (B, P, H, W).
        dense: (P, P, K, K), K odd.
    Returns:
        (B, P, H, W), equal to the plain convolution but for the order of summation.
    """
    channels, size = features.shape[1], dense.shape[-1]
    is_channels_last = features.stride(1) == 1
    has_few = channels <= PAIRED_CHANNELS and is_channels_last and features.device.type == "cpu"
    if not has_few or _is_exporting() or features.shape[-1] % 2 or size % 4 != 1:
        return F.conv2d(features, dense, padding=size // 2)
    pairs = _pixels_to_pairs(features)
    padding = (size // 2, (size // 2 + 1) // 2)
    return _pairs_to_pixels(F.conv2d(pairs, pair_kernel(dense), padding=padding))


def pair_kernel(dense: Tensor) -> Tensor:
    """The kernel over pairs of neighbouring pixels that does what a kernel over pixels does.

    Args:
        dense: (P, P, K, K), K = 4n + 1.
    Returns:
        (2P, 2P, K, (K + 1) / 2), channels ordered (pixel of the pair, channel): output pixel d of a
        pair meets input pixel e of the pair t further at column 2t + e - d of the kernel.
    """
    channels, _, size, _ = dense.shape
    split = (channels, channels, size, (size + 1) // 2, 2)  # (out, in, K, pairs, e)
    of_left, of_right = F.pad(dense, (0, 1)).reshape(split), F.pad(dense, (1, 0)).reshape(split)
    both = torch.stack((of_left, of_right))  # (d, out, in, K, pairs, e)
    kernel = both.permute(0, 1, 5, 2, 3, 4)
    return kernel.reshape(2 * channels, 2 * channels, size, (size + 1) // 2)


def _pixels_to_pairs(features: FeatureMap) -> Tensor:
    """(B, P, H, W) -> (B, 2P, H, W/2); no copy in channels_last."""
    batch, channels, height, width = features.shape
    pairs = features.permute(0, 2, 3, 1).reshape(batch, height, width // 2, 2 * channels)
    return pairs.permute(0, 3, 1, 2)


def _pairs_to_pixels(pairs: Tensor) -> FeatureMap:
    """The inverse of ``_pixels_to_pairs``."""
    batch, channels, height, width = pairs.shape
    pixels = pairs.permute(0, 2, 3, 1).reshape(batch, height, 2 * width, channels // 2)
    return pixels.permute(0, 3, 1, 2)


def convolve_decomposed(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor | None
) -> FeatureMap:
    """``(LKs + pad(DK)) * (LKc a)`` with ESC-FP's large kernel.

    Args:
        features: (B, P, H, W).
        large_kernel: (P, P, 1, 1) and (P, 1, K, K).
        dynamic_kernel: (B, P, 3, 3), made from the features before the 1x1; or none.
    """
    channel_mixing, spatial = large_kernel
    mixed = F.conv2d(features, channel_mixing)
    far = F.conv2d(mixed, spatial, padding=spatial.shape[-1] // 2, groups=mixed.shape[1])
    return far if dynamic_kernel is None else far + convolve_per_image(mixed, dynamic_kernel)


def convolve_per_image(features: FeatureMap, kernel: Tensor) -> FeatureMap:
    """Depthwise 3x3 convolution with another kernel for every image.

    One convolution of B*P groups; while a graph is exported, nine shifted multiply-adds, because
    the number of groups of an exported convolution cannot follow the batch.

    Args:
        features: (B, P, H, W).
        kernel: (B, P, 3, 3).
    """
    if _is_exporting():
        return convolve_per_image_by_shifts(features, kernel)
    batch, channels, height, width = features.shape
    groups = batch * channels
    stacked = features.reshape(1, groups, height, width)
    weights = kernel.to(features.dtype).reshape(groups, 1, *kernel.shape[-2:])
    convolved = F.conv2d(stacked, weights, padding=1, groups=groups)
    return convolved.reshape(features.shape)


def convolve_per_image_by_shifts(features: FeatureMap, kernel: Tensor) -> FeatureMap:
    """The same as ``convolve_per_image``, as nine shifted multiply-adds."""
    height, width = features.shape[-2:]
    padded = F.pad(features, (1, 1, 1, 1))
    total = torch.zeros_like(features)
    for row in range(DYNAMIC_KERNEL_SIZE):
        for column in range(DYNAMIC_KERNEL_SIZE):
            shifted = padded[..., row : row + height, column : column + width]
            total = total + shifted * kernel[:, :, row, column, None, None]
    return total


def _is_exporting() -> bool:
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling()  # torch 2.6 does not tell export from compile


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
