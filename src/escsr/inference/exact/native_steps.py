"""The steps of the body by the native kernels, as far as they know them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.exact.steps import EagerSteps, Opened, OpenMixer, Unmixed
from escsr.inference.native import calls
from escsr.inference.native.body import NativeBlock
from escsr.inference.native.large_kernel import KernelSpectra
from escsr.inference.native.layer_weights import Addition
from escsr.inference.native.layers import FeedForward, Layer, SpectraOfKernels
from escsr.inference.native.maps import as_matrix, new_map
from escsr.inference.native.matrix import Matrix, padded_length
from escsr.model.convolutional_attention import ConvAttention, LargeKernelWeights
from escsr.model.network import ESC, ConvAttentionLayer
from escsr.shapes import FeatureMap


class NativeSteps(EagerSteps):
    """What the kernels compute; the rest as eager.

    Args:
        network: one that the kernels can run, folded, float32, on the CPU.
    """

    def __init__(self, network: ESC) -> None:
        super().__init__(network)
        spectra = SpectraOfKernels(network.shared_large_kernel)
        numbers = range(network.config.num_blocks)
        self.convolved_dim = padded_length(network.config.pdim)
        self._blocks = [NativeBlock(self.block(number), spectra) for number in numbers]
        self._feed_forwards = [
            [_feed_forward(self.layer(number, layer)) for layer in range(len(block.layers))]
            for number, block in enumerate(self._blocks)
        ]

    def open_mixer(self, number: int, layer: int | None) -> OpenMixer | None:
        """As ``Steps``."""
        eager = super().open_mixer(number, layer)
        if eager is None or layer is None:
            return eager
        return _NativeMixer(eager.mixer, eager.kernel, self._blocks[number].layers[layer])

    def enter(self, number: int, features: Patch, core: Rectangle) -> Opened:
        """As ``Steps``."""
        block = self._blocks[number]
        if block.attention is None:
            return super().enter(number, features, core)
        feed_forward, width = block.feed_forward, features.features.shape[1]
        inner, side = _fed(features, None, feed_forward, width, 3 * width)
        inner, side = inner.crop(core), side.crop(core)
        attended = new_map(core.num_pixels, width)
        attention, size = block.attention, (core.height, core.width)
        calls.attend(
            as_matrix(side.features),
            attention.bias,
            size=size,
            window_size=attention.window_size,
            attended=attended,
        )
        projection = attention.projection
        projected = torch.addmm(projection.bias, attended, projection.weight)
        return inner.plus(_patch_of(projected, inner)), None

    def pass_layer(
        self, number: int, layer: int, inner: Patch, unmixed: Unmixed | None, core: Rectangle
    ) -> Opened:
        """As ``Steps``."""
        feed_forward, width = self._feed_forwards[number][layer], inner.features.shape[1]
        kept, side = _fed(inner, unmixed, feed_forward, width, self.convolved_dim)
        return kept.crop(core), side.crop(core)

    def leave(self, number: int, inner: Patch, unmixed: Unmixed | None) -> Patch:
        """As ``Steps``."""
        block = self._blocks[number]
        values, norm = as_matrix(inner.features), block.norm_out
        normed = torch.empty_like(values)
        calls.add_and_normalise(values, _addition(unmixed), norm.weight, norm.bias, result=normed)
        return _patch_of(normed, inner).apply(block.conv_out, radius=1)


class _NativeMixer(OpenMixer):
    """A ConvAttention whose kernels are spectra."""

    def __init__(self, mixer: ConvAttention, kernel: LargeKernelWeights, layer: Layer) -> None:
        super().__init__(mixer, kernel)
        self.aggregate: Matrix = layer.aggregate
        self._spectra: KernelSpectra = layer.spectra
        self._depthwise: tuple[Tensor, Tensor] | None = None

    def close(self) -> None:
        """As of any open mixer."""
        super().close()
        kernel, missing = self.dynamic_kernel, padded_length(self.mixer.pdim) - self.mixer.pdim
        if kernel is not None:
            kernel = F.pad(kernel[0].flatten(1), (0, 0, 0, missing))
        self._depthwise = self._spectra.with_dynamic(kernel)

    def convolve(self, features: FeatureMap) -> FeatureMap:
        """``LK * a + DK * a``, channels padded to whole vectors."""
        pdim = self.mixer.pdim
        if len(self.kernel) == 2:
            mixed = F.conv2d(features[:, :pdim], self.kernel[0])
            features = F.pad(mixed, (0, 0, 0, 0, 0, features.shape[1] - pdim))
        values, (height, width) = as_matrix(features), features.shape[-2:]
        result = torch.empty_like(values)
        calls.convolve(
            values,
            size=(height, width),
            kernel_size=self._spectra.kernel_size,
            dense=self._spectra.dense,
            classes=self._spectra.classes,
            places=self._spectra.places,
            depthwise=self._depthwise,
            result=result,
        )
        return result.view(1, height, width, -1).permute(0, 3, 1, 2)


def _feed_forward(layer: ConvAttentionLayer) -> FeedForward:
    """A layer's feed-forward: features go on with what the aggregate makes of untouched channels.

    Beside, the channels to convolve; of ESC-FP before its 1x1, since the statistics are of those.
    """
    attention = layer.conv_attention
    assert isinstance(attention, ConvAttention)
    reduce, aggregate = Matrix.of(layer.feed_forward.reduce), Matrix.of(attention.aggregate)
    untouched = reduce.outputs(attention.pdim, None)
    return FeedForward(
        layer.norm,
        layer.feed_forward,
        reduce=untouched.then(aggregate.inputs(attention.pdim, None)),
        side=reduce.outputs(0, attention.pdim),
        has_residual=True,
        side_is_of_result=False,
    )


def _fed(
    features: Patch,
    unmixed: Unmixed | None,
    feed_forward: FeedForward,
    dim: int,
    side_dim: int,
) -> tuple[Patch, Patch]:
    """Feed forward: the result and what is made beside, both wrong at the edges by a pixel."""
    values = as_matrix(features.features)
    result, side = (new_map(values.shape[0], channels) for channels in (dim, side_dim))
    calls.run_layer(
        values,
        feed_forward.weights,
        size=(features.place.height, features.place.width),
        addition=_addition(unmixed),
        kind=feed_forward.kind,
        result=result,
        side=side,
    )
    return _patch_of(result, features), _patch_of(side, features)


def _addition(unmixed: Unmixed | None) -> Addition | None:
    if unmixed is None:
        return None
    mixer, attended = unmixed
    assert isinstance(mixer, _NativeMixer)
    return mixer.aggregate.times(as_matrix(attended.features))


def _patch_of(values: Tensor, like: Patch) -> Patch:
    """(H*W, C) -> (1, C, H, W), where ``like`` lies."""
    map_of_values = values.view(1, like.place.height, like.place.width, -1)
    return Patch(features=map_of_values.permute(0, 3, 1, 2), place=like.place, size=like.size)
