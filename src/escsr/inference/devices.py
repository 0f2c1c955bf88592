"""Which device, which precision, how much memory, and what running out of it looks like."""

import ctypes
import functools
import sys
import time
from collections.abc import Callable
from typing import Literal, get_args

import torch

from escsr import machine
from escsr.errors import ConfigurationError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_PAUSE = 300
"""How many times as long as returning freed memory took it is not done again.

Fetching the pages again costs several times as much: at 100, images took 1 to 7 % longer.
"""


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve "auto" (CUDA, else MPS, else CPU) and refuse a device that is not there.

    Raises:
        ConfigurationError: no such kind of device, or none of it at hand.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"The device is {device!r}; allowed are auto, cpu, cuda, cuda:0, …, and mps."
        ) from error
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ConfigurationError(
            f"The device is {device!r}; allowed are auto, cpu, cuda, cuda:0, …, and mps."
        )
    _require_present(chosen)
    return chosen


def choose_dtype(precision: Precision, device: torch.device, *, eight_bit: bool) -> torch.dtype:
    """Resolve "auto": half precision where it pays and does not show, else float32.

    It pays on CUDA from compute capability 7.0. float16 rather than bfloat16, whose 8 significant
    bits would show in an 8-bit result; what overflows is run again in float32. A result of 16 bits
    or floating point needs more than either has.

    Args:
        precision: as asked for.
        device: where the network runs.
        eight_bit: whether the result has 8 bits per channel.
    Raises:
        ConfigurationError: no such precision.
    """
    require_precision(precision)
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda" and eight_bit and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    return torch.float32


def require_precision(precision: str) -> None:
    """Refuse an unknown name.

    Raises:
        ConfigurationError: no such precision.
    """
    if precision not in get_args(Precision):
        raise ConfigurationError(
            f"The precision is {precision!r}; allowed are {', '.join(get_args(Precision))}."
        )


def available_memory_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return machine.free_memory_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or machine.is_out_of_memory(error)


class FreedMemory:
    """What images leave behind in a CPU's memory, returned now and then, so that it costs little.

    Holes that images of many sizes leave between what is kept would add up. CUDA and MPS reuse
    their blocks for other sizes, and asking the device for new ones costs more.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._not_before_seconds = 0.0

    def release(self) -> None:
        """After an image: return freed memory, unless that was done lately."""
        started = time.monotonic()
        if self._device.type != "cpu" or started < self._not_before_seconds:
            return
        release_cached_memory(self._device)
        ended = time.monotonic()
        self._not_before_seconds = ended + _PAUSE * (ended - started)


def release_cached_memory(device: torch.device) -> None:
    """Give freed blocks that are kept for reuse back to the device: other sizes are wanted next.

    On a CPU the C library keeps them, below anything still in use; glibc alone can be asked.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """What makes glibc return all whole pages without a block in use; None without glibc."""
    if sys.platform != "linux":
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library, such as musl
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return trim


def _require_present(device: torch.device) -> None:
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(
            "The device mps was asked for, but there is no Apple GPU here; use auto or cpu."
        )
    if device.type != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigurationError(
            f"The device {device} was asked for, but torch finds {count} CUDA devices here. Use "
            "auto or cpu, or install the driver and a CUDA build of torch."
        )
