"""Pictures of how alike the layers of networks are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from escsr.analysis.figures.style import MAGNITUDES, new_figure, shortened
from escsr.analysis.run import Analysis
from escsr.analysis.similarity import Similarity

_MOST_NUMBERED = 8
"""Layers up to which every field of a matrix shows its number."""
_MOST_TICKS = 26
_PANEL_INCHES = 4.2
_SMALL_PANEL_INCHES = 2.9


def draw_feature_similarity(analysis: Analysis) -> Any | None:
    """One matrix of linear CKA per network; None where there is none."""
    found = analysis.found(lambda findings: findings.features, Similarity)
    return _draw(found, "linear CKA of the features after two layers")


def draw_attention_similarity(analysis: Analysis) -> Any | None:
    """One matrix of cosines of attention maps per network; None where there is none."""
    found = analysis.found(lambda findings: findings.attention, Similarity)
    return _draw(found, "cosine of two attention maps")


def _draw(found: Sequence[tuple[str, Similarity]], meaning: str) -> Any | None:
    if not found:
        return None
    is_small = max(len(similarity.labels) for _, similarity in found) <= _MOST_NUMBERED
    side = _SMALL_PANEL_INCHES if is_small else _PANEL_INCHES
    figure = new_figure(side * len(found) + 0.9, side + 0.35)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    lowest = min(float(np.nanmin(similarity.matrix.numpy())) for _, similarity in found)
    image = None
    for panel, (label, similarity) in zip(panels, found, strict=True):
        image = panel.imshow(similarity.matrix.numpy(), cmap=MAGNITUDES, vmin=lowest, vmax=1.0)
        panel.set_title(
            f"{shortened(label)}\nneighbours {similarity.mean_of_neighbours:.2f}, "
            f"all pairs {similarity.mean_of_pairs:.2f}"
        )
        _label_axes(panel, similarity.labels)
        if len(similarity.labels) <= _MOST_NUMBERED:
            _write_numbers(panel, similarity.matrix.numpy(), lowest)
    figure.colorbar(image, ax=list(panels), label=meaning, shrink=0.85)
    return figure


def _label_axes(panel: Any, labels: list[str]) -> None:
    """The name of every layer, or of every so many."""
    step = -(-len(labels) // _MOST_TICKS)
    places = range(0, len(labels), step)
    names = [labels[place] for place in places]
    size = 8 if len(names) <= 18 else 6.5
    panel.set_xticks(list(places), names, rotation=90, fontsize=size)
    panel.set_yticks(list(places), names, fontsize=size)


def _write_numbers(panel: Any, matrix: Any, lowest: float) -> None:
    middle = (lowest + 1) / 2
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        colour = "white" if value < middle else "black"
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
