"""Which device, which precision, how much memory."""

import errno
import importlib.util
import sys

import numpy as np
import pytest

from escsr.engines import devices
from escsr.engines.devices import (
    available_memory_bytes,
    choose_device,
    choose_precision,
    import_torch,
    is_out_of_memory,
)
from escsr.errors import ConfigurationError, MissingExtraError
from escsr.upscaling import Upscaler


def has_cuda() -> bool:
    """Whether torch is there and finds a GPU of NVIDIA's."""
    return importlib.util.find_spec("torch") is not None and import_torch("").cuda.is_available()


def has_mps() -> bool:
    """Whether torch is there and finds a GPU of Apple's."""
    found = importlib.util.find_spec("torch") is not None
    return found and import_torch("").backends.mps.is_available()


@pytest.mark.parametrize("name", ["gpu", "tpu:0", "cuda:x", "meta", "vulkan", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    """With the names that are allowed."""
    with pytest.raises(ConfigurationError, match="allowed are auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.skipif(has_cuda(), reason="for machines without CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_an_absent_cuda_device_is_refused(name: str) -> None:
    """With what to do about it."""
    pytest.importorskip("torch")
    with pytest.raises(ConfigurationError, match=r"finds 0 CUDA devices here\. Use auto or cpu"):
        choose_device(name)


@pytest.mark.skipif(has_mps(), reason="for machines that are no Mac")
def test_an_absent_apple_gpu_is_refused() -> None:
    """With what to do about it."""
    pytest.importorskip("torch")
    with pytest.raises(ConfigurationError, match="use auto or cpu"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_gpu_without_torch_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in sys.modules is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=rf"device {name} .*pip install 'escsr\[torch\]'"):
        choose_device(name)


def test_auto_finds_a_device() -> None:
    """Whatever there is; at least a CPU."""
    assert choose_device("auto").partition(":")[0] in ("cuda", "mps", "cpu")
    assert choose_device("cpu") == choose_device("cpu:0") == "cpu"


def test_auto_asks_torch_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes a second or more."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(devices, "may_have_gpu", lambda: False)
    assert choose_device("auto") == "cpu"
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_device("auto") == "cpu"


def test_auto_precision_on_a_cpu_is_float32() -> None:
    """Half precision does not pay there."""
    assert choose_precision("auto", "cpu", eight_bit=True) == "float32"
    assert choose_precision("bfloat16", "cpu", eight_bit=True) == "bfloat16"


@pytest.mark.gpu
@pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device")
def test_auto_precision_on_cuda_depends_on_the_result() -> None:
    """Half for 8 bits; 16 bits have more levels than half precision."""
    assert choose_precision("auto", "cuda", eight_bit=True) == "float16"
    assert choose_precision("auto", "cuda", eight_bit=False) == "float32"


def test_an_unknown_precision_is_refused() -> None:
    """With the names that are allowed."""
    with pytest.raises(ConfigurationError, match="auto, float32, bfloat16, float16"):
        Upscaler(precision="int8")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.0 GB)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_allocators_say_is_recognised(error: BaseException) -> None:
    """CUDA, Python, the CPU on Linux and on Windows, MPS, C++; threads, libraries, the system."""
    assert is_out_of_memory(error)


def test_torchs_own_error_is_recognised_whatever_it_says() -> None:
    """By its class."""
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(torch.OutOfMemoryError("Tried to allocate 20.00 GiB."))


def test_a_refused_allocation_is_recognised() -> None:
    """Real ones: no machine has an exabyte."""
    with pytest.raises(MemoryError) as refused:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(refused.value)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        ValueError("out of memory"),
        ImportError("No module named 'torch'"),
        OSError(errno.ENOENT, "No such file"),
    ],
)
def test_other_errors_are_none_of_memory(error: BaseException) -> None:
    """A mistake is not hidden by trying again."""
    assert not is_out_of_memory(error)


def test_the_memory_at_hand_is_told_or_unknown() -> None:
    """A positive number of bytes, where the system tells."""
    available = available_memory_bytes("cpu")
    assert available is None or available > 1 << 20
