"""Where networks differ most, cut out and set side by side."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from escsr.engines.engine import Floats
from escsr.evaluation.contenders import BICUBIC, MatlabBicubic
from escsr.evaluation.protocol import to_pixels
from escsr.images.colour import rgb_to_luma
from escsr.images.lettering import render_text
from escsr.images.metrics import psnr_y_db

CROP_PIXELS = 96
"""Side of a crop in the HR image, which shows a few letters or an eye."""

_PANEL_PIXELS = 288
"""Least side of a crop in the picture; it is enlarged by whole pixels, without smoothing."""

_STEP_PIXELS = 8
_GAP_PIXELS = 8
_LINE_PIXELS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One cut-out of a crop picture."""

    label: str
    pixels: npt.NDArray[np.uint8]
    """(side, side, 3)."""
    psnr_y_db: float | None
    """Of the crop alone, without a border; None for HR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """One place of one image, as every contender shows it."""

    test_set: str
    image: str
    left: int
    """In HR pixels."""
    top: int
    """In HR pixels."""
    difference: float
    """Mean square of the luma's spread among the networks, of a range of 1."""
    panels: tuple[Panel, ...]
    """HR, bicubic, and the networks."""

    @property
    def file_stem(self) -> str:
        """A name for the picture's file, safe on any system."""
        return re.sub(r"[^\w.-]+", "_", f"{self.test_set}-{self.image}")[:100]


class CropGallery:
    """Keeps the crops where two networks differ most, at most one of each image.

    Bicubic counts as a network only where there are fewer than two others.

    Args:
        num_crops: how many to keep.
        scale: upscaling factor per side, of the border that is left out and of the bicubic panel.
    """

    def __init__(self, num_crops: int, *, scale: int) -> None:
        self._num_crops = num_crops
        self._scale = scale
        self._crops: list[Crop] = []

    @property
    def crops(self) -> Sequence[Crop]:
        """What was kept, the largest difference first."""
        return tuple(self._crops)

    def offer(
        self,
        test_set: str,
        image: str,
        *,
        lr_image: Floats,
        hr_image: Floats,
        results: Mapping[str, Floats],
    ) -> None:
        """Look at all results of one image, and keep its crop if it belongs to the best.

        Args:
            test_set: name of the test set.
            image: name of the image.
            lr_image: (1, 3, H, W), every value k/255.
            hr_image: (1, 3, scale*H, scale*W), every value k/255.
            results: by label, of the shape and kind of ``hr_image``.
        """
        if self._num_crops < 1 or not results:
            return
        shown = {BICUBIC: MatlabBicubic(self._scale)(lr_image), **results}
        networks = [result for label, result in results.items() if label != BICUBIC]
        compared = networks if len(networks) > 1 else list(shown.values())
        if len(compared) < 2:
            return
        rows, columns, difference = _most_different(compared, border_pixels=self._scale)
        if len(self._crops) == self._num_crops and difference <= self._crops[-1].difference:
            return
        crop = Crop(
            test_set=test_set,
            image=image,
            left=columns.start,
            top=rows.start,
            difference=difference,
            panels=_panels(hr_image[..., rows, columns], shown, rows, columns),
        )
        ranked = sorted([*self._crops, crop], key=lambda kept: -kept.difference)
        self._crops = ranked[: self._num_crops]


def crop_picture(crop: Crop) -> npt.NDArray[np.uint8]:
    """Set the panels of a crop side by side, each under its name and PSNR.

    Returns:
        (H, W, 3), black on white around the panels.
    """
    columns = [_column(panel) for panel in crop.panels]
    gap = np.full((columns[0].shape[0], _GAP_PIXELS, 3), 255, dtype=np.uint8)
    parts = [part for column in columns for part in (gap, column)]
    strip = np.concatenate([*parts, gap], axis=1)
    title = _line(f"{crop.test_set}, {crop.image}, at {crop.left},{crop.top}", strip.shape[1])
    foot = np.full((_GAP_PIXELS, strip.shape[1], 3), 255, dtype=np.uint8)
    return np.concatenate([title, strip, foot])


def _most_different(results: Sequence[Floats], *, border_pixels: int) -> tuple[slice, slice, float]:
    """Rows, columns and mean square of the window with the largest spread of luma."""
    lumas = np.concatenate([rgb_to_luma(result) for result in results])[:, 0]
    spread = np.square(lumas.max(axis=0).astype(np.float64) - lumas.min(axis=0))
    inner = spread[border_pixels:-border_pixels, border_pixels:-border_pixels]
    height, width = (min(CROP_PIXELS, side) for side in inner.shape)
    # Sums of windows are differences of sums from the corner.
    sums = np.pad(inner.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = sums[height:] - sums[:-height]
    sums = (sums[:, width:] - sums[:, :-width])[::_STEP_PIXELS, ::_STEP_PIXELS]
    means = sums / (height * width)
    row, column = divmod(int(means.argmax()), means.shape[1])
    top, left = (border_pixels + _STEP_PIXELS * steps for steps in (row, column))
    return slice(top, top + height), slice(left, left + width), float(means.max())


def _panels(
    hr_crop: Floats, results: Mapping[str, Floats], rows: slice, columns: slice
) -> tuple[Panel, ...]:
    panels = [Panel(label="HR", pixels=to_pixels(hr_crop), psnr_y_db=None)]
    for label, result in results.items():
        cut = result[..., rows, columns]
        psnr_db = float(psnr_y_db(cut, hr_crop)[0])
        panels.append(Panel(label=label, pixels=to_pixels(cut), psnr_y_db=psnr_db))
    return tuple(panels)


def _column(panel: Panel) -> npt.NDArray[np.uint8]:
    factor = -(-_PANEL_PIXELS // max(panel.pixels.shape[:2]))
    enlarged = panel.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    width = enlarged.shape[1]
    figure = "" if panel.psnr_y_db is None else f"{panel.psnr_y_db:.2f} dB"
    return np.concatenate([_line(panel.label, width), _line(figure, width), enlarged])


def _line(text: str, width: int) -> npt.NDArray[np.uint8]:
    """(_LINE_PIXELS, width, 3): black words in the middle of a white line."""
    line = np.full((_LINE_PIXELS, width, 3), 255, dtype=np.uint8)
    ink = render_text(text, height_pixels=_LINE_PIXELS, max_width_pixels=width)
    left = (width - ink.shape[1]) // 2
    line[:, left : left + ink.shape[1]] -= ink[..., None]
    return line
