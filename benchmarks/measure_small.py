"""What a small picture costs from start to finish: seconds, peak memory, disk of the installation.

    python benchmarks/measure_small.py PYTHON [PYTHON...] [--rounds 7] [--out record.json]

Each PYTHON has escsr installed, of this or an earlier version. They take turns, each in a fresh
process: 64x64 pixels by ``escsr upscale``, ``escsr.Upscaler()``, and ``escsr --help``.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "upscale 64x64": ["-m", "escsr", "upscale", "small.png", "-o", "large.png", "--overwrite"],
    "Upscaler()": ["-c", "import escsr; escsr.Upscaler()"],
    "--help": ["-m", "escsr", "--help"],
}


def taken(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds and peak MB of a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1e3


def installed_mb(python: str) -> float:
    """What site-packages takes on the disk."""
    program = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    folder = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    files = Path(folder.stdout.strip()).rglob("*")
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file()) / 1e6


def main() -> None:
    """Measure, print a table, and write a record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sample = Path(__file__).parents[1] / "docs" / "sample" / "cat.png"
    figures: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        crop = (
            "import sys, escsr.images.files as f, escsr.images.writer as w\n"
            "w.write_image(sys.argv[2], f.read_image(sys.argv[1]).pixels[50:114, 100:164].copy())"
        )
        small = str(Path(folder) / "small.png")
        subprocess.run([asked.pythons[0], "-c", crop, str(sample), small], check=True)
        for _ in range(asked.rounds):
            for python in asked.pythons:
                for name, arguments in COMMANDS.items():
                    cost = taken([python, *arguments], folder)
                    figures.setdefault(python, {}).setdefault(name, []).append(cost)
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rounds": asked.rounds,
        "installations": [
            {
                "installed_mb": round(installed_mb(python), 1),
                **{
                    name: {
                        "seconds_median": round(statistics.median(s for s, _ in costs), 3),
                        "seconds": [round(s, 3) for s, _ in costs],
                        "peak_mb": round(max(mb for _, mb in costs), 1),
                    }
                    for name, costs in by_command.items()
                },
            }
            for python, by_command in figures.items()
        ],
    }
    print(json.dumps(record, indent=2))
    if asked.out is not None:
        asked.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
