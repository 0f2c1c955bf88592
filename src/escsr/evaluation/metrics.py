"""The metrics of the field's tables, each one column."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escsr.engines.engine import Floats
from escsr.images.metrics import psnr_db, psnr_y_db, ssim, ssim_y

Measure = Callable[[Floats, Floats, int], float]
"""(result, truth, border in pixels) -> value. Both images are (1, 3, H, W) float32, and every value
is k/255. A metric that needs no truth leaves it aside."""


MeasureSet = Callable[[Path, Path], float]
"""(folder of results, folder of truths) -> value. Both hold PNGs of the same names, except those of
images for which there is no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A figure of a table, and how it is shown."""

    key: str
    """Its name in CSV and JSON, with the unit."""
    title: str
    """Its name in a table."""
    decimals: int
    """Shown in a table; CSV and JSON have all digits."""
    higher_is_better: bool
    note: str = ""
    """What a report must not leave out: which parameters, which licence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(Column):
    """One figure per image; tables have the mean."""

    measure: Measure
    runs_in_thread: bool = False
    """Whether it may run beside others and beside the next network, in a thread of its own. Ours
    may; what loads a network of its own takes its turn, with all threads of PyTorch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetMetric(Column):
    """One figure of all images of a test set together."""

    measure: MeasureSet
    least_images: int = 2


def _of(metric: Callable[..., Any], sr: Floats, hr: Floats, border: int) -> float:
    return float(metric(sr, hr, border_pixels=border)[0])


PSNR_Y = Metric(
    key="psnr_y_db",
    title="PSNR-Y",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(psnr_y_db, sr, hr, border),
    runs_in_thread=True,
)
SSIM_Y = Metric(
    key="ssim_y",
    title="SSIM-Y",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(ssim_y, sr, hr, border),
    runs_in_thread=True,
)
PSNR_RGB = Metric(
    key="psnr_rgb_db",
    title="PSNR-RGB",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(psnr_db, sr, hr, border),
    runs_in_thread=True,
)
SSIM_RGB = Metric(
    key="ssim_rgb",
    title="SSIM-RGB",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(ssim, sr, hr, border),
    runs_in_thread=True,
)

LUMA_METRICS = (PSNR_Y, SSIM_Y)
"""What papers publish."""

FIDELITY_METRICS = (*LUMA_METRICS, PSNR_RGB, SSIM_RGB)
"""What ``escsr evaluate`` shows unasked."""
