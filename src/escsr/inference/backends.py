"""Ways to run a whole network: which there are, which run here, and which "auto" takes.

All compute the same function. How attention alone is computed is another choice
(``escsr.model.attention_backends``).
"""

import functools
import logging
from typing import Literal

import torch
from torch import nn

from escsr.errors import ConfigurationError
from escsr.inference.cuda_graphs import GraphedNetwork
from escsr.inference.folding import fold
from escsr.inference.native.library import is_built, native_library, native_obstacle
from escsr.inference.published_formulation import as_published
from escsr.model.attention_backends import FoldedBackend
from escsr.model.flash_bias import RankRule
from escsr.model.network import ESC

logger = logging.getLogger("escsr")

Backend = Literal["reference", "eager", "native"]
"""``reference`` computes as the paper writes it down; ``eager`` is a folded copy in PyTorch;
``native`` is one with kernels of our own, built with the package or compiled on this machine."""
BACKENDS: tuple[Backend, ...] = ("reference", "eager", "native")

BackendChoice = Literal["auto", "reference", "eager", "native"]
"""A back-end, or "auto", which takes the fastest that need not be compiled first."""


def choose_backend(choice: BackendChoice, device: torch.device) -> Backend:
    """The back-end to run with.

    Raises:
        ConfigurationError: no such back-end, or it cannot run here.
    """
    if choice == "auto":
        return _fastest_without_compiling(device)
    if choice not in BACKENDS:
        raise ConfigurationError(f"backend is {choice!r}; allowed are auto, {', '.join(BACKENDS)}.")
    reason = available_backends(device)[choice]
    if reason is not None:
        raise ConfigurationError(
            f'The back-end {choice} cannot run here: {reason}. Use backend="auto".'
        )
    if choice == "native":
        native_library()
    return choice


def _fastest_without_compiling(device: torch.device) -> Backend:
    if native_obstacle(device.type) is not None:
        return "eager"
    if is_built():
        return "native" if _loads() else "eager"
    _tell_once(
        'Running with the back-end eager. There is a C++ compiler here: backend="native" compiles '
        "faster kernels within seconds, once; from then on they are taken by themselves."
    )
    return "eager"


def _loads() -> bool:
    """Kernels that were compiled elsewhere may want another system than this one."""
    try:
        native_library()
    except ConfigurationError as error:
        _tell_once(f"Running with the back-end eager, as the kernels fail: {error.__cause__}.")
        return False
    return True


@functools.cache
def _tell_once(message: str) -> None:
    logger.info(message)


def available_backends(device: torch.device) -> dict[Backend, str | None]:
    """All back-ends, with the reason why one cannot run on a device; None where it can."""
    obstacle = native_obstacle(device.type)
    return {name: obstacle if name == "native" else None for name in BACKENDS}


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


def accelerate(folded: nn.Module, backend: Backend) -> nn.Module:
    """Do the rest for a copy that is on its device and in its precision; it may be changed.

    The native kernels compute in float32; in other precisions they leave a network as it is.
    On CUDA an ESC's launches are recorded and replayed.
    """
    first = next(folded.parameters(), None)
    if backend == "native" and first is not None and first.dtype == torch.float32:
        from escsr.inference.native.body import run_natively

        return run_natively(folded)
    is_on_cuda = first is not None and first.is_cuda
    if backend == "eager" and is_on_cuda and isinstance(folded, ESC):
        # Where in the image a part lies is computed on the host.
        return folded if folded.config.needs_position else GraphedNetwork(folded)
    return folded
