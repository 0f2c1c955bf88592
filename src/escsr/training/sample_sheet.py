"""Pictures of how far a run is: what went in, what came out, what it should be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.evaluation.protocol import TestPair, read_pair, to_pixels
from escsr.images.writer import write_image

_MOST_ROWS = 4
_LARGEST_LR_PIXELS = 64


class SampleSheet:
    """One row per image: the LR enlarged by nearest neighbour, the result, the truth.

    Args:
        out: folder of the run; gets ``samples/step-00001000.png``.
        pairs: at least one; the middle of the first few is shown.
        scale: upscaling factor per side.
    """

    def __init__(self, out: Path, pairs: Sequence[TestPair], *, scale: int) -> None:
        self._folder = out / "samples"
        self._scale = scale
        self._pairs = pairs
        self._rows: list[tuple[Tensor, Tensor]] = []

    def write(self, network: nn.Module, step: int) -> npt.NDArray[np.uint8]:
        """Write the sheet of a step.

        Args:
            network: (1, 3, H, W) -> (1, 3, scale*H, scale*W), on any device.
            step: named in the file.
        Returns:
            The sheet, (H, W, 3).
        Raises:
            ImageWriteError: it cannot be written.
        """
        self._rows = self._rows or self._choose_rows()
        with torch.inference_mode():
            rows = [self._draw(network, lr_image, hr_image) for lr_image, hr_image in self._rows]
        width = max(row.shape[-1] for row in rows)
        sheet = torch.cat([F.pad(row, (0, width - row.shape[-1])) for row in rows], dim=-2)
        pixels = to_pixels(sheet.clamp(0, 1))
        self._folder.mkdir(parents=True, exist_ok=True)
        write_image(self._folder / f"step-{step:08d}.png", pixels, overwrite=True)
        return pixels

    def _choose_rows(self) -> list[tuple[Tensor, Tensor]]:
        pairs = (read_pair(pair, scale=self._scale) for pair in self._pairs[:_MOST_ROWS])
        return [self._middle(lr_image, hr_image) for lr_image, hr_image in pairs]

    def _middle(self, lr_image: Tensor, hr_image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = (min(side, _LARGEST_LR_PIXELS) for side in lr_image.shape[-2:])
        top, left = (lr_image.shape[-2] - height) // 2, (lr_image.shape[-1] - width) // 2
        s = self._scale
        return (
            lr_image[..., top : top + height, left : left + width],
            hr_image[..., top * s : (top + height) * s, left * s : (left + width) * s],
        )

    def _draw(self, network: nn.Module, lr_image: Tensor, hr_image: Tensor) -> Tensor:
        enlarged = F.interpolate(lr_image, scale_factor=self._scale, mode="nearest")
        device = next(network.parameters()).device
        return torch.cat((enlarged, network(lr_image.to(device)).cpu(), hr_image), dim=-1)
