"""The plan is made before the first tile, and keeps what it promises."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.engines.cost import network_cost
from escsr.engines.engine import AttentionChoice
from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.family import variant
from escsr.images.writer import write_image
from escsr.upscaling import Upscaler
from escsr.upscaling.memory import TileChoice, Workload, plan_tiles
from tests.networks import (
    limited,
    nearest_engine,
    smallest,
    upscaler_of,
)
from tests.upscaling.measured_memory import WHOLE

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
    """A quarter of what is at hand is taken; of less than 1 GiB, half, up to 256 MiB."""
    workload = Workload(width=1000, height=1000)
    plan = plan_tiles(workload, TINY_X4, available_bytes=1600 * MIB)
    assert not plan.is_whole
    assert plan.peak_memory_bytes < 400 * MIB + 3 * 1000 * 1000
    plan = plan_tiles(workload, TINY_X4, available_bytes=300 * MIB)
    assert plan.peak_memory_bytes < 150 * MIB + 3 * 1000 * 1000


@pytest.mark.parametrize("memory", ["available_bytes", "memory_limit_bytes"])
@pytest.mark.parametrize(
    ("size", "name", "least_bytes"),
    [
        ((512, 384), "esc-tiny", 120e6),
        ((512, 384), "esc", 150e6),
        ((512, 384), "esc-rib", 340e6),
        ((7300, 5500), "esc-tiny", 400e6),
    ],
)
def test_tiles_are_no_smaller_than_the_least_however_little_memory(
    memory: str, size: tuple[int, int], name: str, least_bytes: float
) -> None:
    """128 pixels and 32 of overlap, or three windows and one: with less, seams show.

    40 megapixels are 4,332 tiles at most. Below the memory for that there is no plan.
    """
    workload = Workload(width=size[0], height=size[1])
    cost = network_cost(variant(name, scale=4), scale=4)
    for num_bytes in (least_bytes, 1.2 * least_bytes, 2 * least_bytes):
        plan = plan_tiles(workload, cost, **{memory: int(num_bytes)})  # type: ignore[arg-type]
        assert plan.grid.tile_pixels >= max(128, 3 * cost.window_size)
        assert plan.grid.overlap_pixels >= max(32, cost.window_size)
        assert plan.num_tiles <= 4332
    with pytest.raises(DeviceMemoryError):
        plan_tiles(workload, cost, **{memory: int(0.6 * least_bytes)})  # type: ignore[arg-type]


@settings(max_examples=40)
@given(
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
    channels=st.integers(1, 4),
    tile=st.sampled_from(["auto", "whole", 64, 500]),
    limit=st.integers(1, 4000),
)
def test_a_limit_is_kept_or_refused_with_what_would_do(
    width: int, height: int, channels: int, tile: TileChoice, limit: int
) -> None:
    """Never a plan beyond the limit, whatever tile was asked for; the amount named is enough."""
    workload = Workload(width=width, height=height, channels=channels)
    try:
        plan = plan_tiles(workload, TINY_X4, tile=tile, memory_limit_bytes=limit * MIB)
    except DeviceMemoryError as error:
        needed = re.search(r"needs at least (\d+) MB", str(error))
        assert needed is not None
        named_bytes = int(needed[1]) * 10**6
        plan = plan_tiles(workload, TINY_X4, tile=tile, memory_limit_bytes=named_bytes)
        assert limit * MIB < plan.peak_memory_bytes <= named_bytes
    else:
        assert plan.peak_memory_bytes <= limit * MIB


def test_a_refusal_says_what_is_there_what_is_needed_and_what_to_do() -> None:
    """Of a limit, and of a machine without one."""
    workload = Workload(width=6000, height=4000)
    with pytest.raises(DeviceMemoryError, match=r"limit is 10 MB.*6000x4000.*least \d+ MB.*Raise"):
        plan_tiles(workload, TINY_X4, memory_limit_bytes=10**7)
    with pytest.raises(
        DeviceMemoryError, match=r"10 MB of memory are free.*--memory \d+MB.*--tile"
    ):
        plan_tiles(workload, TINY_X4, available_bytes=10**7)


def test_what_the_user_says_outranks_what_was_found() -> None:
    """A limit, or a tile, is taken although less memory seems to be free."""
    workload = Workload(width=512, height=384)
    assert plan_tiles(workload, TINY_X4, available_bytes=1, memory_limit_bytes=10**9).num_tiles > 1
    assert plan_tiles(workload, TINY_X4, available_bytes=1, tile=64).tile_pixels == 64


def test_what_is_in_memory_already_is_not_counted_against_what_is_free() -> None:
    """The source of the first pass; that of a second one is still to come."""
    options = {"width": 6000, "height": 4000}  # 72 MB
    needed_bytes = plan_tiles(Workload(**options), TINY_X4, tile=128).peak_memory_bytes
    free_bytes = needed_bytes - 70_000_000
    assert plan_tiles(Workload(**options), TINY_X4, available_bytes=free_bytes).num_tiles > 1
    with pytest.raises(DeviceMemoryError):
        plan_tiles(Workload(**options, is_loaded=False), TINY_X4, available_bytes=free_bytes)


def test_without_room_for_tiles_the_work_goes_layer_by_layer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What that gives is the whole image's result; it is said once, not for each image."""
    pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    eager = {"device": "cpu", "backend": "eager"}
    tight = Upscaler(smallest(2), memory_limit_bytes=74 * 10**6, **eager)  # type: ignore[arg-type]
    results = [tight(pixels) for _ in range(2)]
    whole = Upscaler(smallest(2), device="cpu", tile="whole")(pixels)
    # A value on the border between two levels may fall to either side.
    assert all(np.abs(result.astype(int) - whole).max() <= 1 for result in results)
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert "layer by layer" in warnings[0]


def test_memory_for_neither_tiles_nor_layers_is_refused() -> None:
    """With what is needed; and a network without layers with what tiles need."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    with pytest.raises(DeviceMemoryError, match=r"limit is 1 MB.*needs at least \d+ MB"):
        Upscaler(smallest(2), device="cpu", memory_limit_bytes=10**6)(pixels)
    with pytest.raises(DeviceMemoryError, match="--tile"):
        upscaler_of(nearest_engine(), memory_limit_bytes=74 * 10**6)(pixels)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"tile": 32}, "Tiles of 32 pixels are smaller than 128"),
        ({"tile": 128, "overlap_pixels": 0}, "overlap by 0 pixels, less than 32"),
        ({"tile": 128}, None),
    ],
)
def test_tiles_that_show_seams_are_taken_with_a_warning(
    options: dict[str, Any], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the user asks for them; once for all images."""
    upscaler = upscaler_of(nearest_engine(), **options)
    pixels = np.zeros((200, 200, 3), np.uint8)
    for _ in range(2):
        assert upscaler(pixels).shape == (400, 400, 3)
    assert len(caplog.records) == (warning is not None)
    assert (warning or "") in caplog.text


def test_memory_that_runs_out_does_not_bring_smaller_tiles_than_the_least() -> None:
    """256 pixels are halved to 128, and no further; unless asked for."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    expected = pixels.repeat(2, 0).repeat(2, 1)

    def enlarged(max_pixels: int, **options: Any) -> bool:
        upscaler = upscaler_of(limited(max_pixels), **options)
        return np.array_equal(upscaler(pixels), expected)

    assert enlarged(128 * 128)
    assert enlarged(64 * 64, tile=64)
    with pytest.raises(DeviceMemoryError, match="smallest tile, 128x128 pixels"):
        enlarged(64 * 64)


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
    chosen: AttentionChoice | None, tmp_path: Path
) -> None:
    """The network's own back-end counts where the caller names none."""
    pytest.importorskip("torch")
    from escsr.model import ESC

    source = tmp_path / "photo.png"
    write_image(source, np.zeros((300, 300, 3), np.uint8))
    config = variant("esc-tiny", scale=2)
    storing, fused = ESC(config, attention_backend="naive"), ESC(config)
    peaks = [
        Upscaler(network, device="cpu", attention_backend=backend).plan_file(source)
        for network, backend in ((storing, chosen), (fused, None))
    ]
    assert peaks[0].peak_memory_bytes > 2 * peaks[1].peak_memory_bytes


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: "-".join(map(str, case)))
def test_the_estimate_covers_what_a_process_really_takes(
    case: tuple[str, int, int, int], taken_memory: dict[str, list[dict[str, Any]]]
) -> None:
    """In PyTorch; and is no more than three times as much, which would waste tiles.

    With one block, since blocks run one after another.
    """
    pytest.importorskip("torch")
    name, scale, height, width = case
    measured = taken_memory["whole"][WHOLE.index(case)]["measured"]
    cost = network_cost(variant(name, scale=scale), scale=scale)
    estimate = cost.fixed_bytes + height * width * cost.bytes_per_pixel
    # Beside what grows with the image, an estimate has a fixed part.
    assert measured <= estimate <= 3 * measured + 64 * MIB


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: "-".join(map(str, case)))
def test_what_the_core_says_covers_what_a_process_really_takes(
    case: tuple[str, int, int, int], taken_memory: dict[str, list[dict[str, Any]]]
) -> None:
    """And is no more than three times as much, but for what any tile needs."""
    taken = taken_memory["core"][WHOLE.index(case)]
    assert taken["measured"] <= taken["estimate"] <= 3 * taken["measured"] + 32 * MIB
