"""What is measured on a GPU: sizes, precisions, and how times and memory are taken."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

OUTPUT_WIDTH, OUTPUT_HEIGHT = 1280, 720
"""The paper's; an LR image is this over the scale."""

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "TF32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""By name; "TF32" is float32 with the switches for convolutions and matrix products on."""

_ROUNDS = 5
_SECONDS_PER_ROUND = 0.1
_MOST_RUNS_PER_ROUND = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Where to measure, and whether in earnest."""

    device: torch.device
    """CUDA; a CPU for a smoke test."""
    is_smoke: bool
    """Tiny sizes."""

    @property
    def scales(self) -> tuple[int, ...]:
        """The factors."""
        return (4,) if self.is_smoke else (2, 3, 4)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Names of ``PRECISIONS``."""
        return ("float32", "float16") if self.is_smoke else tuple(PRECISIONS)

    def lr_size(self, scale: int) -> tuple[int, int]:
        """Height and width of an LR image; 427 x 240 at x3, as published."""
        if self.is_smoke:
            return 12, 20
        return OUTPUT_HEIGHT // scale, -(-OUTPUT_WIDTH // scale)


@contextlib.contextmanager
def switches(precision: str) -> Iterator[torch.dtype]:
    """Set PyTorch's switches for a precision, and give its dtype."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allowed = precision == "TF32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield PRECISIONS[precision]
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def measure(runs: dict[str, Callable[[], Any]], plan: Plan) -> dict[str, dict[str, Any]]:
    """Time all of them in turn over several rounds; those that fail say why.

    Returns:
        By name: median, least and largest milliseconds over all runs, and the most memory that was
        allocated beside what was held before, in bytes.
    """
    times: dict[str, list[float]] = {}
    results: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for name, run in runs.items():
        try:
            counts[name] = _warm_up(run, plan)
            results[name] = {"peak_memory_bytes": _peak_bytes(run, plan)}
            times[name] = []
        # A back-end that cannot run is a result, and the others are to be measured.
        except Exception as error:
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
    for _ in range(1 if plan.is_smoke else _ROUNDS):
        for name, measured in times.items():
            measured.extend(_milliseconds(runs[name], plan) for _ in range(counts[name]))
    for name, measured in times.items():
        results[name] |= {
            "median_ms": round(statistics.median(measured), 4),
            "least_ms": round(min(measured), 4),
            "largest_ms": round(max(measured), 4),
            "runs": len(measured),
        }
    return results


def _warm_up(run: Callable[[], Any], plan: Plan) -> int:
    """Run it a few times; how often to run it in a round."""
    for _ in range(1 if plan.is_smoke else 5):
        run()
    seconds = _milliseconds(run, plan) / 1000
    wanted = int(_SECONDS_PER_ROUND / max(seconds, 1e-6))
    return 1 if plan.is_smoke else max(2, min(_MOST_RUNS_PER_ROUND, wanted))


def _milliseconds(run: Callable[[], Any], plan: Plan) -> float:
    """One run, from a device that is idle until it is done."""
    if plan.device.type != "cuda":
        started = time.perf_counter()
        run()
        return (time.perf_counter() - started) * 1000
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last)


def _peak_bytes(run: Callable[[], Any], plan: Plan) -> int | None:
    if plan.device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def ratios(results: dict[str, dict[str, Any]], to: str) -> dict[str, dict[str, float]]:
    """How many times faster and smaller each is than one of them."""
    base = results.get(to, {})
    told: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        if "median_ms" in result and "median_ms" in base:
            told[name] = {"faster": round(base["median_ms"] / result["median_ms"], 2)}
            if result["peak_memory_bytes"]:
                smaller = base["peak_memory_bytes"] / result["peak_memory_bytes"]
                told[name]["smaller"] = round(smaller, 2)
    return told
