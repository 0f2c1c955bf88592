"""What enlarging takes of a process, as JSON: a program, for a test to start.

Each case has a process of its own, forked from one that has the libraries loaded, so that nothing
that another one left behind is reused. Without torch there are no figures of its engine.

    python -m tests.upscaling.measured_memory
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from escsr.engines.core_engine import CoreEngine
from escsr.engines.engine import Engine, EngineOptions
from escsr.family import variant
from escsr.upscaling import Upscaler
from escsr.upscaling.fidelity import keep_colours
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.sizes import SizeRequest
from tests.networks import batches, network_file, random_weights

WHOLE = (
    ("esc-tiny", 2, 256, 272),
    ("esc-tiny", 4, 224, 240),
    ("esc-real", 4, 128, 144),
    ("esc-real-m-dysample", 2, 192, 256),
    ("esc-real-m-pixelshuffle", 3, 160, 192),
    ("esc-lte", 2, 160, 192),
    ("esc-real-m-transpose-conv", 4, 192, 208),
    ("esc-real-m-lda", 2, 160, 192),
    ("esc-real-m-pa-up", 2, 192, 224),
)
"""Network, factor, height and width: one of each kind of upsampler, and of both widest points."""
EXACT = (("esc-tiny", 2, 350, 600, 100), ("esc-real", 4, 100, 240, 34))
"""The same, and the memory limit in MiB."""


def status_bytes(name: str) -> int:
    """A figure of this process, as Linux tells it."""
    with Path("/proc/self/status").open(encoding="ascii") as file:
        [line] = (line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def count_the_peak_from_here() -> None:
    """Forget the largest size so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def taken_whole(name: str, scale: int, height: int, width: int) -> dict[str, int]:
    """By torch's engine, of an image in one piece."""
    from escsr.engines.eager import TorchEngine
    from escsr.weights.building import network_of

    config = variant(name, scale=scale, num_blocks=1, num_conv_layers=1)
    network = network_of(config, random_weights(config))
    options = EngineOptions(device="cpu", backend="eager", num_threads=1)
    return taken_by(TorchEngine(network, scale=scale, options=options), height, width)


def taken_by_core(name: str, scale: int, height: int, width: int) -> dict[str, int]:
    """By the core, and what it says of it."""
    config = variant(name, scale=scale, num_blocks=1, num_conv_layers=1)
    options = EngineOptions(device="cpu", num_threads=1)
    engine = CoreEngine(config, random_weights(config), options)
    cost = engine.cost(scale, "float32")
    estimate = cost.fixed_bytes + height * width * cost.bytes_per_pixel
    return {**taken_by(engine, height, width), "estimate": estimate}


def taken_by(engine: Engine, height: int, width: int) -> dict[str, int]:
    """The peak while an image is enlarged and held to its colours."""

    def enlarge(height: int, width: int) -> None:
        image = batches(1, height, width)
        keep_colours(engine.run(image), image)

    enlarge(48, 48)
    before = status_bytes("VmRSS")
    count_the_peak_from_here()
    enlarge(height, width)
    return {"measured": status_bytes("VmHWM") - before}


def taken_exactly(name: str, scale: int, height: int, width: int, limit_mib: int) -> dict[str, int]:
    """By an image that is enlarged layer by layer, and what the plan says of it."""
    network = network_file(variant(name, scale=scale, num_blocks=1, num_conv_layers=1))
    limit_bytes = limit_mib * 2**20
    upscaler = Upscaler(network, device="cpu", exact=True, memory_limit_bytes=limit_bytes)
    passes = upscaler._upscaler
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    source = planes_of(pixels)
    enlargement = passes.plan_size(width, height, SizeRequest())
    plan = passes.plan(source.shape, enlargement, result_is_held=False)
    Upscaler(network, device="cpu", tile=32, exact=True)(pixels[:70, :70])
    before = status_bytes("VmRSS") - pixels.nbytes
    count_the_peak_from_here()
    for _ in passes.stream(source, plan):
        pass
    return {
        "measured": status_bytes("VmHWM") - before,
        "planned": plan.peak_memory_bytes,
        "disk": plan.disk_bytes,
        "is_whole": plan.is_whole,
    }


def in_its_own_process(take: Callable[..., dict[str, int]], *case: object) -> dict[str, int]:
    """What a function returns in a fork of this process."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(take(*case)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.wait()
    return json.loads(text)


def main() -> None:
    """Print the figures of all cases."""
    figures = {
        "core": [in_its_own_process(taken_by_core, *case) for case in WHOLE],
        "exact": [in_its_own_process(taken_exactly, *case) for case in EXACT],
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
        figures["whole"] = [in_its_own_process(taken_whole, *case) for case in WHOLE]
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
