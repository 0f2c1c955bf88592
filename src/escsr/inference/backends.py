"""Ways to run a whole network: which there are, which run here, and which "auto" takes.

All compute the same function. How attention alone is computed is another choice
(``escsr.model.attention.backends``).
"""

import functools
import logging
from typing import Literal

import torch
from torch import nn

from escsr.core.library import core_library
from escsr.errors import ConfigurationError
from escsr.inference.folding import fold
from escsr.inference.published_formulation import as_published
from escsr.model.attention.backends import FoldedBackend
from escsr.model.attention.cuda_graphs import GraphedNetwork
from escsr.model.attention.flash_bias import RankRule
from escsr.model.network import ESC

logger = logging.getLogger("escsr")

Backend = Literal["reference", "eager", "native"]
"""``reference`` computes as the paper writes it down; ``eager`` is a folded copy in PyTorch;
``native`` is the core of our own, in float32 on a CPU."""
BACKENDS: tuple[Backend, ...] = ("reference", "eager", "native")

BackendChoice = Literal["auto", "reference", "eager", "native"]
"""A back-end, or "auto", which takes the fastest."""


def choose_backend(choice: BackendChoice, device: torch.device) -> Backend:
    """The back-end to run with.

    Raises:
        ConfigurationError: no such back-end, or it cannot run here.
    """
    if choice == "auto":
        return "native" if available_backends(device)["native"] is None else "eager"
    if choice not in BACKENDS:
        raise ConfigurationError(f"backend is {choice!r}; allowed are auto, {', '.join(BACKENDS)}.")
    reason = available_backends(device)[choice]
    if reason is not None:
        raise ConfigurationError(
            f'The back-end {choice} cannot run here: {reason}. Use backend="auto".'
        )
    return choice


def available_backends(device: torch.device) -> dict[Backend, str | None]:
    """All back-ends, with the reason why one cannot run on a device; None where it can."""
    obstacle = _obstacle_to_core(device.type)
    return {name: obstacle if name == "native" else None for name in BACKENDS}


def _obstacle_to_core(device_type: str) -> str | None:
    if device_type != "cpu":
        return f"it is for CPUs, and the device is {device_type}"
    return _obstacle_on_this_machine()


@functools.cache
def _obstacle_on_this_machine() -> str | None:
    """Said once in the log: every package has a core, so that something is wrong."""
    try:
        core_library()
    except ConfigurationError as error:
        logger.warning("%s Networks run in PyTorch, which is slower.", error)
        return str(error).rstrip(".")
    return None


def prepare(
    network: nn.Module,
    backend: Backend,
    *,
    attention_backend: FoldedBackend | None = None,
    flash_bias: RankRule | None = None,
) -> nn.Module:
    """Copy a network for inference with a back-end; the original stays as it is.

    Args:
        network: an ``ESC``, or any module.
        backend: how to run it.
        attention_backend: replaces the network's own choice; the reference's is "naive".
        flash_bias: the rank of "flashbias".
    Returns:
        The copy, in eval mode, without gradients.
    """
    if backend == "reference":
        return as_published(network)
    return fold(network, attention_backend=attention_backend, flash_bias=flash_bias)


def accelerate(folded: nn.Module) -> nn.Module:
    """Do the rest for a copy that is on its device and in its precision; it may be changed.

    On CUDA an ESC's launches are recorded and replayed.
    """
    first = next(folded.parameters(), None)
    # Where in the image a part lies is computed on the host.
    if first is None or not first.is_cuda or not isinstance(folded, ESC):
        return folded
    return folded if folded.config.needs_position else GraphedNetwork(folded)
