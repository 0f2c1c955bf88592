"""Networks as functions from tensor to tensor, for the scripts beside this one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from escsr.engines.eager import engine_of_module
from escsr.engines.engine import EngineOptions


def run_of(network: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    """What the engine of a module makes of a batch, on the CPU; options as of EngineOptions."""
    settings = EngineOptions(device="cpu", **options)
    engine = engine_of_module(network, scale=int(network.scale), options=settings)
    return lambda images: torch.from_numpy(engine.run(images.numpy()))
