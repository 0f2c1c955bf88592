"""What the tests of many files share: small jobs, who watches them, networks that wait."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from escsr.engines.engine import Engine, Floats
from escsr.images.writer import write_image
from escsr.upscaling.files import FileJob, FileOutcome
from escsr.upscaling.passes import MultiPassUpscaler, WorkSettings
from escsr.upscaling.sizes import Enlargement, SizeRequest
from tests import networks
from tests.networks import ArrayEngine

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


def upscaler_of(engine: Engine, memory_limit_bytes: int | None = None) -> WatchedUpscaler:
    """An x2 network on the CPU."""
    settings = WorkSettings(memory_limit_bytes=memory_limit_bytes, keep_colours=False)
    models = networks.upscaler_of(engine)._upscaler.models
    upscaler = WatchedUpscaler(models, settings, default_scale=None)
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


def waiting_network(happened: Callable[[int], bool]) -> ArrayEngine:
    """Doubles every pixel; waits before each image until something has happened."""
    calls = 0

    def enlarge(images: Floats) -> Floats:
        nonlocal calls
        deadline = time.monotonic() + PATIENCE_S
        while not happened(calls):
            assert time.monotonic() < deadline, f"nothing happened beside image {calls}"
            time.sleep(0.005)
        calls += 1
        return networks.nearest(images)

    return ArrayEngine(enlarge)


def large_first(jobs: list[FileJob]) -> list[FileJob]:
    """The same jobs, but the first takes its encoder a second or two."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    write_image(jobs[0].input, noise, overwrite=True)
    return jobs


def at_once(index: int) -> bool:
    """Wait for nothing."""
    return True
