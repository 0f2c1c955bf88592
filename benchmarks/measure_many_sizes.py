"""Whether compiled graphs and memory level off when images of many sizes go through one network.

Each run has a process of its own. A compiled back-end that made a graph per size, or kept something
of every image, would show here. Memory is what the process holds after each image; Linux only.

PyTorch prepares every convolution for every size of image and keeps 1024 of them, in two caches:
oneDNN's of code and its own of descriptions. Each back-end also runs with both cut to 128, to see
how much of the memory is theirs; and one runs as if the Upscaler did not return freed blocks.

    python benchmarks/measure_many_sizes.py --out benchmarks/DATE-many-sizes.json
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

from engines import run_of
from escsr.model.attention.backends import FoldedBackend
from escsr.upscaling import Upscaler
from escsr.weights import load_model

SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
_COLOURS = {"flex": "#0072B2", "sdpa": "#D55E00"}
_LINES = {"": "-", "small caches": ":", "freed blocks kept": "--"}
_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One way to send the images through the network."""

    attention: FoldedBackend
    """The back-end."""
    keeps_freed: bool = False
    """Whether it goes past the Upscaler, which returns freed blocks after every image."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its process finds there."""


SIDES = {
    "flex": Side(attention="flex"),
    "sdpa": Side(attention="sdpa"),
    "flex, small caches": Side(attention="flex", environment=SMALL_CACHES),
    "sdpa, small caches": Side(attention="sdpa", environment=SMALL_CACHES),
    "sdpa, freed blocks kept": Side(attention="sdpa", keeps_freed=True),
}


def main() -> None:
    """Run the sides, or be one of them."""
    arguments = _arguments()
    sizes = _sizes(arguments.images, arguments.largest)
    if arguments.side:
        print(json.dumps(measure(SIDES[arguments.side], sizes)))
        return
    record = {
        "date": date.today().isoformat(),
        "model": "esc-tiny x4",
        "sizes": f"{arguments.images}, sides drawn from 1 to {arguments.largest}, seed 0",
        "different_sizes": len(set(sizes)),
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "small_caches": SMALL_CACHES,
        "sides": {name: _in_own_process(arguments, name) for name in SIDES},
    }
    for name, one in record["sides"].items():
        graphs, memory = one["compiled_graphs"], one["resident_mib"]
        print(f"{name}: {graphs[-1]} graphs, MiB at each quarter {memory[:: len(memory) // 4]}")
    arguments.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    plot(record, arguments.out.with_suffix(".png"))


def measure(side: Side, sizes: Sequence[tuple[int, int]]) -> dict[str, list[float]]:
    """Graphs compiled so far, resident memory and processor time, image by image."""
    from torch._dynamo.utils import counters

    enlarge = _enlarger(side)
    found: dict[str, list[float]] = {
        name: [] for name in ("compiled_graphs", "resident_mib", "core_seconds")
    }
    for size in sizes:
        started = time.process_time()
        enlarge(torch.rand(1, 3, *size))
        found["core_seconds"].append(round(time.process_time() - started, 3))
        found["compiled_graphs"].append(counters["stats"]["unique_graphs"])
        found["resident_mib"].append(round(_resident_bytes() / _MIB, 1))
    return found


def plot(record: dict, path: Path) -> None:
    """Graphs above, memory below, over the images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(6.4, 4.8), sharex=True, height_ratios=(1, 2)
    )
    for name, one in record["sides"].items():
        attention, _, variant = name.partition(", ")
        style = {"color": _COLOURS[attention], "linestyle": _LINES[variant], "label": name}
        images = range(1, len(one["resident_mib"]) + 1)
        above.plot(images, one["compiled_graphs"], **style)
        below.plot(images, one["resident_mib"], **style)
    above.set_ylabel("graphs compiled")
    above.set_ylim(-0.2, max(2, max(record["sides"]["flex"]["compiled_graphs"])) + 0.2)
    above.set_title(f"{record['model']}, images of {record['different_sizes']} sizes, on a CPU")
    below.set_ylabel("memory held (MiB)")
    below.set_ylim(bottom=0)
    below.set_xlabel("images so far")
    below.legend(frameon=False, ncols=2, loc="lower right")
    for panel in (above, below):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _enlarger(side: Side) -> Callable[[torch.Tensor], object]:
    """What makes an image larger: the Upscaler, or its engine alone."""
    if not side.keeps_freed:
        return Upscaler("esc-tiny", scale=4, device="cpu", attention_backend=side.attention)
    return run_of(load_model("esc-tiny", scale=4), attention=side.attention)


def _sizes(num_images: int, largest: int) -> list[tuple[int, int]]:
    generator = random.Random(0)
    return [
        (generator.randint(1, largest), generator.randint(1, largest)) for _ in range(num_images)
    ]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _in_own_process(arguments: argparse.Namespace, name: str) -> dict[str, list[float]]:
    command = [sys.executable, __file__, "--side", name]
    command += ["--images", str(arguments.images), "--largest", str(arguments.largest)]
    environment = {**os.environ, **SIDES[name].environment}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(result.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=700)
    parser.add_argument("--largest", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("many-sizes.json"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
