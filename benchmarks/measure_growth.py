"""Time and peak memory of ``escsr upscale`` for results of 0.1 to 100 megapixels, and their plot.

    python benchmarks/measure_growth.py --photos FOLDER --out benchmarks/DATE-growth.json

Each size is a process of its own, from its start to the finished PNG. The pictures are cut from a
mosaic of the photographs in a folder. Linux only.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.writer import write_image
from escsr.version import __version__

MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_SHAPE = 1.5
"""Width over height."""


def main() -> None:
    """Measure each size, write the record, draw it."""
    options = _options()
    sizes = [size for size in MEGAPIXELS if size <= options.largest]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mosaic = _mosaic(options.photos, max(sizes) / options.scale**2)
        floor = _measured([sys.executable, "-c", "import torch"])
        _upscaled(mosaic, sizes[0], folder, options)  # fills the system's file cache
        record = {
            "date": date.today().isoformat(),
            "model": options.model,
            "scale": options.scale,
            "exact": options.exact,
            "escsr": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "import_torch": floor,
            "sizes": [_upscaled(mosaic, size, folder, options) for size in sizes],
        }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot(record, options.out.with_suffix(".png"))


def plot(record: dict, path: Path) -> None:
    """Time on the left, memory on the right, over the size of the result."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.6))
    megapixels = [one["output_megapixels"] for one in record["sizes"]]
    seconds = [one["seconds"] for one in record["sizes"]]
    core_seconds = [one["core_seconds"] for one in record["sizes"]]
    start = record["import_torch"]["seconds"]
    left.plot(megapixels, seconds, "o-", color="#0072B2", label="time")
    left.plot(megapixels, core_seconds, "s--", color="#D55E00", label="time of all cores")
    rate = (seconds[-1] - start) / megapixels[-1]
    ideal = [start + rate * size for size in megapixels]
    left.plot(megapixels, ideal, ":", color="#555555", label=f"{start:.1f} s + {rate:.2f} s per MP")
    left.axhline(start, linewidth=0.8, color="#999999")
    left.annotate("import torch", (megapixels[-1], start), ha="right", va="top", color="#777777")
    left.set_yscale("log")
    left.set_ylabel("seconds, whole process")
    left.legend(frameon=False)
    memory = [one["peak_memory_bytes"] / 2**20 for one in record["sizes"]]
    right.plot(megapixels, memory, "o-", color="#0072B2", label="escsr upscale")
    result = [3 * size * 1e6 / 2**20 for size in megapixels]
    right.plot(megapixels, result, ":", color="#555555", label="the result's pixels alone")
    right.set_ylabel("peak memory (MiB), whole process")
    right.set_yscale("log")
    right.set_ylim(bottom=30, top=3 * max(memory))
    right.legend(frameon=False)
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xlabel("megapixels of the result")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{record['model']} x{record['scale']}, {record['threads']} threads of a CPU", fontsize=11
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="esc-tiny")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--exact", action="store_true", help="As if in one piece.")
    parser.add_argument("--largest", type=float, default=MEGAPIXELS[-1], help="In megapixels.")
    return parser.parse_args()


def _mosaic(folder: Path, megapixels: float) -> np.ndarray:
    """Photographs side by side, at least so large."""
    width, height = _size(megapixels)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READABLE_SUFFIXES)
    side = 512
    canvas = np.empty((-(-height // side) * side, -(-width // side) * side, 3), np.uint8)
    places = [
        (top, left)
        for top in range(0, canvas.shape[0], side)
        for left in range(0, canvas.shape[1], side)
    ]
    for index, (top, left) in enumerate(places):
        pixels = read_image(files[index % len(files)]).pixels[:side, :side, :3]
        canvas[top : top + side, left : left + side] = np.resize(pixels, (side, side, 3))
    return canvas


def _size(megapixels: float) -> tuple[int, int]:
    """(width, height) of a picture."""
    height = round((megapixels * 1e6 / _SHAPE) ** 0.5)
    return round(_SHAPE * height), height


def _upscaled(
    mosaic: np.ndarray, megapixels: float, folder: Path, options: argparse.Namespace
) -> dict[str, float | list[int]]:
    """Upscale a picture whose result has so many megapixels."""
    width, height = _size(megapixels / options.scale**2)
    source, result = folder / "source.png", folder / "result.png"
    write_image(source, np.ascontiguousarray(mosaic[:height, :width]), overwrite=True)
    command = [sys.executable, "-m", "escsr", "upscale", str(source), "-o", str(result)]
    command += ["-s", str(options.scale), "-n", options.model, "--overwrite"]
    command += ["--exact"] if options.exact else []
    taken = _measured(command)
    made = width * height * options.scale**2 / 1e6
    record = {"input": [width, height], "output_megapixels": round(made, 4), **taken}
    print(record, flush=True)
    return record


def _measured(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "seconds": round(seconds, 3),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    main()
