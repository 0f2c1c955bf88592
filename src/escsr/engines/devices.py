"""Devices: which are there, how much memory they have, and what running out of it looks like.

Torch is imported only where a GPU may be there, or was asked for.
"""

import ctypes
import functools
import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escsr import machine
from escsr.engines.engine import Precision, PrecisionChoice, require_device_name
from escsr.errors import ConfigurationError, import_torch

if TYPE_CHECKING:
    import torch

_PAUSE = 300
"""How many times as long as returning freed memory took it is not done again.

Fetching the pages again costs several times as much: at 100, images took 1 to 7 % longer.
"""


def choose_device(device: "str | torch.device") -> str:
    """Resolve "auto" (CUDA, else MPS, else CPU) and refuse a device that is not there.

    For "auto", torch is asked only where it is installed and a driver seems to be there.

    Returns:
        "cpu", "cuda", "cuda:1", "mps", …
    Raises:
        ConfigurationError: no such kind of device, or none of it here.
        MissingExtraError: a GPU without torch.
    """
    name = str(device)
    require_device_name(name)
    if name == "auto":
        return _automatic_device()
    if name.startswith("cpu"):
        return "cpu"
    _require_present(name, import_torch(f"The device {name}"))
    return name


def _automatic_device() -> str:
    if not may_have_gpu() or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def may_have_gpu() -> bool:
    """Whether a driver of a GPU seems to be there, found out without torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        names = ["nvcuda.dll", "amdhip64.dll", "amdhip64_6.dll"]
        return any(_loads(name) for name in names)
    places = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
    return any(Path(place).exists() for place in places) or _loads("libcuda.so.1")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def choose_precision(precision: PrecisionChoice, device: str, *, eight_bit: bool) -> Precision:
    """Resolve "auto": half precision where it pays and does not show, else float32.

    It pays on CUDA from compute capability 7.0. float16 rather than bfloat16, whose 8 significant
    bits would show in an 8-bit result; what overflows is run again in float32. A result of 16 bits
    or floating point needs more than either has.

    Args:
        precision: as asked for.
        device: where the network runs.
        eight_bit: whether the result has 8 bits per channel.
    """
    if precision != "auto":
        return precision
    if device.startswith("cuda") and eight_bit:
        import torch

        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    return "float32"


_FOR_FILES_BYTES = 48 * 2**20
"""Of main memory, left to the threads and buffers of libvips, which ends the process without."""


def available_memory_bytes(device: str) -> int | None:
    """Memory that can still be had for networks; None where the system gives no figure."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if device == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free_bytes = machine.free_memory_bytes()
    return None if free_bytes is None else max(0, free_bytes - _FOR_FILES_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on whatever device."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return machine.is_out_of_memory(error)


class FreedMemory:
    """Returns what images leave behind in a CPU's memory, now and then, so that it costs little.

    Holes that images of many sizes leave between what is kept would add up. CUDA and MPS reuse
    their blocks for other sizes, and asking the device for new ones costs more.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._not_before_seconds = 0.0

    def release(self) -> None:
        """After an image: return freed memory, unless that was done lately."""
        started = time.monotonic()
        if self._device != "cpu" or started < self._not_before_seconds:
            return
        release_cached_memory(self._device)
        ended = time.monotonic()
        self._not_before_seconds = ended + _PAUSE * (ended - started)


def release_cached_memory(device: "str | torch.device") -> None:
    """Give freed blocks that are kept for reuse back to the device, before other sizes are used.

    On a CPU the C library keeps them, below anything still in use; glibc alone can be asked.
    """
    kind = str(device).partition(":")[0]
    if kind != "cpu":
        import torch

        (torch.cuda if kind == "cuda" else torch.mps).empty_cache()
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


def _require_present(device: str, torch: Any) -> None:
    if device.startswith("mps") and not torch.backends.mps.is_available():
        raise ConfigurationError(
            "The device mps was asked for, but there is no Apple GPU here; use auto or cpu."
        )
    if not device.startswith("cuda"):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        raise ConfigurationError(
            f"The device {device} was asked for, but torch finds {count} CUDA devices here. Use "
            "auto or cpu, or install the driver and a CUDA build of torch."
        )
