"""Where the time of the native back-end goes: each kernel beside what its arithmetic would take.

The arithmetic's time is its multiply-accumulates at the best rate that a matrix product of PyTorch
reaches here, and exponentials at the rate of torch.exp on numbers in the cache: both measured as
for the floors of ``escsr benchmark``.

    python benchmarks/measure_time_shares.py esc -s 4 --out benchmarks/DATE-time-shares.json
"""

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from escsr.evaluation.benchmark.counting import Product
from escsr.evaluation.benchmark.floor import exp_rate, matrix_rate
from escsr.family.variants import VARIANTS
from escsr.inference.engine import Engine
from escsr.inference.native import body, convolution, layers
from escsr.model.network import ESC

_PRODUCTS = ((4096, 64, 80), (4096, 576, 64), (2048, 2048, 2048))
"""Rows, inner and columns: a 1x1 and a 3x3 convolution of ESC's, and one large in every way."""

_NAMES = {
    "attend": "window attention",
    "run_layer": "feed-forward layers, with all 1x1 convolutions",
    "convolve": "large and dynamic kernels, in the frequency domain",
    "add_and_normalise": "last LayerNorm of a block",
    "convolve_3x3": "3x3 convolutions, by Winograd's transforms",
}


def main() -> None:
    """Measure, print a table, write it down."""
    arguments = _arguments()
    torch.manual_seed(0)
    network = ESC(replace(VARIANTS[arguments.model], scale=arguments.scale)).eval()
    engine = Engine(network, scale=arguments.scale, device=torch.device("cpu"), backend="native")
    height, width = round(720 / arguments.scale), round(1280 / arguments.scale)
    image = torch.rand(1, 3, height, width)
    engine.run(image, torch.float32)
    rounds = [_one_round(engine, image) for _ in range(arguments.rounds)]
    seconds = {name: statistics.median(one[name] for one in rounds) for name in (*_NAMES, "all")}
    products = [Product("linear", 1, *shape) for shape in _PRODUCTS]
    multiply_rate, exponential_rate = max(map(matrix_rate, products)), exp_rate()
    least = {name: macs / multiply_rate for name, macs in _macs(network, height, width).items()}
    least["attend"] += _exponentials(network, height, width) / exponential_rate
    record = {
        "date": date.today().isoformat(),
        "model": f"{arguments.model} x{arguments.scale}, {width}x{height} pixels, float32",
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "gmacs_per_second": multiply_rate / 1e9,
        "gexps_per_second": exponential_rate / 1e9,
        "seconds": seconds,
        "least_seconds": least,
        "least_seconds_in_all": sum(least.values()),
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(_table(record))


def _one_round(engine: Engine, image: torch.Tensor) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    places: list[tuple[Any, str]] = [
        (body, "attend"),
        (body, "add_and_normalise"),
        (layers, "run_layer"),
        (layers, "convolve"),
        (convolution, "convolve_3x3"),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name, function in kept:
        setattr(owner, name, _timed(function, spent, name))
    try:
        started = time.perf_counter()
        engine.run(image, torch.float32)
        spent["all"] = time.perf_counter() - started
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
    return spent


def _timed(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - started

    return timed


def _macs(network: ESC, height: int, width: int) -> dict[str, float]:
    """Multiply-accumulates that each kernel really does; attention only for pixels that exist."""
    config = network.config
    pixels, w = height * width, config.window_size
    keys = w * w
    hidden, first = int(config.dim * config.expansion), int(config.dim * config.first_expansion)
    layer = config.dim * hidden * 2 + 9 * hidden + 2 * config.pdim * config.dim
    start = config.dim * first * 2 + 9 * first + 3 * config.dim**2 + config.dim**2
    inner = 32 - config.large_kernel_size + 1
    # Per tile: one real matrix per frequency for both parts of two tiles, and transforms there and
    # back of some 450 operations per 32 numbers.
    tile = config.pdim * (32 * 32 * (config.pdim + 2) + 64 * 450 / 2)
    last = 3 * config.scale**2
    return {
        "attend": config.num_blocks * pixels * keys * 2 * config.dim,
        "run_layer": pixels * config.num_blocks * (config.num_conv_layers * layer + start),
        "convolve": config.num_blocks * config.num_conv_layers * pixels * tile / inner**2,
        "add_and_normalise": 0.0,
        "convolve_3x3": pixels
        * 36
        / 16
        * config.dim
        * (config.dim * (config.num_blocks + 1) + last),
    }


def _exponentials(network: ESC, height: int, width: int) -> float:
    config = network.config
    return config.num_blocks * config.num_heads * height * width * config.window_size**2


def _table(record: dict[str, Any]) -> str:
    seconds, least = record["seconds"], record["least_seconds"]
    lines = ["| part | ms | share | its arithmetic, ms | times |", "|---|---|---|---|---|"]
    rest = seconds["all"] - sum(seconds[name] for name in _NAMES)
    for name, words in _NAMES.items():
        times = f"{seconds[name] / least[name]:.2f}" if least[name] else "-"
        lines.append(
            f"| {words} | {1e3 * seconds[name]:.0f} | {seconds[name] / seconds['all']:.0%} | "
            f"{1e3 * least[name]:.0f} | {times} |"
        )
    lines.append(f"| the rest | {1e3 * rest:.0f} | {rest / seconds['all']:.0%} | | |")
    whole = record["least_seconds_in_all"]
    lines.append(
        f"| all | {1e3 * seconds['all']:.0f} | 100% | {1e3 * whole:.0f} | "
        f"{seconds['all'] / whole:.2f} |"
    )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="esc", choices=sorted(VARIANTS))
    parser.add_argument("-s", "--scale", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
