"""Latency and memory of one thing that runs, in the process that it has for itself."""

import contextlib
import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from escsr.evaluation.benchmark.record import Round

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_SECONDS = 0.005


def measure_round(
    run: Callable[[], object], *, repeats: int, device: torch.device, loaded_bytes: int | None
) -> Round:
    """Time some runs.

    Args:
        run: to be timed; what it leaves on the device to do is waited for.
        repeats: how often.
        device: where it runs.
        loaded_bytes: what was resident before the first image; None leaves memory on a CPU out.
    """
    if device.type == "cuda":
        return _measure_on_cuda(run, repeats, device)
    with resident_peak() as peak:
        latencies = tuple(_timed_ms(run, device) for _ in range(repeats))
    most = peak.num_bytes
    above = most - loaded_bytes if most is not None and loaded_bytes is not None else None
    return Round(latencies_ms=latencies, peak_memory_bytes=above, reserved_memory_bytes=most)


def resident_bytes() -> int | None:
    """What of this process lies in memory, after giving back what is free; None but on Linux."""
    gc.collect()
    # Only glibc has it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status_bytes("VmRSS:")


@dataclass(slots=True)
class Peak:
    """The highest that was resident while a block ran."""

    num_bytes: int | None = None


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Watch the memory of this process.

    The kernel's own high-water mark is set back and read; where that is not allowed, memory is
    looked at every few milliseconds.

    Yields:
        What holds the peak afterwards; None but on Linux.
    """
    peak = Peak()
    try:
        # 5 sets the high-water mark back to what is resident now.
        _CLEAR_REFS.write_text("5")
    except OSError:
        with _sampled(peak):
            yield peak
        return
    yield peak
    peak.num_bytes = _status_bytes("VmHWM:")


@contextmanager
def _sampled(peak: Peak) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            now = _status_bytes("VmRSS:")
            if now is not None:
                peak.num_bytes = max(peak.num_bytes or 0, now)

    peak.num_bytes = _status_bytes("VmRSS:")
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _status_bytes(entry: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))
    return next(found, None)


def _measure_on_cuda(run: Callable[[], object], repeats: int, device: torch.device) -> Round:
    # Memory was given back after the last round, so the first run would pay for getting it.
    run()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    latencies = tuple(_timed_on_cuda_ms(run, device) for _ in range(repeats))
    most = Round(
        latencies_ms=latencies,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device),
        reserved_memory_bytes=torch.cuda.max_memory_reserved(device),
    )
    torch.cuda.empty_cache()
    return most


def _timed_on_cuda_ms(run: Callable[[], object], device: torch.device) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    started.record(stream)
    run()
    ended.record(stream)
    ended.synchronize()
    return started.elapsed_time(ended)


def _timed_ms(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "mps":
        torch.mps.synchronize()
    return 1000 * (time.perf_counter() - started)
