"""What the tests of weights share: a small network, its provenance, checkpoints of both kinds."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.networks import random_weights

from escsr.family import ESCConfig
from escsr.weights import Provenance, save_state, save_weights

if TYPE_CHECKING:
    from escsr.model import ESC


@pytest.fixture
def small_config() -> ESCConfig:
    """One block, 7 K parameters."""
    return ESCConfig(
        scale=2, dim=16, pdim=4, num_blocks=1, num_conv_layers=1, window_size=8, num_heads=2
    )


@pytest.fixture
def small_network(small_config: ESCConfig) -> "ESC":
    """With seeded random weights, none of them zero, in evaluation mode."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'escsr[torch]'")
    from escsr.model import ESC

    network = ESC(small_config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


@pytest.fixture
def provenance() -> Provenance:
    """Every field set to something to be found again."""
    return Provenance(
        licence="CC0-1.0",
        training_data="12 photographs, CC0 — é",
        date="2025-11-20",
        variant="esc-tiny",
        recipe_name="small-x2",
        recipe='steps = 10\nname = "small-x2"\n',
        source="trained in this test",
        quality={"Set5 PSNR-Y dB": 30.5, "B100 PSNR-Y dB": 26.85},
    )


@pytest.fixture
def our_file(
    tmp_path: Path, request: pytest.FixtureRequest, small_config: ESCConfig, provenance: Provenance
) -> Path:
    """The small network in our format, float32."""
    path = tmp_path / "ours.safetensors"
    if importlib.util.find_spec("torch") is not None:
        network: ESC = request.getfixturevalue("small_network")
        save_weights(path, network, provenance=provenance)
    else:
        save_state(path, small_config, random_weights(small_config), provenance=provenance)
    return path
