"""What is done to one patch in each stage of the body."""

from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.inference.exact.patch import Patch, Rectangle
from escsr.model.convolutional_attention import (
    DYNAMIC_KERNEL_SIZE,
    ConvAttention,
    LargeKernelWeights,
)
from escsr.model.network import ESC, ConvAttentionLayer, ESCBlock
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap

FEED_REACH = 1
"""How far the depthwise convolution of a feed-forward looks."""
_GATE_REACH = 1
"""How far the gate of window attention looks."""
_DYNAMIC_REACH = DYNAMIC_KERNEL_SIZE // 2

Opened: TypeAlias = tuple[Patch, Patch | None]
"""The inner features of a core, complete or but for what an open mixer adds to them; and, of an
open mixer, the channels that it convolves."""


class NotFiniteError(Exception):
    """Features or statistics are not finite."""


class OpenMixer:
    """A ConvAttention between its two halves: it waits for the statistics of the whole image."""

    def __init__(self, mixer: ConvAttention, shared_kernel: LargeKernelWeights | None) -> None:
        self.mixer = mixer
        kernel = shared_kernel if mixer.own_kernel is None else mixer.own_kernel()
        assert kernel is not None, "a ConvAttention without a kernel of its own is given one"
        self.kernel: LargeKernelWeights = kernel
        self.dynamic_kernel: Tensor | None = None
        self._total: Tensor | float = 0.0
        self._num_pixels = 0

    @property
    def reach(self) -> int:
        """How far the large kernel looks, and the dynamic one."""
        reach = self.kernel[-1].shape[-1] // 2
        return reach if self.mixer.dynamic_kernel is None else max(reach, _DYNAMIC_REACH)

    def take(self, to_convolve: Patch) -> None:
        """Add a core's channels to the statistics."""
        if self.mixer.dynamic_kernel is not None:
            self._total = self._total + to_convolve.channels(slice(self.mixer.pdim)).total()
            self._num_pixels += to_convolve.place.num_pixels

    def close(self) -> None:
        """All pixels were taken: make the dynamic kernel of their mean.

        Raises:
            NotFiniteError: it is not finite.
        """
        maker = self.mixer.dynamic_kernel
        if maker is None:
            return
        assert isinstance(self._total, Tensor)
        mean = self._total / self._num_pixels
        if not bool(torch.isfinite(mean).all()):
            raise NotFiniteError
        like = self.mixer.aggregate.weight
        self.dynamic_kernel = maker.kernel_of(mean.to(like.device, like.dtype))

    def convolve(self, features: FeatureMap) -> FeatureMap:
        """``LK * a + DK * a``."""
        return self.mixer.convolve(features, self.kernel, self.dynamic_kernel)

    def mix(self, attended: FeatureMap) -> FeatureMap:
        """What the 1x1 makes of the convolved channels: to be added to the inner features."""
        return F.conv2d(attended, self.mixer.aggregate.weight[:, : self.mixer.pdim])


Unmixed: TypeAlias = tuple[OpenMixer, Patch]
"""A mixer whose statistics are known, and what it convolved and has yet to mix and add."""


class Steps(Protocol):
    """The parts of a network's blocks; a layer's number is None for what comes before them all."""

    convolved_dim: int
    """Channels that a mixer convolves, as they are kept."""

    def margin(self, number: int, layer: int | None) -> int:
        """How far ``enter`` or ``pass_layer`` looks around in what it is given."""
        ...

    def open_mixer(self, number: int, layer: int | None) -> OpenMixer | None:
        """A ConvAttention to be opened; None for window attention."""
        ...

    def enter(self, number: int, features: Patch, core: Rectangle) -> Opened:
        """From a block's input up to its first mixer."""
        ...

    def pass_layer(
        self, number: int, layer: int, inner: Patch, unmixed: Unmixed | None, core: Rectangle
    ) -> Opened:
        """From the mixer before up to the layer's own."""
        ...

    def leave(self, number: int, inner: Patch, unmixed: Unmixed | None) -> Patch:
        """From the last mixer to what is added to the block's input; it looks one pixel far."""
        ...


class EagerSteps:
    """The modules of a folded network, as they are."""

    def __init__(self, network: ESC) -> None:
        self.convolved_dim = network.config.pdim
        self._network = network
        shared = network.shared_large_kernel
        self._kernel: LargeKernelWeights | None = None if shared is None else shared()

    def margin(self, number: int, layer: int | None) -> int:
        """A pixel for the feed-forward, and one for a gate."""
        mixer = self._mixer(number, layer)
        has_gate = isinstance(mixer, WindowAttention) and mixer.gate is not None
        return FEED_REACH + (_GATE_REACH if has_gate else 0)

    def open_mixer(self, number: int, layer: int | None) -> OpenMixer | None:
        """As ``Steps``."""
        mixer = self._mixer(number, layer)
        return OpenMixer(mixer, self._kernel) if isinstance(mixer, ConvAttention) else None

    def enter(self, number: int, features: Patch, core: Rectangle) -> Opened:
        """As ``Steps``."""
        block = self.block(number)
        inner = features.apply(lambda x: block.feed_forward(block.norm_in(x)), radius=FEED_REACH)
        return _mixed(block.attention, inner, inner.apply(block.norm_attention), core)

    def pass_layer(
        self, number: int, layer: int, inner: Patch, unmixed: Unmixed | None, core: Rectangle
    ) -> Opened:
        """As ``Steps``."""
        inner = completed(inner, unmixed)
        part = self.layer(number, layer)
        fed = inner.apply(lambda x: part.feed_forward(part.norm(x)), radius=FEED_REACH)
        return _mixed(part.conv_attention, inner, fed, core)

    def leave(self, number: int, inner: Patch, unmixed: Unmixed | None) -> Patch:
        """As ``Steps``."""
        block, inner = self.block(number), completed(inner, unmixed)
        return inner.apply(lambda x: block.conv_out(block.norm_out(x)), radius=1)

    def block(self, number: int) -> ESCBlock:
        """One of the network's."""
        block = self._network.blocks[number]
        assert isinstance(block, ESCBlock)
        return block

    def layer(self, number: int, layer: int) -> ConvAttentionLayer:
        """One of a block's."""
        part = self.block(number).conv_layers[layer]
        assert isinstance(part, ConvAttentionLayer)
        return part

    def _mixer(self, number: int, layer: int | None) -> nn.Module:
        if layer is None:
            return self.block(number).attention
        return self.layer(number, layer).conv_attention


def completed(inner: Patch, unmixed: Unmixed | None) -> Patch:
    """The inner features, with what a mixer has yet to add."""
    if unmixed is None:
        return inner
    mixer, attended = unmixed
    return inner.plus(attended.apply(mixer.mix))


def _mixed(mixer: nn.Module, inner: Patch, looked_at: Patch, core: Rectangle) -> Opened:
    """Add a mixer's result to a core; of a ConvAttention, its first half."""
    if isinstance(mixer, WindowAttention):
        return _attended(mixer, inner, looked_at, core), None
    assert isinstance(mixer, ConvAttention)
    looked_at = looked_at.crop(core)
    pdim, aggregate = mixer.pdim, mixer.aggregate

    def pass_untouched(features: FeatureMap) -> FeatureMap:
        if pdim == features.shape[1]:
            assert aggregate.bias is not None
            return aggregate.bias[:, None, None].expand_as(features)
        return F.conv2d(features[:, pdim:], aggregate.weight[:, pdim:], aggregate.bias)

    return inner.plus(looked_at.apply(pass_untouched)), looked_at.channels(slice(pdim))


def _attended(attention: WindowAttention, inner: Patch, normed: Patch, core: Rectangle) -> Patch:
    """``inner + WindowAttention(normed)`` of a core, whose windows are the map's."""
    if attention.gate is None:
        return inner.plus(normed.crop(core).apply(attention))
    gate = normed.apply(attention.gate, radius=_GATE_REACH).crop(core).features
    return inner.plus(normed.crop(core).apply(lambda features: attention(features, gate)))
