"""Which device, which precision, how much memory."""

import errno

import pytest
import torch

from escsr.engines.devices import (
    available_memory_bytes,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    require_precision,
)
from escsr.errors import ConfigurationError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "tpu:0", "cuda:x", "meta", "vulkan", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    """With the names that are allowed."""
    with pytest.raises(ConfigurationError, match="allowed are auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_an_absent_cuda_device_is_refused(name: str) -> None:
    """With what to do about it."""
    with pytest.raises(ConfigurationError, match=r"finds 0 CUDA devices here\. Use auto or cpu"):
        choose_device(name)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="for machines that are no Mac")
def test_an_absent_apple_gpu_is_refused() -> None:
    """With what to do about it."""
    with pytest.raises(ConfigurationError, match="use auto or cpu"):
        choose_device("mps")


def test_auto_finds_a_device() -> None:
    """Whatever there is; at least a CPU."""
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
    assert choose_device(CPU) == CPU


def test_auto_precision_on_a_cpu_is_float32() -> None:
    """Half precision does not pay there."""
    assert choose_dtype("auto", CPU, eight_bit=True) == torch.float32
    assert choose_dtype("bfloat16", CPU, eight_bit=True) == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_precision_on_cuda_depends_on_the_result() -> None:
    """Half for 8 bits; 16 bits have more levels than half precision."""
    device = torch.device("cuda")
    assert choose_dtype("auto", device, eight_bit=True) == torch.float16
    assert choose_dtype("auto", device, eight_bit=False) == torch.float32


def test_an_unknown_precision_is_refused() -> None:
    """With the names that are allowed."""
    with pytest.raises(ConfigurationError, match="auto, float32, bfloat16, float16"):
        require_precision("int8")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
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


def test_a_refused_allocation_is_recognised() -> None:
    """A real one: no machine has an exabyte."""
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
    available = available_memory_bytes(CPU)
    assert available is None or available > 1 << 20
