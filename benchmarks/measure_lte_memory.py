"""What the head of ESC+LTE needs beside the body, and whether pieces change its result.

Random weights, since only memory and rounding are asked for. Each case runs in a process of its
own: first the body, then the head on its features. Memory is the process's high-water mark; the
output, which any way of making it needs, is not counted. Linux only.

    python benchmarks/measure_lte_memory.py butterfly.png -s 2 3.3 6 --out DATE-lte-memory.json
    python benchmarks/measure_lte_memory.py 480x320 -s 6 --out DATE-lte-memory.json

A second call adds its cases to the record.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from escsr.family.variants import variant
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic
from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.shapes import ImageBatch

_OTHER_QUERIES_AT_ONCE = 777
_MOST_COMPARED_PIXELS = 400_000


def main() -> None:
    """Measure each scale, or be the process of one."""
    arguments = _arguments()
    if arguments.case:
        print(json.dumps(measure(arguments.image, arguments.scales[0])))
        return
    record: dict[str, Any] = {"cases": []}
    if arguments.out and arguments.out.exists():
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
    record |= {
        "date": date.today().isoformat(),
        "model": "esc-lte",
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    record["cases"] += [_in_own_process(arguments.image, scale) for scale in arguments.scales]
    print(json.dumps(record, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(image: str, scale: float) -> dict[str, Any]:
    """Memory and time of body and head on one LR image."""
    torch.manual_seed(0)
    network = ESC(variant("esc-lte", scale=4)).eval()
    head = network.reconstruction
    assert isinstance(head, LocalTextureHead)
    lr_image = _lr_image(image, scale)
    height, width = (round(side * scale) for side in lr_image.shape[-2:])
    before_bytes = _peak_bytes()
    with torch.inference_mode():
        features = network.features(lr_image)
        body_bytes = _peak_bytes()
        started = time.process_time()
        result = head(features, lr_image, (height, width))
        seconds = time.process_time() - started
        above_bytes = _peak_bytes() - body_bytes
        alike = _difference(head, features, lr_image, result)
    return {
        "image": Path(image).name,
        "lr_pixels": list(lr_image.shape[:1:-1]),
        "scale": scale,
        "output_pixels": [width, height],
        "body_peak_bytes": body_bytes - before_bytes,
        "head_above_body_bytes": max(0, above_bytes - result.nbytes),
        "output_bytes": result.nbytes,
        "head_core_seconds": round(seconds, 2),
        "difference_with_other_pieces": alike,
    }


def _difference(
    head: LocalTextureHead, features: torch.Tensor, lr_image: ImageBatch, result: ImageBatch
) -> float | None:
    """How much another number of queries at a time changes, as a share of the range."""
    height, width = result.shape[-2:]
    if height * width > _MOST_COMPARED_PIXELS:
        return None
    head.queries_at_once = _OTHER_QUERIES_AT_ONCE
    other = head(features, lr_image, (height, width))
    return float((other - result).abs().max() / (result.max() - result.min()))


def _lr_image(image: str, scale: float) -> ImageBatch:
    """A file's image made ``scale`` times smaller, or noise of a size given as WIDTHxHEIGHT."""
    if not Path(image).exists():
        width, height = map(int, image.split("x"))
        return torch.rand(1, 3, height, width)
    pixels = torch.from_numpy(to_rgb_uint8(read_image(Path(image)).pixels))
    hr_image = pixels.permute(2, 0, 1)[None].float() / 255
    return torch.from_numpy(resize_bicubic(hr_image.numpy(), scale=1 / scale)).clamp(0, 1)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_own_process(image: str, scale: float) -> dict[str, Any]:
    command = [sys.executable, __file__, image, "-s", str(scale), "--case"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="a file, made smaller first; or WIDTHxHEIGHT of noise")
    parser.add_argument("-s", "--scales", type=float, nargs="+", default=[2.0, 3.3, 6.0])
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
