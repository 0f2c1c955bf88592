"""Whether "auto" ever takes a back-end slower than eager with sdpa, on small and large images.

Rounds of one process, back-ends in turn; medians.

    python benchmarks/measure_sizes.py --out benchmarks/DATE-sizes.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from engines import run_of
from escsr.engines.core_engine import choose_backend
from escsr.family.variants import VARIANTS
from escsr.model.network import ESC

NETWORKS = ("esc-tiny", "esc", "esc-light", "esc-fp", "esc-real", "esc-rib")
SIZES = ((1, 1), (8, 8), (16, 16), (33, 17), (64, 64), (100, 150), (256, 256))
_SECONDS = 4.0


def main() -> None:
    """Measure, print a table, write it down."""
    arguments = _arguments()
    torch.manual_seed(0)
    rows = []
    for name in arguments.networks:
        network = ESC(VARIANTS[name]).eval()
        engines = {
            "auto": run_of(network),
            "eager": run_of(network, backend="eager"),
        }
        for height, width in SIZES:
            ms = _medians(engines, torch.rand(1, 3, height, width))
            ratio = ms["eager"] / ms["auto"]
            rows.append(
                {"network": name, "height": height, "width": width, "ms": ms, "times": ratio}
            )
            figures = f"{ms['eager']:.1f} | {ms['auto']:.1f} | {ratio:.2f}"
            print(f"| {name} | {width}x{height} | {figures} |")
    record = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "auto_is": choose_backend("auto", "cpu"),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _medians(
    engines: dict[str, Callable[[torch.Tensor], torch.Tensor]], image: torch.Tensor
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in engines}
    for run in engines.values():
        run(image)
    started = time.perf_counter()
    while time.perf_counter() - started < _SECONDS or len(times["eager"]) < 3:
        for name, run in engines.items():
            begun = time.perf_counter()
            run(image)
            times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(found) for name, found in times.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(VARIANTS), default=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path("sizes.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
