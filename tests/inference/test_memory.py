"""The plan is made before the first tile, and keeps what it promises."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.images.writer import write_image
from escsr.inference import Upscaler
from escsr.inference.memory import TileChoice, Workload, plan_tiles
from escsr.inference.network_cost import network_cost
from escsr.model import ESC, variant
from escsr.model.attention_backends import FoldedBackend

TINY_X4 = network_cost(variant("esc-tiny", scale=4), scale=4)
MIB = 2**20


def test_a_small_image_runs_whole() -> None:
    """Nothing to blend, nothing lost."""
    plan = plan_tiles(Workload(width=640, height=480), TINY_X4)
    assert plan.is_whole
    assert plan.peak_memory_bytes < 1024 * MIB


def test_a_large_image_is_cut() -> None:
    """24 megapixels: tiles of 512, and far less memory than the 1.15 GB of the result."""
    plan = plan_tiles(Workload(width=6000, height=4000), TINY_X4)
    assert plan.grid.tile_pixels == 512
    assert plan.grid.overlap_pixels == 32
    assert plan.num_tiles == 13 * 9
    assert plan.peak_memory_bytes < 1024 * MIB


def test_little_memory_means_small_tiles() -> None:
    """A quarter of what is at hand is taken."""
    workload = Workload(width=1000, height=1000)
    plan = plan_tiles(workload, TINY_X4, available_bytes=600 * MIB)
    assert not plan.is_whole
    assert plan.peak_memory_bytes < 150 * MIB + 3 * 1000 * 1000
    # Where not even a window fits in a quarter, it is tried all the same.
    assert plan_tiles(workload, TINY_X4, available_bytes=1).grid.tile_pixels == 16


@given(
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
    channels=st.integers(1, 4),
    tile=st.sampled_from(["auto", "whole", 64, 500]),
    limit=st.integers(1, 4000),
)
def test_a_limit_is_kept_or_refused(
    width: int, height: int, channels: int, tile: TileChoice, limit: int
) -> None:
    """Never a plan beyond the limit, whatever tile was asked for."""
    workload = Workload(width=width, height=height, channels=channels)
    try:
        plan = plan_tiles(workload, TINY_X4, tile=tile, memory_limit_bytes=limit * MIB)
    except DeviceMemoryError:
        least = plan_tiles(workload, TINY_X4, tile=16)
        assert least.peak_memory_bytes > limit * MIB
    else:
        assert plan.peak_memory_bytes <= limit * MIB


def test_a_refused_limit_says_what_is_needed() -> None:
    """So that the user knows by how much to raise it."""
    with pytest.raises(DeviceMemoryError, match=r"limit is 10 MiB.*6000x4000.*needs about \d+ MiB"):
        plan_tiles(Workload(width=6000, height=4000), TINY_X4, memory_limit_bytes=10 * MIB)


def test_a_tile_is_rounded_up_to_windows() -> None:
    """100 pixels are 7 windows of 16."""
    plan = plan_tiles(Workload(width=1000, height=1000), TINY_X4, tile=100)
    assert plan.grid.tile_pixels == 112


@pytest.mark.parametrize("tile", ["whole", None])
def test_whole_is_obeyed(tile: TileChoice) -> None:
    """However large."""
    assert plan_tiles(Workload(width=9000, height=9000), TINY_X4, tile=tile).is_whole


@pytest.mark.parametrize("tile", [0, -16, 2.5, "small", True])
def test_a_tile_that_cannot_be_is_refused(tile: object) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match='"auto", "whole", or a side'):
        plan_tiles(Workload(width=9, height=9), TINY_X4, tile=tile)  # type: ignore[arg-type]


def test_an_overlap_or_limit_that_cannot_be_is_refused() -> None:
    """Negative, or no whole number."""
    workload = Workload(width=9, height=9)
    with pytest.raises(ConfigurationError, match="overlap_pixels is -1"):
        plan_tiles(workload, TINY_X4, overlap_pixels=-1)
    with pytest.raises(ConfigurationError, match="memory_limit_bytes is 0"):
        plan_tiles(workload, TINY_X4, memory_limit_bytes=0)


def test_stored_scores_are_counted() -> None:
    """Naive attention needs many times more, and the plan knows."""
    config = variant("esc", scale=4)
    naive = network_cost(config, scale=4, attention_backend="naive")
    assert naive.bytes_per_pixel > 10 * network_cost(config, scale=4).bytes_per_pixel


def test_an_accelerator_holds_more_queries_of_any_size_at_a_time() -> None:
    """16384 of the head's at 8 KB each are 128 MiB; other networks need the same everywhere."""
    costs = {
        (name, device): network_cost(variant(name, scale=4), scale=4, device_type=device)
        for name in ("esc-lte", "esc-tiny")
        for device in ("cpu", "cuda", "mps")
    }
    more = costs["esc-lte", "cuda"].fixed_bytes - costs["esc-tiny", "cuda"].fixed_bytes
    assert more > 16384 * 8192
    assert costs["esc-lte", "mps"] == costs["esc-lte", "cuda"]
    assert costs["esc-lte", "cpu"].fixed_bytes < costs["esc-lte", "cuda"].fixed_bytes
    assert costs["esc-tiny", "cpu"] == costs["esc-tiny", "cuda"]


@pytest.mark.parametrize("chosen", [None, "naive"])
def test_stored_scores_are_counted_whoever_chose_them(
    chosen: FoldedBackend | None, tmp_path: Path
) -> None:
    """The network's own back-end counts where the caller names none."""
    source = tmp_path / "photo.png"
    write_image(source, np.zeros((300, 300, 3), np.uint8))
    config = variant("esc-tiny", scale=2)
    storing, fused = ESC(config, attention_backend="naive"), ESC(config)
    peaks = [
        Upscaler(network, device="cpu", attention_backend=backend).plan_file(source)
        for network, backend in ((storing, chosen), (fused, None))
    ]
    assert peaks[0].peak_memory_bytes > 2 * peaks[1].peak_memory_bytes


_MEASURE = """
    import sys, torch
    torch.set_num_threads(1)
    from dataclasses import replace
    from escsr.inference.engine import Engine
    from escsr.model import ESC, variant

    def status(name):
        for line in open("/proc/self/status"):
            if line.startswith(name):
                return int(line.split()[1]) * 1024

    name, (scale, height, width) = sys.argv[1], map(int, sys.argv[2:])
    config = replace(variant(name, scale=scale), num_blocks=1, num_conv_layers=1)
    options = {"scale": scale, "device": torch.device("cpu"), "backend": "eager"}
    engine = Engine(ESC(config), **options, keep_colours=True)
    engine.run(torch.rand(1, 3, 48, 48), torch.float32)
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here on
    engine.run(torch.rand(1, 3, height, width), torch.float32)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures a process as Linux does")
@pytest.mark.parametrize(
    ("name", "scale", "height", "width"),
    [
        ("esc-tiny", 2, 384, 400),
        ("esc-tiny", 4, 384, 400),
        ("esc-real", 4, 160, 192),
        ("esc-real-m-dysample", 2, 320, 384),
        ("esc-real-m-pixelshuffle", 3, 160, 192),
        ("esc-lte", 2, 160, 192),
    ],
)
def test_the_estimate_covers_what_a_process_really_takes(
    name: str, scale: int, height: int, width: int
) -> None:
    """And is no more than three times as much, which would waste tiles; native kernels need less.

    With one block, since blocks run one after another.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_MEASURE), *map(str, (name, scale, height, width))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout)
    cost = network_cost(variant(name, scale=scale), scale=scale)
    estimate = cost.fixed_bytes + height * width * cost.bytes_per_pixel
    assert measured <= estimate <= 3 * measured
