"""Whether compiled graphs and memory level off when images of 200 sizes go through one network.

Each run has a process of its own. A compiled back-end that made a graph per size, or kept something
of every image, would show here. Memory is what the process holds after each image; Linux only.

Each back-end also runs with oneDNN's cache of prepared convolutions cut from 1024 to 32, to see how
much of the memory is that and not attention's.

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
from datetime import date
from pathlib import Path

import torch

from escsr.inference.engine import Engine
from escsr.model.attention_backends import AttentionBackend
from escsr.weights import load_model

SIDES: tuple[AttentionBackend, ...] = ("flex", "sdpa")
SMALL_CACHE = "32"
_COLOURS = {"flex": "#0072B2", "sdpa": "#D55E00"}
_MIB = 2**20


def main() -> None:
    """Run the sides, or be one of them."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.images, arguments.largest)))
        return
    record = {
        "date": date.today().isoformat(),
        "model": "esc-tiny x4",
        "sizes": f"{arguments.images}, sides drawn from 1 to {arguments.largest}, seed 0",
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "sides": {
            f"{side}{name}": _in_own_process(arguments, side, environment)
            for name, environment in {
                "": {},
                ", small cache": {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": SMALL_CACHE},
            }.items()
            for side in SIDES
        },
    }
    for name, one in record["sides"].items():
        graphs, memory = one["compiled_graphs"], one["resident_mib"]
        print(f"{name}: {graphs[-1]} graphs, {memory[len(memory) // 2]} MiB half way, {memory[-1]}")
    arguments.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    plot(record, arguments.out.with_suffix(".png"))


def measure(side: AttentionBackend, num_images: int, largest: int) -> dict[str, list[float]]:
    """Sizes, graphs compiled so far, resident memory and seconds, image by image."""
    from torch._dynamo.utils import counters

    network = load_model("esc-tiny", scale=4)
    engine = Engine(network, scale=4, device=torch.device("cpu"), attention_backend=side)
    generator = random.Random(0)
    found: dict[str, list[float]] = {
        name: [] for name in ("height", "width", "compiled_graphs", "resident_mib", "seconds")
    }
    for _ in range(num_images):
        height, width = generator.randint(1, largest), generator.randint(1, largest)
        started = time.perf_counter()
        engine.run(torch.rand(1, 3, height, width), torch.float32)
        found["height"].append(height)
        found["width"].append(width)
        found["seconds"].append(round(time.perf_counter() - started, 3))
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
        side, _, cache = name.partition(", ")
        style = {"color": _COLOURS[side], "linestyle": ":" if cache else "-", "label": name}
        images = range(1, len(one["resident_mib"]) + 1)
        above.plot(images, one["compiled_graphs"], **style)
        below.plot(images, one["resident_mib"], **style)
    above.set_ylabel("graphs compiled")
    above.set_ylim(-0.2, max(2, max(record["sides"]["flex"]["compiled_graphs"])) + 0.2)
    above.set_title(f"{record['model']}, images of {record['sizes'].split(',')[0]} sizes, on a CPU")
    below.set_ylabel("memory held (MiB)")
    below.set_ylim(bottom=0)
    below.set_xlabel("images so far")
    below.legend(frameon=False, ncols=2, loc="lower right")
    for panel in (above, below):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _in_own_process(
    arguments: argparse.Namespace, side: str, environment: dict[str, str]
) -> dict[str, list[float]]:
    command = [sys.executable, __file__, "--side", side]
    command += ["--images", str(arguments.images), "--largest", str(arguments.largest)]
    result = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    return json.loads(result.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--largest", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("many-sizes.json"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
