"""Pictures of how far networks see: effective receptive field, and local attribution."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from escsr.analysis.figures.style import (
    LINE_COLOURS,
    LINE_STYLES,
    MAGNITUDES,
    new_figure,
    outline,
    shortened,
    show_map,
)
from escsr.analysis.local_attribution import LocalAttribution
from escsr.analysis.receptive_field import SHARES, ReceptiveField
from escsr.analysis.run import Analysis

_DECADES = 5
"""Powers of ten below the largest value that a heat map shows."""
_PANEL_INCHES = 3.3


def draw_receptive_field(analysis: Analysis) -> Any | None:
    """One heat map per network, and the share of influence within squares of growing side."""
    found = analysis.found(lambda findings: findings.field, ReceptiveField)
    if not found:
        return None
    figure = new_figure(_PANEL_INCHES * (len(found) + 1) + 0.9, _PANEL_INCHES + 0.75)
    *panels, curves = figure.subplots(1, len(found) + 1, squeeze=False)[0]
    image = None
    for panel, (label, field) in zip(panels, found, strict=True):
        image = _show_decades(panel, field.field.numpy())
        sides = [field.side_holding(share) for share in SHARES]
        for side, style in zip(sides, ("-", "--", ":"), strict=True):
            corner = len(field.field) // 2 - side // 2
            outline(panel, corner, corner, side, colour="white", style=style)
        told = ", ".join(f"{s:.0%}: {side}" for s, side in zip(SHARES, sides, strict=True))
        panel.set_title(shortened(label))
        panel.set_xlabel(f"side of the square that holds\n{told} pixels")
    figure.colorbar(image, ax=panels, label="influence / largest", shrink=0.8)
    _draw_shares(curves, found)
    return figure


def _draw_shares(panel: Any, found: Sequence[tuple[str, ReceptiveField]]) -> None:
    for number, (label, field) in enumerate(found):
        sides = 2 * np.arange(len(field.share_within)) + 1
        panel.plot(
            sides,
            field.share_within.numpy(),
            color=LINE_COLOURS[number % len(LINE_COLOURS)],
            linestyle=LINE_STYLES[number % len(LINE_STYLES)],
            label=shortened(label, 22),
        )
    panel.set(xlabel="side of a centred square, LR pixels", ylabel="share of the influence")
    panel.set_ylim(0, 1.03)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, loc="lower right")


def draw_attribution(analysis: Analysis) -> Any | None:
    """The image with its patch, and one attribution map per network."""
    found = analysis.found(lambda findings: findings.attribution, LocalAttribution)
    if not found:
        return None
    picture, patch = analysis.pictures[0], analysis.settings.patch
    figure = new_figure(_PANEL_INCHES * (len(found) + 1) + 0.9, _PANEL_INCHES + 0.15)
    source, *panels = figure.subplots(1, len(found) + 1, squeeze=False)[0]
    show_map(source, picture.image[0].permute(1, 2, 0).numpy())
    outline(source, patch.x, patch.y, patch.side, colour=LINE_COLOURS[1], style="-")
    source.set_title(f"{shortened(picture.name)}: the patch")
    image = None
    for panel, (label, attribution) in zip(panels, found, strict=True):
        image = _show_decades(panel, attribution.attribution.abs().numpy())
        outline(panel, patch.x, patch.y, patch.side, colour="white", style="-")
        panel.set_title(f"{shortened(label)}: DI {attribution.diffusion_index:.1f}")
    figure.colorbar(image, ax=panels, label="attribution / largest", shrink=0.8)
    return figure


def _show_decades(panel: Any, values: npt.NDArray[Any]) -> Any:
    """A heat map of magnitudes over some powers of ten."""
    from matplotlib.colors import LogNorm

    lowest = 10.0**-_DECADES
    shares = np.clip(values / values.max(), lowest, 1)
    return show_map(panel, shares, cmap=MAGNITUDES, norm=LogNorm(lowest, 1))
