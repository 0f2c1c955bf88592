"""Small networks whose every weight matters, for the tests of this folder."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from escsr.model import ESC
from tests.model.configurations import FEW_PARAMETERS, small_config

__all__ = [
    "FEW_PARAMETERS",
    "ROUNDING_FLOAT64",
    "random_image",
    "randomise",
    "small_config",
    "small_network",
    "weights_as_arrays",
]

ROUNDING_FLOAT64 = 1e-12
"""Of the largest value: float64 carries 1e-16, and a few thousand additions and a division by a
small variance lie between input and output. Another formula is off by 1e-3 or more."""


def small_network(*, seed: int = 0, backend: Any = "sdpa", **overrides: Any) -> ESC:
    """A small network in eval mode with random weights, float32."""
    network = ESC(small_config(**overrides), attention_backend=backend).eval()
    randomise(network, seed=seed)
    return network


def randomise(network: nn.Module, *, seed: int) -> None:
    """Draw every weight anew, also those that start at zero, at one, or too small to be seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * drawn)
            elif "position_bias.table" in name:
                parameter.copy_(drawn)
            elif parameter.dim() > 1:
                parameter.copy_(drawn / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * drawn)


def random_image(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def weights_as_arrays(network: nn.Module) -> dict[str, NDArray[np.float64]]:
    """The weights by name, as the oracles take them."""
    return {name: value.double().numpy() for name, value in network.state_dict().items()}
