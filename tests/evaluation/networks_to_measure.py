"""Foreign networks for the tests of the benchmark: they note when they run, print, and fail."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG = Path("runs.txt")
"""In the current folder: one line per run, with its start and end."""


class Noting(nn.Module):
    """Enlarges by two with one convolution, and notes when.

    Args:
        name: by which it notes its runs.
        dies_at: the run, counted from 1, that fails; 0 means none.
    """

    def __init__(self, name: str, *, dies_at: int = 0) -> None:
        super().__init__()
        self.scale = 2
        self.name = name
        self.dies_at = dies_at
        self.runs = 0
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, lr_image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        if lr_image.device.type == "meta":
            return F.pixel_shuffle(self.conv(lr_image), 2)
        started = time.monotonic_ns()
        self.runs += 1
        print("a network may print what it likes")
        is_failing = self.runs == self.dies_at
        result = F.pixel_shuffle(self.conv(lr_image), 2)
        with LOG.open("a") as log:
            name = "failing" if is_failing else self.name
            log.write(f"{name} {started} {time.monotonic_ns()}\n")
        if is_failing:
            raise torch.OutOfMemoryError("CPU out of memory: tried to allocate 9 EB")
        return result


def lasting() -> nn.Module:
    """A network."""
    return Noting("lasting")


def dying() -> nn.Module:
    """One that runs out of memory in the second of two rounds of two runs, after a warm-up."""
    return Noting("dying", dies_at=5)
