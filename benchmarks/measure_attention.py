"""What storing the attention scores costs: a network with ``naive`` and with ``sdpa`` attention.

Each side runs in a process of its own, in turn over several rounds; random weights, since only time
and memory are asked for. Memory is the process's high-water mark above what it held before the
first image. Linux only.

    python benchmarks/measure_attention.py esc -s 4 --out benchmarks/DATE-attention.json
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from escsr.model.attention_backends import AttentionBackend
from escsr.model.network import ESC
from escsr.model.variants import variant

OUTPUT_WIDTH, OUTPUT_HEIGHT = 1280, 720
SIDES: tuple[AttentionBackend, ...] = ("naive", "sdpa")


def main() -> None:
    """Compare the sides, or be one of them."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(measure(arguments.model, arguments.scale, arguments.side)))
        return
    rounds = [
        {side: _in_own_process(arguments, side) for side in SIDES} for _ in range(arguments.rounds)
    ]
    record = {
        "date": date.today().isoformat(),
        "model": arguments.model,
        "scale": arguments.scale,
        "lr_image": [OUTPUT_WIDTH // arguments.scale, OUTPUT_HEIGHT // arguments.scale],
        "precision": "float32",
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "rounds": rounds,
    }
    for quantity in ("seconds", "peak_memory_bytes"):
        ratios = [one["naive"][quantity] / one["sdpa"][quantity] for one in rounds]
        record[f"median_ratio_of_{quantity}"] = statistics.median(ratios)
    print(json.dumps(record, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(model: str, scale: int, side: AttentionBackend) -> dict[str, float]:
    """Median seconds of three runs after one to warm up, and the memory they needed."""
    torch.manual_seed(0)
    network = ESC(variant(model, scale=scale), attention_backend=side).eval()
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    lr_image = torch.rand(1, 3, OUTPUT_HEIGHT // scale, OUTPUT_WIDTH // scale)
    before_bytes = _peak_bytes()
    seconds = []
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            network(lr_image)
            seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_memory_bytes": _peak_bytes() - before_bytes,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_own_process(arguments: argparse.Namespace, side: str) -> dict[str, float]:
    command = [sys.executable, __file__, arguments.model, "-s", str(arguments.scale)]
    result = subprocess.run([*command, "--side", side], check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="esc")
    parser.add_argument("-s", "--scale", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
