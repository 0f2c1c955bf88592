"""What the kernels do where memory or threads are lacking, and what they refuse to read."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from escsr.inference.native import library
from escsr.inference.native.calls import add_and_normalise, attend, lanes
from escsr.inference.native.library import native_library
from escsr.inference.native.maps import new_map, place_of
from tests.inference.native.formulas import random_map

pytestmark = pytest.mark.usefixtures("kernels")


def test_memory_that_is_not_there_is_told_of() -> None:
    """A window of two million pixels a side would need more than processors can address."""
    values, bias = random_map(4, 3 * 8), torch.zeros(1, 1, 1)
    with pytest.raises(MemoryError, match="native kernels found no memory"):
        attend(values, bias, size=(2, 2), window_size=2**21, attended=torch.empty(4, 8))


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Kernels start threads of their own."""
    native_library().escsr_use_team(None)
    yield
    library._share_threads_of_torch(native_library())


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_threads_that_cannot_be_started_are_done_without(
    own_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their stacks take memory that is not there; fewer threads do the same work."""
    import resource

    features, weight, bias = random_map(2**16, 32), random_map(32, seed=1), random_map(32, seed=2)
    few, many = torch.empty_like(features), torch.empty_like(features)
    add_and_normalise(features, None, weight, bias, result=few)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 200)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, limits[1]))
    try:
        add_and_normalise(features, None, weight, bias, result=many)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert torch.equal(few, many)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(2, 16, dtype=torch.bfloat16), "was given torch.bfloat16"),
        (torch.zeros(2, 16, dtype=torch.float64), "was given torch.float64"),
        (torch.zeros(16, 2).t(), "do not lie in order"),
        (torch.zeros(2, 16, device="meta"), "numbers on meta"),
    ],
)
def test_a_kernel_is_given_float32_in_order_alone(values: Tensor, message: str) -> None:
    """It would read anything else as if it were that."""
    with pytest.raises(AssertionError, match=message):
        place_of(values)


def test_maps_are_what_kernels_take() -> None:
    """Whatever is torch's default."""
    with torch.device("meta"):
        made = new_map(3, lanes())
    assert place_of(made) == made.data_ptr()
