"""One counter of multiply-accumulates for all networks, ours and others'."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


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
