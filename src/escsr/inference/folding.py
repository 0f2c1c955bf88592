"""A copy of a network with everything derived from its weights computed once."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.model.attention_backends import AttentionBackend
from escsr.model.convolutional_attention import (
    DYNAMIC_KERNEL_SIZE,
    ConvAttention,
    LargeKernelWeights,
    SharedLargeKernel,
    convolve_dense,
    convolve_large,
)
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap


def fold(network: nn.Module, *, attention_backend: AttentionBackend | None = None) -> nn.Module:
    """Copy a network for inference; the original stays as it is and trainable.

    In the copy the shared large kernel is averaged, position biases are expanded, and for a single
    image the dynamic kernel is added into the large one, so that one convolution does for two.
    Modules that are not ESC's are copied unchanged.

    Args:
        network: an ``ESC``, or any module, with or without one inside.
        attention_backend: replaces the network's own choice.
    Returns:
        The copy, in eval mode, without gradients; equal to the original within rounding.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        for parent in list(folded.modules()):
            for name, child in list(parent.named_children()):
                parent.add_module(name, _fold_part(child, attention_backend))
    return folded


def _fold_part(part: nn.Module, backend: AttentionBackend | None) -> nn.Module:
    if isinstance(part, SharedLargeKernel):
        return FoldedLargeKernel(part)
    if isinstance(part, WindowAttention):
        return FoldedWindowAttention(part, backend or part.backend)
    if isinstance(part, ConvAttention):
        return FoldedConvAttention(part)
    return part


class FoldedLargeKernel(nn.Module):
    """The shared large kernel, already averaged."""

    def __init__(self, source: SharedLargeKernel) -> None:
        super().__init__()
        weights = source()
        self.first = nn.Buffer(weights[0].detach().clone())
        self.second = nn.Buffer(weights[1].detach().clone()) if len(weights) > 1 else None

    def forward(self) -> LargeKernelWeights:
        """The weights as convolutions use them."""
        return (self.first,) if self.second is None else (self.first, self.second)


class FoldedWindowAttention(WindowAttention):
    """Window attention whose position bias is already expanded."""

    def __init__(self, source: WindowAttention, backend: AttentionBackend) -> None:
        # On meta: weights that are replaced at once take no memory and draw no random numbers.
        with torch.device("meta"):
            super().__init__(
                source.query_key_value.in_channels,
                window_size=source.window_size,
                num_heads=source.num_heads,
                backend=backend,
            )
        self.query_key_value = source.query_key_value
        self.output_projection = source.output_projection
        del self.relative_position_bias
        self.bias_NTT = nn.Buffer(source.position_bias().detach().clone())

    def position_bias(self) -> Tensor:
        """The bias of every (query, key) pair of a window: (N, T, T)."""
        return self.bias_NTT


class FoldedConvAttention(nn.Module):
    """ConvAttention that convolves a single image once, with both kernels added up.

    ``LK * a + DK * a = (LK + pad(DK)) * a``: the dynamic kernel of channel c is added to the centre
    of ``LK[c, c]``; the depthwise kernel of the decomposed form likewise.
    """

    def __init__(self, source: ConvAttention) -> None:
        super().__init__()
        self.pdim = source.pdim
        self.dynamic_kernel = source.dynamic_kernel
        self.aggregate = source.aggregate
        self.convolve_batch = source.convolve
        self.convolve_single: Callable[[FeatureMap, LargeKernelWeights, Tensor], FeatureMap] = (
            _convolve_dense_merged
            if source.convolve is convolve_dense
            else _convolve_decomposed_merged
        )

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights) -> FeatureMap:
        """Mix features: (B, C, H, W) -> (B, C, H, W)."""
        convolved, untouched = features[:, : self.pdim], features[:, self.pdim :]
        convolve = self.convolve_single if features.shape[0] == 1 else self.convolve_batch
        attended = convolve(convolved, large_kernel, self.dynamic_kernel(convolved))
        return self.aggregate(torch.cat((attended, untouched), dim=1))


def _convolve_dense_merged(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor
) -> FeatureMap:
    merged = large_kernel[0].clone()
    centre = _centre(merged)
    # (1, P, 3, 3) -> (P, P, 3, 3), zero but where both channels are the same
    centre += torch.diag_embed(dynamic_kernel[0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    return convolve_large(features, merged)


def _convolve_decomposed_merged(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor
) -> FeatureMap:
    channel_mixing, spatial = large_kernel
    merged = spatial.clone()
    _centre(merged).add_(dynamic_kernel.transpose(0, 1))
    mixed = F.conv2d(features, channel_mixing)
    return F.conv2d(mixed, merged, padding=merged.shape[-1] // 2, groups=mixed.shape[1])


def _centre(kernel: Tensor) -> Tensor:
    """The middle 3x3 of (…, K, K), a view."""
    first = (kernel.shape[-1] - DYNAMIC_KERNEL_SIZE) // 2
    middle = slice(first, first + DYNAMIC_KERNEL_SIZE)
    return kernel[..., middle, middle]
