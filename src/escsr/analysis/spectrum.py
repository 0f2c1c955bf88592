"""The Fourier spectrum of features: whether layers keep what is smooth, or what is fine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from escsr.analysis.drawing import LINE_COLOURS, new_figure, shortened
from escsr.analysis.layers import Layer, esc_within, layer_label, look, main_layers
from escsr.analysis.records import Skipped, plain_numbers
from escsr.model.convolutional_attention import ConvAttention
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch

BINS = 16
"""Rings of frequency between 0 and the highest, half a wave per pixel."""
SMALLEST_SIDE_PIXELS = 32
"""Of a feature map: with fewer pixels there are rings without a frequency."""
_FLOOR = 1e-8
"""Least amplitude that is reported, as a share of the lowest frequency's; float32 ends there."""

Kind = Literal["attention", "convattn", "block"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpectrum:
    """The spectrum of the features of one layer."""

    label: str
    kind: Kind
    profile: Tensor
    """(BINS,) log10 of the amplitude over that of the lowest ring, whose value is 0."""

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        return {
            "layer": self.label,
            "kind": self.kind,
            "relative_log_amplitude": plain_numbers(self.profile, 4),
        }


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

    def as_dict(self) -> dict[str, Any]:
        """The figures, as plain JSON values."""
        means = {kind: self.mean_of(kind) for kind in ("attention", "convattn", "block")}
        return {
            "frequency_share": plain_numbers(ring_centres(), 5),
            "images": self.images,
            "mean": {
                kind: plain_numbers(mean, 4) for kind, mean in means.items() if mean is not None
            },
            "layers": [layer.as_dict() for layer in self.layers],
        }


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


_LINES: dict[Kind, tuple[str, str, str]] = {
    "attention": ("window attention", LINE_COLOURS[0], "-"),
    "convattn": ("ConvAttn", LINE_COLOURS[1], "--"),
}
_PANEL_INCHES = 3.6


def draw_spectra(found: Sequence[tuple[str, Spectra]]) -> Any | None:
    """One panel per network: a thin line per layer, a thick one for the mean of a kind."""
    if not found:
        return None
    figure = new_figure(_PANEL_INCHES * len(found) + 1.2, _PANEL_INCHES)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for panel, (label, spectra) in zip(panels, found, strict=True):
        if any(layer.kind == "block" for layer in spectra.layers):
            _draw_blocks(panel, spectra)
        else:
            _draw_kinds(panel, spectra)
        panel.set_title(shortened(label))
        panel.set_xlabel("frequency / highest (half a wave per pixel)")
        panel.set_xlim(0, 1)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    panels[0].set_ylabel("log10 of amplitude / that of the lowest")
    return figure


def _draw_kinds(panel: Any, spectra: Spectra) -> None:
    frequency = ring_centres().numpy()
    for kind, (name, colour, style) in _LINES.items():
        mean = spectra.mean_of(kind)
        if mean is None:
            continue
        alike = [layer.profile for layer in spectra.layers if layer.kind == kind]
        for profile in alike:
            panel.plot(frequency, profile.numpy(), color=colour, linestyle=style, lw=0.6, alpha=0.4)
        name = f"{name}, mean of {len(alike)}"
        panel.plot(frequency, mean.numpy(), color=colour, linestyle=style, lw=2.2, label=name)


def _draw_blocks(panel: Any, spectra: Spectra) -> None:
    """From dark (first) to light (last), on a scale that stays visible on white."""
    from matplotlib import colormaps

    frequency = ring_centres().numpy()
    last = max(1, len(spectra.layers) - 1)
    for place, layer in enumerate(spectra.layers):
        is_end = place in (0, last)
        name = f"after layer {layer.label}" if is_end else None
        colour = colormaps["viridis"](0.85 * place / last)
        panel.plot(
            frequency, layer.profile.numpy(), color=colour, lw=2.0 if is_end else 0.7, label=name
        )
