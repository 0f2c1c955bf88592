"""The Fourier spectrum of features: whether layers keep what is smooth, or what is fine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from escsr.analysis.layers import Layer, esc_within, layer_label, look
from escsr.analysis.records import Skipped
from escsr.analysis.sequences import main_layers
from escsr.model.convolutional_attention import ConvAttention
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch

BINS = 16
"""Rings of frequency between 0 and the highest, half a wave per pixel."""
SMALLEST_SIDE_PIXELS = 32
"""Of a feature map: with fewer pixels there are rings without a frequency."""
_FLOOR = 1e-8
"""Least amplitude that is told, as a share of the lowest frequency's; float32 resolves no less."""

Kind = Literal["attention", "convattn", "block"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpectrum:
    """The spectrum of the features of one layer."""

    label: str
    kind: Kind
    profile: Tensor
    """(BINS,) log10 of the amplitude over that of the lowest ring, whose value is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectra:
    """The spectra of the layers of one network."""

    layers: list[LayerSpectrum]
    """Attention and ConvAttn of an ESC (what they return, before it is added); blocks of another
    network."""
    images: int

    def mean_of(self, kind: Kind) -> Tensor | None:
        """The mean profile of one kind of layer; None where there is none."""
        found = [layer.profile for layer in self.layers if layer.kind == kind]
        return torch.stack(found).mean(0) if found else None


def ring_centres() -> Tensor:
    """(BINS,): the middle of each ring, as a share of the highest frequency."""
    return (torch.arange(BINS) + 0.5) / BINS


def spectra(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> Spectra | Skipped:
    """Average the spectra of features over images.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each; those whose features have a side below
            ``SMALLEST_SIDE_PIXELS`` are left out.
        on_image: called after each.
    """
    layers, kinds = _layers_and_kinds(network)
    sums: dict[str, Tensor] = {}
    used = 0
    for image in images:
        found = look(network, layers, image, _amplitude_where_large)
        on_image()
        present = [
            (layer.label, amplitude)
            for layer, amplitude in zip(layers, found, strict=True)
            if amplitude is not None
        ]
        used += bool(present)
        for label, amplitude in present:
            sums[label] = sums.get(label, torch.zeros(BINS)) + amplitude
    if not used:
        return Skipped(
            "there are no features to look at: no sequence of blocks was found whose features are "
            f"maps, or every image has a side below {SMALLEST_SIDE_PIXELS} pixels."
        )
    return Spectra(
        images=used,
        layers=[
            LayerSpectrum(label=layer.label, kind=kind, profile=relative_log(sums[layer.label]))
            for layer, kind in zip(layers, kinds, strict=True)
            if layer.label in sums
        ],
    )


def _amplitude_where_large(features: FeatureMap) -> Tensor | None:
    large = min(features.shape[-2:]) >= SMALLEST_SIDE_PIXELS
    return radial_amplitude(features) if large else None


def radial_amplitude(features: FeatureMap) -> Tensor:
    """The amplitude at each ring of frequency, averaged over its directions and over channels.

    A Hann window is laid over the map first: its ends do not meet, and that edge would be taken
    for detail. Each channel counts by its amplitude.

    Args:
        features: (1, C, H, W), both sides at least ``SMALLEST_SIDE_PIXELS``.
    Returns:
        (BINS,) on the CPU. What lies beyond the highest frequency of an axis (the corners of the
        spectrum) belongs to no ring.
    """
    height, width = features.shape[-2:]
    rows, columns = (_hann(length, features) for length in (height, width))
    windowed = features[0].float() * rows[:, None] * columns[None, :]
    amplitude = torch.fft.rfft2(windowed).abs().mean(0).cpu()
    vertical = torch.fft.fftfreq(height).abs() * 2
    horizontal = torch.fft.rfftfreq(width) * 2
    radius = (vertical[:, None].square() + horizontal[None, :].square()).sqrt()
    ring = (radius * BINS).long()
    inside = ring < BINS
    total = torch.zeros(BINS).index_add_(0, ring[inside], amplitude[inside])
    count = torch.zeros(BINS).index_add_(0, ring[inside], torch.ones_like(amplitude[inside]))
    return total / count.clamp(min=1)


def relative_log(amplitude: Tensor) -> Tensor:
    """log10 of amplitudes over that of the lowest ring: (BINS,) -> (BINS,), first value 0.

    Source: Park & Kim, How Do Vision Transformers Work?, ICLR 2022.
    """
    if not bool(amplitude[0] > 0):
        return torch.zeros_like(amplitude)
    return (amplitude / amplitude[0]).clamp(min=_FLOOR).log10()


def _layers_and_kinds(network: nn.Module) -> tuple[list[Layer], list[Kind]]:
    if esc_within(network) is None:
        layers = main_layers(network)
        return layers, ["block"] * len(layers)
    found: list[tuple[Layer, Kind]] = []
    for name, module in network.named_modules():
        if isinstance(module, WindowAttention):
            found.append((Layer(label=layer_label(network, name), module=module), "attention"))
        elif isinstance(module, ConvAttention):
            found.append((Layer(label=layer_label(network, name), module=module), "convattn"))
    return [layer for layer, _ in found], [kind for _, kind in found]


def _hann(length: int, like: Tensor) -> Tensor:
    return torch.hann_window(length, periodic=False, device=like.device)
