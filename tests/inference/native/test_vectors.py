"""How many numbers a vector holds, and a whole network with that many."""

import os

import pytest
import torch

from escsr.inference.engine import Engine
from escsr.inference.native.calls import lanes
from escsr.model import ESC
from escsr.weights.official import to_ours
from tests.golden_files import GOLDEN_TOLERANCE, read_golden, relative_error

pytestmark = pytest.mark.usefixtures("kernels")


def test_vectors_are_those_of_the_processor() -> None:
    """8 numbers with AVX2 and NEON, 16 with AVX-512."""
    expected = os.environ.get("ESCSR_EXPECTED_LANES")
    assert lanes() in ([8, 16] if expected is None else [int(expected)])


@pytest.mark.parametrize("name", ["esc_tiny_x2", "esc_tiny_k9_x3", "esc_rib_strong_x2"])
def test_the_reference_is_met_with_such_vectors(name: str) -> None:
    """Dense kernels of 13 and 9; attention that the kernels know, and one that they do not."""
    golden = read_golden(name)
    network = ESC(golden.config)
    network.load_state_dict(to_ours(golden.reference_state))
    engine = Engine(network, scale=network.scale, device=torch.device("cpu"), backend="native")
    assert relative_error(engine.run(golden.input, torch.float32), golden.output) < GOLDEN_TOLERANCE
