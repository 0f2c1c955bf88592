"""Feed-forward and ConvAttention layers as matrices and spectra, run by the native kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.inference.folding import FoldedLargeKernel
from escsr.inference.native.calls import convolve, run_layer
from escsr.inference.native.large_kernel import KernelSpectra
from escsr.inference.native.layer_weights import Addition, LayerKind, LayerWeights
from escsr.inference.native.maps import Maps
from escsr.inference.native.matrix import Matrix, bias_of, padded_length
from escsr.model.convolutional_attention import ConvAttention
from escsr.model.layer_norm import ChannelLayerNorm
from escsr.model.network import ConvAttentionLayer, ConvFeedForward


class SpectraOfKernels:
    """The spectra of each large kernel, made once for all layers that share it."""

    def __init__(self, shared: nn.Module | None) -> None:
        self._shared = shared
        self._made: dict[int, KernelSpectra] = {}

    def kernel_of(self, attention: ConvAttention) -> FoldedLargeKernel:
        """The large kernel that a layer uses."""
        kernel = self._shared if attention.own_kernel is None else attention.own_kernel
        assert isinstance(kernel, FoldedLargeKernel), "native kernels are for folded networks"
        return kernel

    def of(self, attention: ConvAttention) -> KernelSpectra:
        """Its spectra."""
        kernel = self.kernel_of(attention)
        if id(kernel) not in self._made:
            self._made[id(kernel)] = KernelSpectra(kernel(), padded_length(attention.pdim))
        return self._made[id(kernel)]


class Layer:
    """A ``ConvAttentionLayer`` whose 1x1 convolutions are multiplied where they follow one another.

    Channels that no kernel touches go from the hidden map straight to the result; only those that
    are convolved become a map of their own, and the next layer adds what comes of it.
    """

    def __init__(self, layer: ConvAttentionLayer, spectra: SpectraOfKernels) -> None:
        attention = layer.conv_attention
        assert isinstance(attention, ConvAttention)
        pdim, weights = attention.pdim, spectra.kernel_of(attention)()
        self.spectra = spectra.of(attention)
        self.convolved_dim = padded_length(pdim)
        self.dynamic_kernel = attention.dynamic_kernel
        reduce, aggregate = Matrix.of(layer.feed_forward.reduce), Matrix.of(attention.aggregate)
        # Statistics are of the channels before ESC-FP's shared 1x1 convolution mixes them.
        self.statistics = reduce.outputs(0, pdim)
        mixed = self.statistics
        if len(weights) == 2:
            mixing = weights[0].double()[:, :, 0, 0].t()
            mixed = mixed.then(Matrix(mixing, torch.zeros(pdim, dtype=torch.float64)))
        self.feed_forward = FeedForward(
            layer.norm,
            layer.feed_forward,
            reduce=reduce.outputs(pdim, None).then(aggregate.inputs(pdim, None)),
            side=mixed,
            has_residual=True,
            side_is_of_result=False,
        )
        of_convolved = aggregate.inputs(0, pdim).without_bias()
        self.aggregate = of_convolved.ready(num_inputs=self.convolved_dim)

    def run(self, addition: Addition | None, maps: Maps) -> Addition:
        """From ``maps.features`` and what is to be added to them, to the same after this layer."""
        hidden_sum = self.feed_forward.run(
            maps.features,
            addition,
            maps,
            result=maps.spare,
            side=maps.to_convolve,
        )
        maps.swap()
        kernel = self._dynamic_kernel(hidden_sum / maps.features.shape[0])
        convolve(
            maps.to_convolve,
            size=maps.size,
            kernel_size=self.spectra.kernel_size,
            dense=self.spectra.dense,
            classes=self.spectra.classes,
            places=self.spectra.places,
            depthwise=self.spectra.with_dynamic(kernel),
            result=maps.convolved,
        )
        return self.aggregate.times(maps.convolved)

    def _dynamic_kernel(self, hidden_mean: Tensor) -> Tensor | None:
        """Mean of the hidden map, (E padded,) float64 -> (P padded, 9) float32."""
        if self.dynamic_kernel is None:
            return None
        weight = self.statistics.weight
        mean = hidden_mean[: weight.shape[0]] @ weight + self.statistics.bias
        kernel = self.dynamic_kernel(mean.float()[None, :, None, None])[0].flatten(1)
        return F.pad(kernel, (0, 0, 0, self.convolved_dim - kernel.shape[0]))


class FeedForward:
    """``[LayerNorm], ConvFeedForward``, and a second result beside."""

    def __init__(
        self,
        norm: nn.Module,
        feed_forward: ConvFeedForward,
        *,
        side: Matrix,
        has_residual: bool,
        side_is_of_result: bool,
        reduce: Matrix | None = None,
    ) -> None:
        expand = Matrix.of(feed_forward.expand).after(norm).ready()
        hidden_dim = expand.bias.shape[0]
        reduce = (reduce or Matrix.of(feed_forward.reduce)).ready(num_inputs=hidden_dim)
        side = side.ready(num_inputs=None if side_is_of_result else hidden_dim)
        depthwise = feed_forward.depthwise
        missing = hidden_dim - depthwise.out_channels
        taps = depthwise.weight.detach().flatten(1).t()
        self.kind = LayerKind(
            normalises=isinstance(norm, ChannelLayerNorm),
            has_residual=has_residual,
            side_is_of_result=side_is_of_result,
        )
        self.weights = LayerWeights(
            expand_weight=expand.weight,
            expand_bias=expand.bias,
            depthwise_weight=F.pad(taps, (0, missing)).contiguous(),
            depthwise_bias=F.pad(bias_of(depthwise), (0, missing)),
            reduce_weight=reduce.weight,
            reduce_bias=reduce.bias,
            side_weight=side.weight,
            side_bias=side.bias,
        )

    def run(
        self,
        features: Tensor,
        addition: Addition | None,
        maps: Maps,
        *,
        result: Tensor,
        side: Tensor | None,
    ) -> Tensor:
        """As ``run_layer``."""
        return run_layer(
            features,
            self.weights,
            size=maps.size,
            addition=addition,
            kind=self.kind,
            result=result,
            side=side,
        )
