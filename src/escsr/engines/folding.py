"""A copy of a network with everything derived from its weights computed once."""

import copy
import logging
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.errors import ConfigurationError
from escsr.model.attention.backends import AttentionBackend, FoldedBackend
from escsr.model.attention.flash_bias import FactorisedPositionBias, RankRule
from escsr.model.attention.triton_module import FoldedBiasTable, TritonWindowAttention
from escsr.model.autocast import without_autocast
from escsr.model.convolutional_attention import (
    DYNAMIC_KERNEL_SIZE,
    ConvAttention,
    LargeKernelWeights,
    SharedLargeKernel,
    convolve_large,
    convolve_per_image,
)
from escsr.model.position_bias import Bias, PositionFactors, TablePositionBias
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap

TILE_SIDE = 48
"""In pixels; sides of 32, 64, 96 and 128 and the whole map were slower for 320x180 pixels."""
LEAST_PIXELS = 96 * 96
"""Of a map. For 16 channels and a kernel of 13 a direct convolution was faster on 64x64 pixels,
equal on 96x96, and slower on larger ones (``benchmarks/measure_frequency_domain.py``)."""
LARGEST_KERNEL = 25
"""Beyond it half of a tile is margin."""
LEAST_PRODUCTS = 24_000
"""Per pixel, of the direct convolution. 16 channels and a kernel of 9 make 21,000, and it was the
faster; 12 channels and 13 make 24,000."""


def has_fast_spectrum(dense: Tensor) -> bool:
    """Whether a kernel (P, P, K, K) gains from its spectrum on maps that are large enough."""
    return dense[0].numel() * dense.shape[0] >= LEAST_PRODUCTS and dense.shape[-1] <= LARGEST_KERNEL


def is_faster_by_spectrum(features: FeatureMap) -> bool:
    """Whether a map (1, P, H, W) is for the frequency domain: float32, on a CPU, and large."""
    is_large = features.shape[-2] * features.shape[-1] >= LEAST_PIXELS
    return is_large and features.device.type == "cpu" and features.dtype == torch.float32


def real_spectrum(dense: Tensor) -> Tensor:
    """What a symmetric kernel does to each frequency of a tile.

    Args:
        dense: (P, P, K, K), equal to itself turned by 180 degrees; K odd, below ``TILE_SIDE``.
    Returns:
        (frequencies, P, P) of the same dtype: (out, in) of each.
    """
    spectrum = _transformed(centred_kernel(dense.double(), TILE_SIDE)).real
    return spectrum.permute(2, 3, 0, 1).flatten(0, 1).to(dense.dtype).contiguous()


def centred_kernel(kernels: Tensor, side: int) -> Tensor:
    """Spread kernels over a tile, their middles at its first place, where transforms begin.

    (…, K, K) -> (…, side, side), K odd, at most ``side``.
    """
    size = kernels.shape[-1]
    spread = F.pad(kernels, (0, side - size, 0, side - size))
    return torch.roll(spread, (-(size // 2), -(size // 2)), (-2, -1))


def convolve_by_spectrum(features: FeatureMap, spectrum: Tensor, kernel_size: int) -> FeatureMap:
    """Convolve with a symmetric kernel, zeros beyond the map.

    Args:
        features: (1, P, H, W).
        spectrum: from ``real_spectrum``.
        kernel_size: side of the kernel.
    Returns:
        (1, P, H, W).
    """
    _, channels, height, width = features.shape
    margin, inner = kernel_size // 2, TILE_SIDE - kernel_size + 1
    rows, columns = (-(-side // inner) for side in (height, width))
    beyond = (margin, columns * inner + margin - width, margin, rows * inner + margin - height)
    padded = F.pad(features[0].contiguous(), beyond)
    tiles = padded.unfold(1, TILE_SIDE, inner).unfold(2, TILE_SIDE, inner)
    parts = torch.view_as_real(_transformed(tiles)).view(channels, rows * columns, -1, 2)
    by_frequency = parts.permute(2, 0, 1, 3).reshape(-1, channels, 2 * rows * columns)
    mixed = torch.bmm(spectrum, by_frequency).view(-1, channels, rows, columns, 2)
    split = (TILE_SIDE, TILE_SIDE // 2 + 1, channels, rows, columns, 2)
    ordered = mixed.view(split).permute(2, 3, 4, 0, 1, 5).contiguous()
    whole = _transformed_back(torch.view_as_complex(ordered))
    kept = whole[..., margin : margin + inner, margin : margin + inner]
    # (P, rows, columns, inner, inner) -> (1, P, H, W) in channels_last
    joined = kept.permute(1, 3, 2, 4, 0).reshape(rows * inner, columns * inner, channels)
    return joined[:height, :width].permute(2, 0, 1).unsqueeze(0)


def _transformed(tiles: Tensor) -> Tensor:
    return cast(Tensor, torch.fft.rfft2(tiles))  # pyright: ignore[reportUnknownMemberType]


def _transformed_back(tiles: Tensor) -> Tensor:
    sides = (TILE_SIDE, TILE_SIDE)
    return cast(Tensor, torch.fft.irfft2(tiles, s=sides))  # pyright: ignore[reportUnknownMemberType]


logger = logging.getLogger("escsr")


def fold(
    network: nn.Module,
    *,
    attention_backend: FoldedBackend | None = None,
    flash_bias: RankRule | None = None,
) -> nn.Module:
    """Copy a network for inference; the original stays as it is and trainable.

    In the copy large kernels are averaged and position biases are expanded. For a single image
    the dynamic kernel is added into the large one, so that one convolution does for two; or, in
    float32 on large maps on a CPU, a large dense kernel works in the frequency domain
    (``convolve_by_spectrum``).
    Modules that are not ESC's are copied unchanged.

    Args:
        network: an ``ESC``, or any module, with or without one inside.
        attention_backend: replaces the network's own choice.
        flash_bias: the rank of "flashbias"; ``RankRule()`` unless given.
    Returns:
        The copy, in eval mode, without gradients; equal to the original within rounding, but for
        "flashbias", whose error the log tells.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    device = next((part.device for part in folded.parameters()), torch.device("cpu"))
    with torch.no_grad(), without_autocast(device):
        for parent in list(folded.modules()):
            for name, child in list(parent.named_children()):
                parent.add_module(name, _fold_part(child, attention_backend))
            if isinstance(parent, WindowAttention) and attention_backend != "triton":
                _fold_attention(parent, attention_backend, flash_bias or RankRule())
    return folded


def _fold_part(part: nn.Module, attention_backend: FoldedBackend | None = None) -> nn.Module:
    if isinstance(part, WindowAttention) and attention_backend == "triton":
        return _in_triton(part)
    if isinstance(part, SharedLargeKernel):
        return FoldedLargeKernel(part)
    if isinstance(part, ConvAttention):
        return FoldedConvAttention(part)
    return part


def position_rank(folded: nn.Module) -> int:
    """The largest rank of a folded copy's position factors; 0 where biases are whole."""
    kinds = (FoldedPositionFactors, FactorisedPositionBias)
    parts = (part for part in folded.modules() if isinstance(part, kinds))
    return max((part.key_NTR.shape[-1] for part in parts), default=0)


def backend_within(network: nn.Module) -> AttentionBackend | None:
    """What a network's window attention is computed with; None where it has none."""
    parts = (part for part in network.modules() if isinstance(part, WindowAttention))
    return next((part.backend for part in parts), None)


class WeightsWithSpectrum(tuple[Tensor, ...]):
    """The weights of a dense large kernel, and what it does to each frequency beside them."""

    spectrum: Tensor


class FoldedLargeKernel(nn.Module):
    """The shared large kernel, already averaged."""

    def __init__(self, source: SharedLargeKernel) -> None:
        super().__init__()
        weights = source()
        self.first = nn.Buffer(weights[0].detach().clone())
        self.second = nn.Buffer(weights[1].detach().clone()) if len(weights) > 1 else None
        has_spectrum = source.is_averaged and has_fast_spectrum(self.first)
        self.spectrum = nn.Buffer(real_spectrum(self.first)) if has_spectrum else None

    def forward(self) -> LargeKernelWeights:
        """The weights as convolutions use them."""
        if self.second is not None:
            return (self.first, self.second)
        if self.spectrum is None or torch.compiler.is_compiling():
            return (self.first,)
        weights = WeightsWithSpectrum((self.first,))
        weights.spectrum = self.spectrum
        return weights


def _fold_attention(
    attention: WindowAttention,
    backend: AttentionBackend | Literal["flashbias"] | None,
    rule: RankRule,
) -> None:
    """Give window attention, which is a copy already, a bias that is computed, and a back-end."""
    bias: Bias = attention.position_bias()
    if isinstance(bias, PositionFactors):
        attention.position_bias = FoldedPositionFactors(bias)
    elif backend == "flashbias":
        attention.position_bias = FactorisedPositionBias(bias, rule)
        _tell_of_error(attention.position_bias, tokens=bias.shape[-1])
    else:
        attention.position_bias = FoldedPositionBias(bias)
    # Factors are a part of the dot product: what is left is plain attention.
    attention.backend = "auto" if backend == "flashbias" else backend or attention.backend


def _in_triton(attention: WindowAttention) -> TritonWindowAttention:
    """Window attention, which is a copy already, by the Triton kernel."""
    bias_module = attention.position_bias
    if isinstance(bias_module, TablePositionBias):
        return TritonWindowAttention(attention, FoldedBiasTable(bias_module.table))
    bias: Bias = bias_module()
    if isinstance(bias, PositionFactors):
        return TritonWindowAttention(attention, FoldedPositionFactors(bias))
    raise ConfigurationError(
        "The attention back-end triton reads a position bias from its table, but this network's is "
        "expanded already. Fold the network as it was loaded, or use another back-end."
    )


def _tell_of_error(factors: FactorisedPositionBias, *, tokens: int) -> None:
    logger.info(
        "A position bias of %d tokens as factors of rank %d: off by %.2g at most, and "
        "probabilities by %.2g.",
        tokens,
        factors.rank,
        factors.bias_error,
        factors.probability_error,
    )


class FoldedPositionBias(nn.Module):
    """A position bias, already expanded."""

    def __init__(self, bias_NTT: Tensor) -> None:
        super().__init__()
        self.bias_NTT = nn.Buffer(bias_NTT.detach().clone())

    def forward(self) -> Tensor:
        """The bias of every (query, key) pair of a window: (N, T, T)."""
        return self.bias_NTT


class FoldedPositionFactors(nn.Module):
    """Factors of a position bias, already computed."""

    def __init__(self, factors: PositionFactors) -> None:
        super().__init__()
        self.query_NTR = nn.Buffer(factors.query_NTR.detach().clone())
        self.key_NTR = nn.Buffer(factors.key_NTR.detach().clone())

    def forward(self) -> PositionFactors:
        """The factors of a window's tokens: (N, T, R) each."""
        return PositionFactors(self.query_NTR, self.key_NTR)


class FoldedConvAttention(ConvAttention):
    """ConvAttention that convolves a single image once, with both kernels added up.

    Where the large kernel is faster by its spectrum (``is_faster_by_spectrum``) the dynamic one is
    convolved apart.

    ``LK * a + DK * a = (LK + pad(DK)) * a``: the dynamic kernel of channel c is added to the centre
    of ``LK[c, c]``; the depthwise kernel of the decomposed form likewise.
    """

    def __init__(self, source: ConvAttention) -> None:
        nn.Module.__init__(self)
        self.pdim, self.kind = source.pdim, source.kind
        self.dynamic_kernel = source.dynamic_kernel
        self.own_kernel = None if source.own_kernel is None else _fold_part(source.own_kernel)
        self.aggregate = source.aggregate

    def convolve(
        self,
        features: FeatureMap,
        large_kernel: LargeKernelWeights,
        dynamic_kernel: Tensor | None,
    ) -> FeatureMap:
        """``LK * a + DK * a``: (B, P, H, W) -> (B, P, H, W)."""
        if dynamic_kernel is None or features.shape[0] != 1:
            return super().convolve(features, large_kernel, dynamic_kernel)
        if isinstance(large_kernel, WeightsWithSpectrum) and is_faster_by_spectrum(features):
            far = convolve_by_spectrum(features, large_kernel.spectrum, large_kernel[0].shape[-1])
            return far.add_(convolve_per_image(features, dynamic_kernel))
        if self.kind == "dense":
            return _convolve_dense_merged(features, large_kernel, dynamic_kernel)
        return _convolve_decomposed_merged(features, large_kernel, dynamic_kernel)


def _convolve_dense_merged(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor
) -> FeatureMap:
    merged = _with_room(large_kernel[0])
    centre = _centre(merged)
    # (1, P, 3, 3) -> (P, P, 3, 3), zero but where both channels are the same
    centre += torch.diag_embed(dynamic_kernel[0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    return convolve_large(features, merged)


def _convolve_decomposed_merged(
    features: FeatureMap, large_kernel: LargeKernelWeights, dynamic_kernel: Tensor
) -> FeatureMap:
    channel_mixing, spatial = large_kernel
    merged = _with_room(spatial)
    _centre(merged).add_(dynamic_kernel.transpose(0, 1))
    mixed = F.conv2d(features, channel_mixing)
    return F.conv2d(mixed, merged, padding=merged.shape[-1] // 2, groups=mixed.shape[1])


def _with_room(kernel: Tensor) -> Tensor:
    """A copy of a kernel (…, K, K), with zeros around one of 1x1: 3x3 at least."""
    missing = max(0, DYNAMIC_KERNEL_SIZE - kernel.shape[-1]) // 2
    return F.pad(kernel, [missing] * 4) if missing else kernel.clone()


def _centre(kernel: Tensor) -> Tensor:
    """The middle 3x3 of (…, K, K), a view."""
    first = (kernel.shape[-1] - DYNAMIC_KERNEL_SIZE) // 2
    middle = slice(first, first + DYNAMIC_KERNEL_SIZE)
    return kernel[..., middle, middle]
