"""Measure one network in a process of its own: arithmetic, its least time, latency and memory."""

import contextlib
import copy
import ctypes
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from escsr.engines.published import as_published
from escsr.evaluation.benchmark.record import FloorRound, Round
from escsr.family.configuration import ESCConfig
from escsr.model.network import ESC


def count_products(network: nn.Module, height: int, width: int) -> int | None:
    """Multiply-accumulates of convolutions and matrix products for one image.

    It runs on the meta device, without arithmetic; a network that cannot is run once.

    Args:
        network: (1, 3, H, W) -> an image. Of ours give one of ``as_published``: what a back-end
            saves, or computes by kernels of its own, is not seen otherwise.
        height: of the LR image, in pixels.
        width: likewise.
    Returns:
        None where the network cannot be counted.
    Differs: the "#FLOPs" of papers also hold 5 for each normalised value, which no matrix product
    makes; ``escsr.family.complexity`` counts these too.
    """
    for device in ("meta", "cpu"):
        try:
            copied = copy.deepcopy(network).to(device)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                copied(torch.zeros(1, 3, height, width, device=device))
        except Exception:  # a foreign network can fail in any way
            continue
        return counter.get_total_flops() // 2
    return None


@dataclass(frozen=True, order=True, slots=True)
class Product:
    """A kind of matrix product: ``batch`` of (rows, inner) times (inner, columns)."""

    kind: str
    """``convolution 1x1`` and the like, ``linear``, ``batched``."""
    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.rows * self.inner * self.columns

    @property
    def name(self) -> str:
        """For tables."""
        shape = f"({self.rows} x {self.inner})({self.inner} x {self.columns})"
        return f"{self.kind}, {shape}" + (f" x {self.batch}" if self.batch > 1 else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """What a network computes for one image."""

    products: Mapping[Product, int]
    """How often each occurs."""
    exps: int
    """Of the softmax."""

    @property
    def macs(self) -> int:
        """Of all products."""
        return sum(product.macs * times for product, times in self.products.items())


def arithmetic_of(network: nn.Module, height: int, width: int) -> Arithmetic:
    """List the products and exps of a network, which runs on the meta device.

    Args:
        network: as for ``count_products``, with attention that stores its scores.
        height: of the LR image, in pixels.
        width: likewise.
    """
    copied = copy.deepcopy(network).to("meta")
    # Not inference mode, which would show convolutions and products before they are taken apart.
    with torch.no_grad(), _Log() as log:
        copied(torch.zeros(1, 3, height, width, device="meta"))
    return Arithmetic(products=dict(log.products), exps=log.exps)


_IS_TRANSPOSED = 6
"""Among the arguments of a convolution."""


class _Log(TorchDispatchMode):
    """Notes the shapes of what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()
        self.exps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        match func.overloadpacket:
            case aten.convolution if args[_IS_TRANSPOSED]:
                self.products[_transposed_convolution(args[0].shape, args[1].shape)] += 1
            case aten.convolution:
                self.products[_convolution(args[1].shape, result.shape)] += 1
            case aten.mm:
                self._note("linear", 1, args[0].shape, result.shape)
            case aten.addmm:
                self._note("linear", 1, args[1].shape, result.shape)
            case aten.bmm:
                self._note("batched", result.shape[0], args[0].shape, result.shape)
            case aten.baddbmm:
                self._note("batched", result.shape[0], args[1].shape, result.shape)
            case aten._softmax:
                self.exps += result.numel()
            case _:
                pass
        return result

    def _note(self, kind: str, batch: int, first: torch.Size, result: torch.Size) -> None:
        self.products[Product(kind, batch, result[-2], first[-1], result[-1])] += 1


def _convolution(weight: torch.Size, result: torch.Size) -> Product:
    """As a matrix product; groups are its batch."""
    sides = "x".join(map(str, weight[2:]))
    pixels = result[0] * prod(result[2:])
    # (C_out, C_in / groups, …): a depthwise convolution has one channel in.
    groups = weight[0] if weight[1] == 1 else 1
    return Product(
        f"convolution {sides}", groups, pixels, weight[1] * prod(weight[2:]), weight[0] // groups
    )


def _transposed_convolution(values: torch.Size, weight: torch.Size) -> Product:
    """Every pixel that comes in makes a kernel of each channel; (C_in, C_out, …), no groups."""
    sides = "x".join(map(str, weight[2:]))
    pixels = values[0] * prod(values[2:])
    columns = weight[1] * prod(weight[2:])
    return Product(f"transposed convolution {sides}", 1, pixels, weight[0], columns)


_ROWS_AT_ONCE = (1024, 4096, 16384)
"""Pixels of one matrix product: from what stays in a core's cache to what does not."""
_BATCH_AT_ONCE = (1, 2, 4, 16)
_SECONDS_PER_WAY = 0.03
_SMALLEST_SHARE = 0.01
"""Products with less of all multiply-accumulates are taken at the best rate of any."""
_EXPS_AT_ONCE = 4096
"""Per thread: 16 KB, which stay in the first cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The arithmetic of one network on one size of image."""

    arithmetic: Arithmetic
    large_kernel_products: tuple[Product, ...]
    large_kernel_macs: float | None
    """What the large kernel needs in all its layers together, where it is not direct."""

    def measure(self) -> FloorRound:
        """Measure rates, and say what they come to; it takes seconds."""
        rates = self._rates()
        best = max(rates.values())
        gigaexps = exp_rate() / 1e9
        return FloorRound(
            direct_ms=1000 * self.arithmetic.macs / best,
            remaining_ms=self._remaining_ms(rates, best, gigaexps),
            gigaflops={product.name: 2 * rate / 1e9 for product, rate in rates.items()},
            gigaexps=gigaexps,
        )

    def _rates(self) -> dict[Product, float]:
        """Multiply-accumulates per second of every kind of product that matters."""
        products = self.arithmetic.products
        least = _SMALLEST_SHARE * self.arithmetic.macs
        return {
            product: matrix_rate(product)
            for product, times in products.items()
            if product.macs * times >= least and min(product.inner, product.columns) > 1
        }

    def _remaining_ms(
        self, rates: dict[Product, float], best: float, gigaexps: float
    ) -> float | None:
        if self.large_kernel_macs is None:
            return None
        seconds = self.large_kernel_macs / best + self.arithmetic.exps / (1e9 * gigaexps)
        for product, times in self.arithmetic.products.items():
            if product not in self.large_kernel_products:
                seconds += product.macs * times / rates.get(product, best)
        return 1000 * seconds


def floor_of_network(
    network: ESC, height: int, width: int, *, large_kernel_macs_per_pixel: float | None = None
) -> Floor:
    """Prepare the floor of one of our networks.

    Args:
        network: any of the family.
        height: of the LR image, in pixels.
        width: likewise.
        large_kernel_macs_per_pixel: what one ConvAttention layer needs for its large kernel where
            that is not direct, such as in the frequency domain; without it there is no floor of
            remaining work.
    """
    arithmetic = arithmetic_of(as_published(network), height, width)
    large = tuple(p for p in arithmetic.products if p.kind == _large_kind(network.config))
    pixels = -(-height // network.config.unshuffle) * -(-width // network.config.unshuffle)
    layers = sum(arithmetic.products[product] for product in large)
    macs = large_kernel_macs_per_pixel
    return Floor(
        arithmetic=arithmetic,
        large_kernel_products=large,
        large_kernel_macs=None if macs is None else macs * pixels * layers,
    )


def matrix_rate(product: Product) -> float:
    """The best rate of a kind of matrix product, in multiply-accumulates per second."""
    best = 0.0
    for compute, macs in _ways(product):
        best = max(best, macs / fastest_seconds(compute))
    return best


def exp_rate() -> float:
    """The best rate of ``exp`` on what lies in the cache, in values per second."""
    best = 0.0
    for values in (_EXPS_AT_ONCE, 4 * _EXPS_AT_ONCE, 16 * _EXPS_AT_ONCE):
        source = -8 * torch.rand(values * torch.get_num_threads())
        target = torch.empty_like(source)

        def compute(source: Tensor = source, target: Tensor = target) -> None:
            torch.exp(source, out=target)

        best = max(best, source.numel() / fastest_seconds(compute))
    return best


def fastest_seconds(compute: Callable[[], object]) -> float:
    """The shortest of as many runs as fit into some hundredths of a second, at least three."""
    compute()
    shortest, ends, runs = float("inf"), time.perf_counter() + _SECONDS_PER_WAY, 0
    while runs < 3 or time.perf_counter() < ends:
        started = time.perf_counter()
        compute()
        shortest = min(shortest, time.perf_counter() - started)
        runs += 1
    return shortest


def _large_kind(config: ESCConfig) -> str:
    side = config.large_kernel_size
    return f"convolution {side}x{side}"


def _ways(product: Product) -> Iterator[tuple[Callable[[], object], int]]:
    """Ways to compute some of a product, and how many multiply-accumulates that is."""
    if product.batch > 1:
        for batch in _BATCH_AT_ONCE:
            yield _batched(product, min(batch, product.batch))
        return
    for rows in _ROWS_AT_ONCE:
        yield _flat(product, min(rows, product.rows), transposed=False)
        yield _flat(product, min(rows, product.rows), transposed=True)


def _flat(product: Product, rows: int, *, transposed: bool) -> tuple[Callable[[], object], int]:
    pixels, weights = torch.ones(rows, product.inner), torch.ones(product.inner, product.columns)
    first, second = (weights.T.contiguous(), pixels.T) if transposed else (pixels, weights)
    result = torch.empty(first.shape[0], second.shape[1])
    macs = rows * product.inner * product.columns
    return lambda: torch.mm(first, second, out=result), macs


def _batched(product: Product, batch: int) -> tuple[Callable[[], object], int]:
    first = torch.ones(batch, product.rows, product.inner)
    second = torch.ones(batch, product.inner, product.columns)
    result = torch.empty(batch, product.rows, product.columns)
    macs = batch * product.rows * product.inner * product.columns
    return lambda: torch.bmm(first, second, out=result), macs


_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_SECONDS = 0.005


def measure_round(
    run: Callable[[], object], *, repeats: int, device: torch.device, loaded_bytes: int | None
) -> Round:
    """Time some runs.

    Args:
        run: to be timed; what it leaves on the device to do is waited for.
        repeats: how often.
        device: where it runs.
        loaded_bytes: what was resident before the first image; None leaves memory on a CPU out.
    """
    if device.type == "cuda":
        return _measure_on_cuda(run, repeats, device)
    with resident_peak() as peak:
        latencies = tuple(_timed_ms(run, device) for _ in range(repeats))
    most = peak.num_bytes
    above = most - loaded_bytes if most is not None and loaded_bytes is not None else None
    return Round(latencies_ms=latencies, peak_memory_bytes=above, reserved_memory_bytes=most)


def resident_bytes() -> int | None:
    """What of this process lies in memory, after giving back what is free; None but on Linux."""
    gc.collect()
    # Only glibc has it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status_bytes("VmRSS:")


@dataclass(slots=True)
class Peak:
    """The highest that was resident while a block ran."""

    num_bytes: int | None = None


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Watch the memory of this process.

    The kernel's own high-water mark is set back and read; where that is not allowed, memory is
    looked at every few milliseconds.

    Yields:
        What holds the peak afterwards; None but on Linux.
    """
    peak = Peak()
    try:
        # 5 sets the high-water mark back to what is resident now.
        _CLEAR_REFS.write_text("5")
    except OSError:
        with _sampled(peak):
            yield peak
        return
    yield peak
    peak.num_bytes = _status_bytes("VmHWM:")


@contextmanager
def _sampled(peak: Peak) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            now = _status_bytes("VmRSS:")
            if now is not None:
                peak.num_bytes = max(peak.num_bytes or 0, now)

    peak.num_bytes = _status_bytes("VmRSS:")
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _status_bytes(entry: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))
    return next(found, None)


def _measure_on_cuda(run: Callable[[], object], repeats: int, device: torch.device) -> Round:
    # Memory was given back after the last round, so the first run would pay for getting it.
    run()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    latencies = tuple(_timed_on_cuda_ms(run, device) for _ in range(repeats))
    most = Round(
        latencies_ms=latencies,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device),
        reserved_memory_bytes=torch.cuda.max_memory_reserved(device),
    )
    torch.cuda.empty_cache()
    return most


def _timed_on_cuda_ms(run: Callable[[], object], device: torch.device) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    started.record(stream)
    run()
    ended.record(stream)
    ended.synchronize()
    return started.elapsed_time(ended)


def _timed_ms(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "mps":
        torch.mps.synchronize()
    return 1000 * (time.perf_counter() - started)
