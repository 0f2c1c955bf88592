"""Time and peak memory of ``escsr upscale`` on one file, as its own process; prints JSON.

    python benchmarks/measure_upscale.py photo.jpg result.jpg -s 4

Everything after the two files goes to ``escsr upscale``. POSIX only.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch

from escsr.images.files import probe_image
from escsr.version import __version__


def main() -> None:
    """Run the command and print what it took."""
    source, result, *options = sys.argv[1:]
    command = [sys.executable, "-m", "escsr", "upscale", source, "-o", result, *options]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    source_header, result_header = probe_image(source), probe_image(result, max_pixels=2**62)
    report = {
        "options": options,
        "input": [source_header.width, source_header.height, source_header.format],
        "output": [result_header.width, result_header.height, result_header.format],
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_kib * 1024,
        "escsr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
