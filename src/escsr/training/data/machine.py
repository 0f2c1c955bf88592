"""What of this machine the training data may take: cores and memory."""

import os

import torch

from escsr.inference.devices import available_memory_bytes

_UNKNOWN_MEMORY_BYTES = 4 << 30
"""Taken for granted where the system does not tell."""


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_cache_bytes(processes: int = 1) -> int:
    """Half of the memory that is free now, shared among the processes of this machine."""
    free_bytes = available_memory_bytes(torch.device("cpu")) or _UNKNOWN_MEMORY_BYTES
    return free_bytes // (2 * processes)
