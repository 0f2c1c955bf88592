"""Pictures of the Fourier spectra of features."""

from typing import Any

from escsr.analysis.figures.style import LINE_COLOURS, new_figure, shortened
from escsr.analysis.run import Analysis
from escsr.analysis.spectrum import Kind, Spectra, ring_centres

_LINES: dict[Kind, tuple[str, str, str]] = {
    "attention": ("window attention", LINE_COLOURS[0], "-"),
    "convattn": ("ConvAttn", LINE_COLOURS[1], "--"),
}
_PANEL_INCHES = 3.6


def draw_spectra(analysis: Analysis) -> Any | None:
    """One panel per network: a thin line per layer, a thick one for the mean of a kind."""
    found = analysis.found(lambda findings: findings.spectrum, Spectra)
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
