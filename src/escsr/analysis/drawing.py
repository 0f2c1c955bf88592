"""The style of all pictures: sizes, colours for colour-blind readers, and PNG files.

Figures are made without pyplot: no window, no state that stays behind.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from escsr.errors import MissingExtraError

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, the strongest contrasts first."""
LINE_STYLES = ("-", "--", "-.", ":")
MAGNITUDES = "viridis"
SIGNED = "PuOr"
"""Orange below zero, violet above, white at zero."""
_DOTS_PER_INCH = 110
_FONT: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "figure.dpi": _DOTS_PER_INCH,
}


def require_matplotlib() -> None:
    """Refuse to begin where pictures could not be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "The pictures of an analysis need matplotlib: pip install 'escsr[plots]'; or give "
            "--json without --out, for the figures alone."
        ) from error


def new_figure(width_inches: float, height_inches: float) -> Any:
    """An empty figure whose parts make room for one another.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_FONT):
        return Figure(figsize=(width_inches, height_inches), layout="constrained")


def as_png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file; no date in it, so that equal figures are equal files."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context(_FONT):
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def show_map(panel: Any, values: npt.NDArray[Any], **options: Any) -> Any:
    """A map of numbers as coloured squares, without ticks."""
    panel.set_xticks([])
    panel.set_yticks([])
    return panel.imshow(np.asarray(values), interpolation="nearest", **options)


def outline(panel: Any, left: float, top: float, side: float, *, colour: str, style: str) -> None:
    """A square around pixels of a map."""
    from matplotlib.patches import Rectangle

    place = (left - 0.5, top - 0.5)
    panel.add_patch(
        Rectangle(place, side, side, fill=False, edgecolor=colour, linestyle=style, linewidth=1.4)
    )


def shortened(label: str, longest: int = 28) -> str:
    """A name, short enough for a title; what matplotlib would take for a formula is text."""
    text = label.encode("utf-8", "backslashreplace").decode()
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")
