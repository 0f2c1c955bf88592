"""How fast a CPU could be at best: the arithmetic that there is, at the rates that it reaches.

Rates are measured here with PyTorch's matrix products, for the shapes of the network at hand; each
is the best among reasonable ways to do it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from escsr.engines.published import as_published
from escsr.evaluation.benchmark.counting import Arithmetic, Product, arithmetic_of
from escsr.evaluation.benchmark.record import FloorRound
from escsr.family.configuration import ESCConfig
from escsr.model.network import ESC

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
