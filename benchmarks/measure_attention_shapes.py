"""Which attention back-end is fastest for which window, type and purpose: what "auto" stands on.

Attention alone, on random windows; back-ends take turns within a round. ``flex`` runs only where a
compiler is, and its compiling is not counted but given.

    python benchmarks/measure_attention_shapes.py --out benchmarks/DATE-attention-shapes.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from escsr.model.attention.backends import AttentionBackend, attend, available_backends

BACKENDS: tuple[AttentionBackend, ...] = ("naive", "sdpa", "chunked", "flex")
LARGEST_SCORES = 2**25
"""Entries that naive attention stores at once."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One task for all back-ends."""

    window_size: int
    num_heads: int
    head_dim: int
    position_rank: int
    """0: a bias; else its factors are appended, as in ESC-RIB and flashbias."""
    dtype: str
    with_gradients: bool

    @property
    def windows(self) -> int:
        """As many as naive attention can hold, at most 64."""
        scores = self.num_heads * self.window_size**4
        return max(1, min(64, LARGEST_SCORES // scores))


def main() -> None:
    """Measure all cases and write the record."""
    arguments = _arguments()
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    is_cuda = device.type == "cuda"
    record = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
        "unavailable": {name: why for name, why in available_backends(device).items() if why},
        "cases": [],
    }
    for case in cases():
        measured = measure(case, device, arguments.rounds)
        record["cases"].append(measured)
        print(json.dumps(measured), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def cases() -> Iterator[Case]:
    """Windows of 8 to 48 with a bias, of 16 to 64 with factors; half precision; gradients."""
    for window_size in (4, 8, 16, 32, 48):
        yield _case(window_size)
    yield _case(16, head_dim=8)
    for window_size in (8, 16, 32):
        yield _case(window_size, dtype="bfloat16")
    for window_size in (16, 32, 64):
        yield _case(window_size, position_rank=16)
    for window_size in (8, 16, 32):
        yield _case(window_size, with_gradients=True)
        yield _case(window_size, with_gradients=True, dtype="bfloat16")
    for window_size in (16, 32):
        yield _case(window_size, position_rank=16, with_gradients=True)


def _case(
    window_size: int,
    *,
    head_dim: int = 16,
    position_rank: int = 0,
    dtype: str = "float32",
    with_gradients: bool = False,
) -> Case:
    return Case(
        window_size=window_size,
        num_heads=4,
        head_dim=head_dim,
        position_rank=position_rank,
        dtype=dtype,
        with_gradients=with_gradients,
    )


def measure(case: Case, device: torch.device, rounds: int) -> dict[str, object]:
    """Median milliseconds of each back-end, and the seconds of its first call."""
    given, bias = _inputs(case, device)
    taking_part = [
        name
        for name in BACKENDS
        if available_backends(device)[name] is None
        and not (name == "flex" and device.type == "cpu" and case.with_gradients)
    ]
    first_seconds: dict[str, float] = {}
    milliseconds: dict[str, list[float]] = {name: [] for name in taking_part}
    for number in range(rounds + 1):
        for name in taking_part:
            seconds = _seconds(case, given, bias, name)
            if number == 0:
                first_seconds[name] = round(seconds, 3)
            else:
                milliseconds[name].append(1000 * seconds)
    medians = {name: round(statistics.median(one), 3) for name, one in milliseconds.items()}
    return {
        **{name: value for name, value in vars(case).items()},
        "windows": case.windows,
        "median_ms": medians,
        "fastest": min(medians, key=lambda name: medians[name]),
        "first_call_seconds": first_seconds,
    }


def _inputs(case: Case, device: torch.device) -> tuple[list[Tensor], Tensor | None]:
    tokens, dtype = case.window_size**2, _DTYPES[case.dtype]
    leading = (case.windows, case.num_heads, tokens)
    dims = (*[case.head_dim + case.position_rank] * 2, case.head_dim)
    given = [
        torch.randn(*leading, dim, device=device, dtype=dtype).requires_grad_(case.with_gradients)
        for dim in dims
    ]
    if case.position_rank:
        return given, None
    bias = torch.randn(case.num_heads, tokens, tokens, device=device, dtype=dtype)
    return given, bias.requires_grad_(case.with_gradients)


def _seconds(
    case: Case, given: list[Tensor], bias: Tensor | None, backend: AttentionBackend
) -> float:
    q, k, v = given
    parts = [part for part in (*given, bias) if part is not None]
    started = time.perf_counter()
    with torch.set_grad_enabled(case.with_gradients):
        attended = attend(q, k, v, bias, backend=backend)
        if case.with_gradients:
            torch.autograd.grad(attended.sum(), parts)
    if q.device.type == "cuda":
        torch.cuda.synchronize(q.device)
    return time.perf_counter() - started


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
