"""The blocks of a network, run by the native kernels."""

import torch
from torch import Tensor, nn

from escsr.inference.folding import FoldedPositionBias
from escsr.inference.native.calls import LOG2_E, add_and_normalise, attend, lanes
from escsr.inference.native.convolution import NativeConvolution, convolves_natively
from escsr.inference.native.large_kernel import LARGEST_KERNEL, MOST_VECTORS
from escsr.inference.native.layer_weights import Addition
from escsr.inference.native.layers import FeedForward, Layer, SpectraOfKernels
from escsr.inference.native.maps import Maps, as_matrix
from escsr.inference.native.matrix import Matrix
from escsr.model.convolutional_attention import DYNAMIC_KERNEL_SIZE, LargeKernelWeights
from escsr.model.network import ESC, ConvAttentionLayer, ESCBlock
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap

_HEAD_DIMS = (8, 16, 32)
_BACKENDS = ("auto", "sdpa")
"""Another way to attend that somebody chose is left as it is."""


def run_natively(folded: nn.Module) -> nn.Module:
    """Let the kernels do what they can of a folded copy, in place; the rest stays as it is.

    Args:
        folded: made by ``fold``, float32, on the CPU.
    Returns:
        The same module.
    """
    with torch.device("cpu"):  # whatever torch makes tensors on unless told
        for module in list(folded.modules()):
            if isinstance(module, ESC) and is_possible(module):
                module.blocks = nn.ModuleList([NativeBody(module)])
                _convolve_natively(module)
    return folded


def _convolve_natively(network: ESC) -> None:
    """Replace the 3x3 convolutions before and after the blocks, but for those of ESC+LTE's head.

    That reads their weights.
    """
    parts = [network, *network.reconstruction.modules()]
    for parent in parts if not network.config.is_arbitrary_scale else parts[:1]:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and convolves_natively(child):
                parent.add_module(name, NativeConvolution(child))


def is_possible(network: ESC) -> bool:
    """Whether the kernels can run the blocks of a network."""
    config = network.config
    return (
        config.first_mixer == "window"
        and config.layer_mixer == "convolution"
        and config.num_conv_layers > 0
        and config.dim % lanes() == 0
        and config.pdim <= MOST_VECTORS * lanes()
        and DYNAMIC_KERNEL_SIZE <= config.large_kernel_size <= LARGEST_KERNEL
    )


class NativeBody(nn.Module):
    """All blocks of a network; they share the maps that they work in.

    Args:
        network: folded, float32, on the CPU.
    """

    def __init__(self, network: ESC) -> None:
        super().__init__()
        spectra = SpectraOfKernels(network.shared_large_kernel)
        blocks = (block for block in network.blocks if isinstance(block, ESCBlock))
        self._blocks = [NativeBlock(block, spectra) for block in blocks]

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights | None) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W), float32 on the CPU, without gradients.

        The large kernel is known already.
        """
        results = [self._run(image) for image in torch.split(features, 1)]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _run(self, features: FeatureMap) -> FeatureMap:
        _, dim, height, width = features.shape
        maps = Maps((height, width), dim, max(block.convolved_dim for block in self._blocks))
        values = as_matrix(features)
        for block in self._blocks:
            values = block.run(values, maps)
        return maps.as_features(values)


class NativeBlock:
    """An ``ESCBlock``; PyTorch does attention that no kernel knows."""

    def __init__(self, block: ESCBlock, spectra: SpectraOfKernels) -> None:
        attention = block.attention
        assert isinstance(attention, WindowAttention)
        is_native = _attends_natively(attention)
        self.attention = _Attention(attention) if is_native else None
        self.foreign_attention = (
            None if is_native else nn.Sequential(block.norm_attention, attention)
        )
        self.feed_forward = FeedForward(
            block.norm_in,
            block.feed_forward,
            side=Matrix.of(attention.query_key_value).after(block.norm_attention),
            has_residual=False,
            side_is_of_result=True,
        )
        layers = (layer for layer in block.conv_layers if isinstance(layer, ConvAttentionLayer))
        self.layers = [Layer(layer, spectra) for layer in layers]
        self.convolved_dim = self.layers[0].convolved_dim
        self.norm_out, self.conv_out = block.norm_out, NativeConvolution(block.conv_out)

    def run(self, features: Tensor, maps: Maps) -> Tensor:
        """(H*W, C) -> (H*W, C)."""
        addition = self._attend(features, maps)
        for layer in self.layers:
            addition = layer.run(addition, maps)
        norm = self.norm_out
        add_and_normalise(maps.features, addition, norm.weight, norm.bias, result=maps.spare)
        return self.conv_out.of_matrix(maps.spare, maps.size, added=features)

    def _attend(self, features: Tensor, maps: Maps) -> Addition | None:
        """Feed forward and attend: ``maps.features``, and what is to be added to them."""
        side = maps.query_key_value if self.attention is not None else None
        self.feed_forward.run(features, None, maps, result=maps.features, side=side)
        if self.attention is not None:
            return self.attention.run(maps)
        assert self.foreign_attention is not None
        attended = self.foreign_attention(maps.as_features(maps.features))
        maps.features.add_(as_matrix(attended))
        return None


class _Attention:
    """Window attention with a table of biases."""

    def __init__(self, attention: WindowAttention) -> None:
        self.window_size = attention.window_size
        self.bias = _bias_by_offset(attention.position_bias(), attention.window_size)
        self.projection = Matrix.of(attention.output_projection).ready()

    def run(self, maps: Maps) -> Addition:
        attend(
            maps.query_key_value,
            self.bias,
            size=maps.size,
            window_size=self.window_size,
            attended=maps.attended,
        )
        return self.projection.times(maps.attended)


def _attends_natively(attention: WindowAttention) -> bool:
    return (
        isinstance(attention.position_bias, FoldedPositionBias)
        and attention.backend in _BACKENDS
        and attention.gate is None
        and attention.window_size % lanes() == 0
        and attention.output_projection.in_channels // attention.num_heads in _HEAD_DIMS
    )


def _bias_by_offset(bias_NTT: Tensor, window_size: int) -> Tensor:
    """The table that a bias was expanded from, as ``attend`` wants it: (N, 2w-1, 2w-1).

    Row: key minus query, column: query minus key; each is found at the first pair that has it.
    """
    w = window_size
    rows = torch.arange(1 - w, w)[:, None]
    columns = -torch.arange(1 - w, w)
    query = (-rows).clamp(min=0) * w + (-columns).clamp(min=0)
    key = rows.clamp(min=0) * w + columns.clamp(min=0)
    return (bias_NTT[:, query, key] * LOG2_E).contiguous()
