"""The core beside the torch module, whose every answer it shares."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import escsr
from escsr.core.network import Network
from escsr.errors import CheckpointError
from escsr.model import ESC, ESCConfig
from escsr.weights.arrays import as_array
from tests.golden_files import read_golden
from tests.model.configurations import configurations
from tests.model.networks import random_image, randomise


def test_esc_lte_takes_any_size_per_axis() -> None:
    """As the torch module."""
    golden = read_golden("esc_lte_tiny_x2.5")
    module = ESC(golden.config).eval()
    randomise(module, seed=3)
    state = {name: as_array(tensor) for name, tensor in module.state_dict().items()}
    network = Network(golden.config, state)
    image = random_image(1, 3, 13, 18).numpy()
    for size in ((20, 61), (5, 7), (13, 18), (1, 40)):
        with torch.inference_mode():
            expected = module(torch.from_numpy(image), size).numpy()
        result = network(image, output_size=size)
        assert np.abs(result - expected).max() < 5e-5 * np.abs(expected).max()


@settings(max_examples=12, phases=[Phase.generate], deadline=None)
@given(
    config=configurations(),
    sides=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    seed=st.integers(0, 9),
)
def test_any_network_of_the_family_is_run_rightly(
    config: ESCConfig, sides: tuple[int, int], seed: int
) -> None:
    """Beside the torch module in float64: within 4 times what torch's float32 is off, and 2e-5."""
    module = ESC(config, attention_backend="naive").eval()
    randomise(module, seed=seed)
    network = Network(config, {name: as_array(t) for name, t in module.state_dict().items()})
    image = random_image(1, 3, *sides, seed=seed)
    with torch.inference_mode():
        single = module(image).numpy()
        exact = module.double()(image.double()).numpy()
    extent = np.abs(exact).max()
    allowed = 4 * np.abs(single - exact).max() + 2e-5 * extent
    assert np.abs(network(image.numpy()) - exact).max() <= allowed


def test_a_file_with_code_in_it_is_refused_by_name(tmp_path: Path) -> None:
    """As ``load_model`` refuses it."""
    torch.save(torch.nn.Conv2d(1, 1, 1), tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"asks for 'torch\.nn\.modules\.conv\.Conv2d'"):
        escsr.open_network(tmp_path / "code.pth")
