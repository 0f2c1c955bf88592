"""The pictures of an analysis; matplotlib is imported when the first is drawn."""

from collections.abc import Callable, Iterator
from typing import Any

from escsr.analysis.figures.kernels import draw_dynamic_kernels, draw_large_kernels
from escsr.analysis.figures.reach import draw_attribution, draw_receptive_field
from escsr.analysis.figures.similarity import draw_attention_similarity, draw_feature_similarity
from escsr.analysis.figures.spectrum import draw_spectra
from escsr.analysis.figures.style import as_png, require_matplotlib
from escsr.analysis.run import Analysis

__all__ = ["PICTURE_NAMES", "draw_all", "require_matplotlib"]

_DRAWINGS: dict[str, Callable[[Analysis], Any]] = {
    "feature-similarity.png": draw_feature_similarity,
    "attention-similarity.png": draw_attention_similarity,
    "receptive-field.png": draw_receptive_field,
    "attribution.png": draw_attribution,
    "large-kernel.png": draw_large_kernels,
    "dynamic-kernels.png": draw_dynamic_kernels,
    "spectrum.png": draw_spectra,
}
PICTURE_NAMES = tuple(_DRAWINGS)


def draw_all(analysis: Analysis) -> Iterator[tuple[str, bytes]]:
    """Draw every picture that there is something for: its file's name, and the PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    for name, draw in _DRAWINGS.items():
        figure = draw(analysis)
        if figure is not None:
            yield name, as_png(figure)
