"""Time, memory and disk of exact results against tiles and the whole image; prints JSON.

    python benchmarks/measure_exact.py compare 1024 720 -n esc-tiny -s 2 --rounds 3
    python benchmarks/measure_exact.py limit photo.jpg result.jpg -s 2 --memory 2GB

``compare`` runs every way in its own process, in turn, on an image of noise: seconds are medians
over rounds, memory is the highest resident size above that of the loaded network. ``limit`` runs
``escsr upscale`` on a file and measures the whole process. POSIX only.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from escsr.evaluation.environment import describe_software
from escsr.images.files import probe_image
from escsr.model import ESC, variant
from escsr.upscaling import Upscaler
from escsr.upscaling.exact import temporary_folder
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.sizes import SizeRequest
from escsr.weights import bundled_models

WAYS: dict[str, dict[str, Any]] = {
    "whole": {"tile": "whole", "exact": False},
    "tiles of 512": {"tile": 512, "exact": False},
    "exact, in memory": {"tile": 512, "exact": True},
    "exact, on disk": {"tile": 512, "exact": True},
}
"""Name -> arguments of ``Upscaler``; what lies on disk is told by a limit of memory."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One way, measured once."""

    seconds: float
    """Of processor time, from the pixels to the last row of the result."""
    wall_seconds: float
    """The same by the clock."""
    memory_bytes: int
    """Highest resident size above that of the loaded network and the source."""
    planned_memory_bytes: int
    """What the plan promised."""
    disk_bytes: int
    """Temporary files."""
    num_tiles: int
    """Tiles, or parts."""


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    compare = modes.add_parser("compare", help="ways against each other")
    compare.add_argument("width", type=int)
    compare.add_argument("height", type=int)
    compare.add_argument("-n", "--model", default="esc-tiny", help="of the box, or a variant")
    compare.add_argument("-s", "--scale", type=int, default=2)
    compare.add_argument("--rounds", type=int, default=3)
    compare.add_argument("--backend", default="auto")
    compare.add_argument("--way", help=argparse.SUPPRESS)
    limit = modes.add_parser("limit", help="the memory of escsr upscale")
    limit.add_argument("source", type=Path)
    limit.add_argument("result", type=Path)
    limit.add_argument("options", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.mode == "limit":
        report = measure_limit(options.source, options.result, options.options)
    elif options.way is not None:
        report = asdict(_measure_way(options))
    else:
        report = _compare(options)
    print(json.dumps(report, indent=2))


def measure_limit(source: Path, result: Path, options: list[str]) -> dict[str, Any]:
    """Run ``escsr upscale`` and tell what the process took, and how full the disk became."""
    started, free = time.perf_counter(), _free_bytes()
    command = [sys.executable, "-m", "escsr", "upscale", str(source), "-o", str(result), *options]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE)
    most_used = 0
    while process.poll() is None:
        most_used = max(most_used, free - _free_bytes())
        time.sleep(0.5)
    assert process.stdout is not None
    (entry,) = json.loads(process.stdout.read())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    header = probe_image(source)
    made = probe_image(result, max_pixels=2**62)
    return {
        "options": options,
        "input": [header.width, header.height, header.format],
        "output": [made.width, made.height, made.format],
        "exact": entry["exact"],
        "num_parts": entry["num_tiles"],
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "disk_bytes": most_used,
        **_environment(),
    }


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    measured: dict[str, list[Subject]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            measured[way].append(_in_own_process(way))
    whole = statistics.median(subject.seconds for subject in measured["whole"])
    ways = {
        way: {
            "cpu_seconds": [round(subject.seconds, 2) for subject in subjects],
            "wall_seconds": [round(subject.wall_seconds, 2) for subject in subjects],
            "times_the_whole": round(statistics.median(s.seconds for s in subjects) / whole, 3),
            "memory_bytes": max(subject.memory_bytes for subject in subjects),
            "planned_memory_bytes": subjects[0].planned_memory_bytes,
            "disk_bytes": subjects[0].disk_bytes,
            "num_tiles": subjects[0].num_tiles,
        }
        for way, subjects in measured.items()
    }
    return {
        "model": options.model,
        "scale": options.scale,
        "size": [options.width, options.height],
        "backend": options.backend,
        "ways": ways,
        **_environment(),
    }


def _in_own_process(way: str) -> Subject:
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Subject(**json.loads(done.stdout))


def _measure_way(options: argparse.Namespace) -> Subject:
    size = (options.height, options.width, 3)
    source = planes_of(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    limit = None
    if options.way == "exact, on disk":
        in_memory = _plan(_upscaler(options, None), options)[1].peak_memory_bytes
        limit = in_memory // 2
    upscaler = _upscaler(options, limit)
    upscaler(np.zeros((40, 40, 3), np.uint8))
    enlarger, plan = _plan(upscaler, options)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    started, wall_started = time.process_time(), time.perf_counter()
    for _ in enlarger.stream(source, plan):
        pass
    return Subject(
        seconds=time.process_time() - started,
        wall_seconds=time.perf_counter() - wall_started,
        memory_bytes=_status("VmHWM") - before,
        planned_memory_bytes=plan.peak_memory_bytes,
        disk_bytes=plan.disk_bytes,
        num_tiles=plan.num_tiles,
    )


def _upscaler(options: argparse.Namespace, limit: int | None) -> Upscaler:
    model: Any = options.model
    if model not in {entry.name for entry in bundled_models()}:
        model = ESC(variant(model, scale=options.scale))
    arguments: dict[str, Any] = {**WAYS[options.way], "backend": options.backend}
    return Upscaler(model, scale=options.scale, device="cpu", memory_limit_bytes=limit, **arguments)


def _plan(upscaler: Upscaler, options: argparse.Namespace) -> tuple[Any, Any]:
    """The part of an Upscaler that streams, and its plan."""
    enlarger = upscaler._upscaler
    enlargement = enlarger.plan_size(
        options.width, options.height, SizeRequest(scale=options.scale)
    )
    pixels = np.zeros((options.height, options.width, 3), np.uint8)
    return enlarger, enlarger.plan(planes_of(pixels).shape, enlargement, result_is_held=False)


def _free_bytes() -> int:
    status = os.statvfs(temporary_folder())
    return status.f_bavail * status.f_frsize


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _environment() -> dict[str, Any]:
    return {
        **describe_software(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
