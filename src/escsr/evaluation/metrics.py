"""The metrics of the field's tables, each one column."""

from collections.abc import Callable
from dataclasses import dataclass

from escsr.images.metrics import psnr_db, psnr_y_db, ssim, ssim_y
from escsr.shapes import ImageBatch

Measure = Callable[[ImageBatch, ImageBatch, int], float]
"""(result, truth, border in pixels) -> value. Both images are (1, 3, H, W) float32 on the CPU, and
every value is k/255. A metric that needs no truth leaves it aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure per image, and how a table shows it."""

    key: str
    """Its name in CSV and JSON, with the unit."""
    title: str
    """Its name in a table."""
    decimals: int
    """Shown in a table; CSV and JSON have all digits."""
    higher_is_better: bool
    measure: Measure
    note: str = ""
    """One sentence that a report must not leave out: which parameters, which licence."""


PSNR_Y = Metric(
    key="psnr_y_db",
    title="PSNR-Y",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: float(psnr_y_db(sr, hr, border_pixels=border)),
)
SSIM_Y = Metric(
    key="ssim_y",
    title="SSIM-Y",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: float(ssim_y(sr, hr, border_pixels=border)),
)
PSNR_RGB = Metric(
    key="psnr_rgb_db",
    title="PSNR-RGB",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: float(psnr_db(sr, hr, border_pixels=border)),
)
SSIM_RGB = Metric(
    key="ssim_rgb",
    title="SSIM-RGB",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: float(ssim(sr, hr, border_pixels=border)),
)

LUMA_METRICS = (PSNR_Y, SSIM_Y)
"""What papers publish."""

FIDELITY_METRICS = (*LUMA_METRICS, PSNR_RGB, SSIM_RGB)
"""What ``escsr evaluate`` shows unasked."""
