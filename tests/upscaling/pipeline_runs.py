"""What the tests of many files share: small jobs, who watches them, networks that wait."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from escsr.engines.engine import EngineOptions
from escsr.images.writer import write_image
from escsr.upscaling.files import FileJob, FileOutcome
from escsr.upscaling.models import ModelPool
from escsr.upscaling.passes import MultiPassUpscaler, WorkSettings
from escsr.upscaling.sizes import Enlargement, SizeRequest

PATIENCE_S = 20.0


class Watch:
    """Notes what it is told, and may do something at the beginning of a file."""

    def __init__(self, on_begin: Callable[[int], None] | None = None) -> None:
        self.said: list[str] = []
        self.outcomes: list[FileOutcome] = []
        self.on_begin = on_begin

    def begin(self, index: int) -> None:
        """Note it, and do what was wished."""
        self.said.append(f"begin {index}")
        if self.on_begin is not None:
            self.on_begin(index)

    def advance(self, fraction: float) -> None:
        """A fraction it is, and no more."""
        assert 0 <= fraction <= 1

    def end(self, index: int, outcome: FileOutcome) -> None:
        """Note it."""
        self.said.append(f"end {index}")
        self.outcomes.append(outcome)


class WatchedUpscaler(MultiPassUpscaler):
    """Notes which threads ask for sizes, which is the first step of reading a file."""

    def plan_size(self, width: int, height: int, request: SizeRequest) -> Enlargement:
        """Note the thread."""
        self.askers.append(threading.current_thread())
        return super().plan_size(width, height, request)

    askers: list[threading.Thread]


def upscaler_of(network: nn.Module, memory_limit_bytes: int | None = None) -> WatchedUpscaler:
    """An x2 network on the CPU."""
    settings = WorkSettings(memory_limit_bytes=memory_limit_bytes, keep_colours=False)
    upscaler = WatchedUpscaler(
        ModelPool(network, EngineOptions(device="cpu")), settings, default_scale=None
    )
    upscaler.askers = []
    return upscaler


def write_jobs(folder: Path) -> list[FileJob]:
    """Four photographs of different sizes, in a folder, and what is wanted of them."""
    made: list[FileJob] = []
    for index in range(4):
        source = folder / f"in-{index}.png"
        shape = (20 + 9 * index, 40 - 5 * index, 3)
        write_image(source, np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))
        output = folder / "out" / f"{index}.png"
        made.append(FileJob(input=source, output=output, request=SizeRequest(), make_folder=True))
    return made


def names_in(folder: Path) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir())


class WaitingNetwork(nn.Module):
    """Doubles every pixel; waits before each image until something has happened."""

    scale = 2

    def __init__(self, happened: Callable[[int], bool]) -> None:
        super().__init__()
        self._happened = happened
        self._calls = 0

    def __deepcopy__(self, memo: object) -> "WaitingNetwork":
        return self

    def forward(self, lr_image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._happened(self._calls):
            assert time.monotonic() < deadline, f"nothing happened beside image {self._calls}"
            time.sleep(0.005)
        self._calls += 1
        return nn.functional.interpolate(lr_image, scale_factor=2)


def large_first(jobs: list[FileJob]) -> list[FileJob]:
    """The same jobs, but the first takes its encoder a second or two."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    write_image(jobs[0].input, noise, overwrite=True)
    return jobs


def nearest(index: int) -> bool:
    """Wait for nothing."""
    return True
