"""When a result is exact, and what that is planned to take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from escsr.core.network import Network
from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.upscaling import Upscaler
from escsr.upscaling.passes import WorkPlan
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.sizes import SizeRequest
from tests.networks import nearest_engine, smallest, upscaler_of
from tests.upscaling.exact_runs import random_pixels
from tests.upscaling.measured_memory import EXACT


def test_a_file_is_exact_within_a_memory_limit(tmp_path: Path) -> None:
    """The limit is what makes it cut the image; the report says how, and progress ends at 1."""
    photo, output = tmp_path / "photo.png", tmp_path / "large.png"
    pixels = (random_pixels(180, 170) * 255).astype(np.uint8)
    write_image(photo, pixels)
    in_memory = Upscaler(smallest(2), device="cpu", tile=64, exact=True).plan_file(photo)
    limit = int(0.6 * in_memory.peak_memory_bytes)
    limited = Upscaler(smallest(2), device="cpu", exact=True, memory_limit_bytes=limit)
    plan = limited.plan_file(photo)
    told: list[float] = []
    report = limited.upscale_file(photo, output, on_progress=told.append)
    assert (plan.is_exact, plan.is_whole) == (True, False)
    assert (report.is_exact, report.num_tiles) == (True, plan.num_tiles)
    assert report.disk_bytes == plan.disk_bytes > 0
    assert report.peak_memory_bytes <= limit
    assert told == sorted(told)
    assert told[-1] == 1
    whole = Upscaler(smallest(2), device="cpu", tile="whole")(pixels)
    # A value on the border between two levels may fall to either side.
    assert np.abs(read_image(output).pixels.astype(int) - whole).max() <= 1


def test_large_images_are_tiled_where_their_features_do_not_fit_in_memory() -> None:
    """Unless exactness is asked for; what fits runs in one piece, or with its result in rows."""
    network = smallest(2)

    def plan(**options: object) -> WorkPlan:
        upscaler = Upscaler(network, device="cpu", **options)  # type: ignore[arg-type]
        passes = upscaler._upscaler
        shape = planes_of(np.zeros((1200, 900, 3), np.uint8)).shape
        enlargement = passes.plan_size(900, 1200, SizeRequest())
        return passes.plan(shape, enlargement, result_is_held=False)

    def kind(**options: object) -> tuple[bool, bool]:
        made = plan(**options)
        return made.is_whole, made.is_exact

    assert kind(tile=16) == (False, False)
    assert kind(tile=16, exact=True) == (False, True)
    assert kind(exact=True) == kind(exact=False) == (True, True)
    enough = plan(tile=16, exact=True).peak_memory_bytes
    assert plan(memory_limit_bytes=enough).is_exact
    limit = int(0.8 * enough)
    assert kind(memory_limit_bytes=limit) == (False, False)
    assert kind(memory_limit_bytes=limit, exact=True) == (False, True)
    assert kind(memory_limit_bytes=limit, exact=True, overlap_pixels=8) == (False, True)


def test_a_network_without_layers_is_tiled_or_refused() -> None:
    """What it does to the whole image, only the whole image can tell."""
    pixels = random_pixels(64, 64)
    assert upscaler_of(nearest_engine(), tile=32)(pixels).shape == (128, 128, 3)
    assert upscaler_of(nearest_engine(), exact=True)(pixels).shape == (128, 128, 3)
    with pytest.raises(ConfigurationError, match="only a network that is an ESC"):
        upscaler_of(nearest_engine(), tile=32, exact=True)(pixels)


def test_exact_is_yes_or_no() -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match="exact is 'yes'"):
        Upscaler(smallest(2), exact="yes")  # type: ignore[arg-type]


def test_a_limit_below_the_smallest_parts_is_refused() -> None:
    """With what is needed; without the wish to be exact it would be the same for tiles."""
    upscaler = Upscaler(smallest(2), device="cpu", exact=True, memory_limit_bytes=1)
    with pytest.raises(DeviceMemoryError, match=r"limit is 1 bytes.*needs at least"):
        upscaler(random_pixels(64, 64))


def test_memory_that_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In our words, with what to do; there is no going on with smaller parts."""

    def run_out(*_: object, **__: object) -> None:
        raise DeviceMemoryError("a buffer of 9 bytes was refused")

    monkeypatch.setattr(Network, "begin", run_out)
    upscaler = Upscaler(smallest(2), device="cpu", tile=8, exact=True)
    with pytest.raises(DeviceMemoryError, match=r"during exact work \(a buffer of.*--no-exact"):
        upscaler(random_pixels(20, 20))


@pytest.mark.parametrize("case", EXACT, ids=lambda case: "-".join(map(str, case)))
def test_the_estimate_covers_what_a_process_really_takes(
    case: tuple[str, int, int, int, int], taken_memory: dict[str, list[dict[str, Any]]]
) -> None:
    """With features on disk, whose pages are not the process's own."""
    taken = taken_memory["exact"][EXACT.index(case)]
    assert not taken["is_whole"]
    assert taken["disk"] > 0
    assert taken["measured"] <= taken["planned"] <= case[-1] * 2**20
