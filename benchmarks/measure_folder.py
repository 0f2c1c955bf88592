"""A folder of photographs with ``escsr upscale``: images per second, and how busy the network is.

    python benchmarks/measure_folder.py --photos FOLDER --out FILE.json

Small photographs of mixed sizes are cut from those in a folder; then a run that reads, enlarges and
writes one after another, and one in which they overlap, take turns. The network is busy while it
runs, in whatever thread; a run goes from its first file to its last, with the model loaded. Also
measured: what a photograph costs the network alone and in a batch.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from escsr.engines.engine import Engine, EngineOptions, Floats
from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.writer import write_image
from escsr.upscaling.files import FileJob, FileOutcome, run_files
from escsr.upscaling.models import ModelPool
from escsr.upscaling.passes import MultiPassUpscaler, WorkSettings
from escsr.upscaling.sizes import SizeRequest
from escsr.version import __version__

SIZES = [(96, 64), (128, 128), (160, 120), (240, 160), (320, 240), (480, 320)]


def main() -> None:
    """Measure, and write the record."""
    options = _options()
    models = ModelPool(options.model, EngineOptions(device=options.device))
    upscaler = MultiPassUpscaler(models, WorkSettings(), default_scale=options.scale)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _cut(options.photos, folder, options.num_photos)
        runs: dict[str, list[dict[str, float]]] = {"one after another": [], "overlapping": []}
        _run(upscaler, photos[: len(SIZES)], folder, "png", overlap=False)  # warm up
        for suffix, turn in product(options.suffixes, range(options.rounds)):
            kinds = list(runs) if turn % 2 == 0 else list(reversed(runs))
            for kind in kinds:
                run = _run(upscaler, photos, folder, suffix, overlap=kind == "overlapping")
                runs[kind].append({"format": suffix, **run})
                print(kind, run, flush=True)
    record = {
        "photographs": options.num_photos,
        "sizes": SIZES,
        "summary": _summary(runs, options.suffixes),
        "runs": runs,
        "batches": _batches(upscaler, options.scale),
        **_environment(options, upscaler),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["summary"], indent=1))
    print(json.dumps(record["batches"], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-photos", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="esc-tiny")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--suffixes", nargs="+", default=["png", "jpg"])
    return parser.parse_args()


def _cut(source: Path, folder: Path, num_photos: int) -> list[Path]:
    """Cut the middle out of photographs, as JPEG of mixed sizes."""
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in READABLE_SUFFIXES)
    paths: list[Path] = []
    for index in range(num_photos):
        width, height = SIZES[index % len(SIZES)]
        pixels = read_image(files[index % len(files)]).pixels[..., :3]
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        paths.append(folder / f"photo-{index:03d}.jpg")
        write_image(
            paths[-1], np.ascontiguousarray(pixels[top : top + height, left : left + width])
        )
    return paths


class _Watch:
    """Wants nothing but that all ends well."""

    def begin(self, index: int) -> None: ...

    def advance(self, fraction: float) -> None: ...

    def end(self, index: int, outcome: FileOutcome) -> None:
        if outcome.error is not None:
            raise outcome.error


def _run(
    upscaler: MultiPassUpscaler, photos: list[Path], folder: Path, suffix: str, *, overlap: bool
) -> dict[str, float]:
    """Enlarge the photographs once."""
    jobs = [
        FileJob(
            input=photo,
            output=folder / "results" / f"{photo.stem}.{suffix}",
            request=SizeRequest(),
            overwrite=True,
            make_folder=True,
        )
        for photo in photos
    ]
    with _network_seconds() as spans:
        started, used = time.perf_counter(), time.process_time()
        run_files(upscaler, jobs, _Watch(), overlap=overlap)
        seconds, used = time.perf_counter() - started, time.process_time() - used
    return {
        "seconds": round(seconds, 3),
        "images_per_second": round(len(photos) / seconds, 3),
        "network_busy_share": round(sum(spans) / seconds, 4),
        "network_seconds": round(sum(spans), 3),
        "core_seconds": round(used, 3),
    }


@contextmanager
def _network_seconds() -> Iterator[list[float]]:
    """How long each call of a network took."""
    spans: list[float] = []
    run = Engine.run

    def timed(self: Engine, *arguments: Any) -> Floats:
        started = time.perf_counter()
        result = run(self, *arguments)  # it looks for NaN, so it waits for the device
        spans.append(time.perf_counter() - started)
        return result

    Engine.run = timed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield spans
    finally:
        Engine.run = run


def _summary(
    runs: dict[str, list[dict[str, float]]], suffixes: list[str]
) -> dict[str, dict[str, object]]:
    """Medians, and how much faster overlapping was in each round."""
    summary: dict[str, dict[str, object]] = {}
    for suffix in suffixes:
        of_format = {
            kind: [run for run in entries if run["format"] == suffix]
            for kind, entries in runs.items()
        }
        before, after = of_format.values()
        pairs = zip(before, after, strict=True)
        summary[suffix] = {
            kind: {
                name: statistics.median(run[name] for run in entries)
                for name in ("images_per_second", "network_busy_share")
            }
            for kind, entries in of_format.items()
        }
        summary[suffix]["times as fast, by round"] = [
            round(one["seconds"] / other["seconds"], 3) for one, other in pairs
        ]
    return summary


def _batches(upscaler: MultiPassUpscaler, scale: int) -> list[dict[str, float]]:
    """Milliseconds per image, one by one and several at once, in turn; on a CPU of all cores."""
    engine = upscaler.models.engine(scale)
    records: list[dict[str, float]] = []
    for side, size in product((32, 64, 96, 128), (4, 16)):
        images = np.random.default_rng(0).random((size, 3, side, side), np.float32)
        times: dict[int, list[float]] = {1: [], size: []}
        for _, at_once in product(range(6), times):
            times[at_once].append(_milliseconds_per_image(engine, images, at_once))
        # The first of each is not warm.
        alone, together = (statistics.median(spans[1:]) for spans in times.values())
        records.append(
            {
                "side": side,
                "batch": size,
                "alone_ms": round(alone, 2),
                "batch_ms": round(together, 2),
                "times_as_fast": round(alone / together, 3),
            }
        )
    del engine.images_at_once
    return records


def _milliseconds_per_image(engine: Engine, images: Floats, at_once: int) -> float:
    clock = time.process_time if engine.device == "cpu" else time.perf_counter
    engine.images_at_once = lambda num_images: at_once
    started = clock()
    engine.run(images)
    return 1000 * (clock() - started) / len(images)


def _environment(options: argparse.Namespace, upscaler: MultiPassUpscaler) -> dict[str, object]:
    return {
        "model": options.model,
        "scale": options.scale,
        "device": str(upscaler.models.device),
        "escsr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
