"""Time networks of two versions of the package against each other, in turn on one machine.

Each version has a process of its own, which opens a network with the fastest back-end, runs it when
told to, and waits without work meanwhile. Rounds take turns; figures are medians of them, and of
the ratios of each round.

    git worktree add ../before 28adcdf   # and pip install it, or compile its kernels, once
    python benchmarks/compare_versions.py ../before . esc@4 esc@2 esc-tiny@4 --threads 2 --out FILE
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

WORKER = """
import json, sys, time
import torch
from escsr.model import ESC, variant

name, scale, height, width, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
torch.manual_seed(0)
network = ESC(variant(name, scale=scale)).eval()
image = torch.rand(1, 3, height, width)
try:
    from escsr.engines.eager import engine_of_module
    from escsr.engines.engine import EngineOptions

    options = EngineOptions(device="cpu", num_threads=threads)
    engine = engine_of_module(network, scale=scale, options=options)
    backend, image = engine.name, image.numpy()
    run = engine.run
except ImportError:  # versions before the engines took arrays
    from escsr.inference.engine import Engine

    engine = Engine(network, scale=scale, device=torch.device("cpu"))
    backend = engine.backend
    run = lambda image: engine.run(image, torch.float32)

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))

run(image[..., :64, :64])
before = status("VmRSS")
run(image)
print(json.dumps({"backend": backend, "peak_mb": status("VmHWM") - before}), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    run(image)
    print(time.perf_counter() - start, flush=True)
"""
_RESULT_SIZE = (720, 1280)


class Version:
    """A process that runs one network of one version."""

    def __init__(self, tree: Path, network: str, scale: int, threads: int) -> None:
        height, width = (round(side / scale) for side in _RESULT_SIZE)
        settings = [network, scale, height, width, threads]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, settings)],
            env={**os.environ, "PYTHONPATH": str(tree.resolve() / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.facts: dict[str, Any] = json.loads(self._from.readline())

    def seconds(self) -> float:
        """Of one run."""
        self._to.write("\n")
        self._to.flush()
        return float(self._from.readline())

    def end(self) -> None:
        """Let the process end."""
        self._to.close()
        self._process.wait()


def compare(arguments: argparse.Namespace, network: str, scale: int) -> dict[str, Any]:
    """One network, all rounds."""
    trees = {"before": arguments.before, "after": arguments.after}
    versions = {
        name: Version(tree, network, scale, arguments.threads) for name, tree in trees.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(arguments.rounds):
        for name, version in versions.items():
            taken[name].append(version.seconds())
    for version in versions.values():
        version.end()
    ratios = sorted(b / a for b, a in zip(taken["before"], taken["after"], strict=True))
    return {
        "network": f"{network} x{scale}",
        "seconds": {name: statistics.median(values) for name, values in taken.items()},
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{name: version.facts for name, version in versions.items()},
    }


def main() -> None:
    """Compare, print a table, write it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="a tree of the package, with its kernels")
    parser.add_argument("after", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NAME@SCALE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| network | before, ms | after, ms | times faster | MB before | MB after |")
    print("|---|---|---|---|---|---|")
    for asked in arguments.networks:
        network, _, scale = asked.partition("@")
        row = compare(arguments, network, int(scale))
        rows.append(row)
        before, after = (1000 * row["seconds"][name] for name in ("before", "after"))
        spread = f"{row['ratios'][0]:.2f}-{row['ratios'][-1]:.2f}"
        memory = (row[name]["peak_mb"] for name in ("before", "after"))
        print(
            f"| {row['network']} | {before:.0f} | {after:.0f} | {row['ratio']:.2f} ({spread}) | "
            + " | ".join(f"{mb:.0f}" for mb in memory)
            + " |",
            flush=True,
        )
    if arguments.out is not None:
        record = {
            "date": date.today().isoformat(),
            "processor": f"{platform.machine()}, {os.environ.get('ESCSR_CPU', 'its best')}",
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "networks": rows,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
