"""The kernels of ConvAttention: the large one that all layers share, and those that images make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escsr.analysis.layers import esc_within, layer_label
from escsr.analysis.records import Skipped
from escsr.model.convolutional_attention import DynamicKernel, SharedLargeKernel
from escsr.shapes import ImageBatch

NO_ESC = "it is no ESC, and has neither a shared large kernel nor dynamic ones."


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeKernels:
    """A large kernel as it is stored and as convolutions use it."""

    stored: Tensor
    """(P, P, K, K), or (P, 1, K, K) of a decomposed one."""
    used: Tensor
    """The same shape, averaged over the 8 flips and rotations where the network does so."""
    is_averaged: bool
    count: int
    """How many the network has; 1 where all layers share it. The first is shown."""

    @property
    def centre_share(self) -> float:
        """Share of the energy that the middle 3x3 of the kernel in use has."""
        middle = self.used.shape[-1] // 2
        inner = self.used[..., middle - 1 : middle + 2, middle - 1 : middle + 2]
        return float(inner.square().sum() / self.used.square().sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicKernels:
    """The 3x3 kernels that each layer made of each image."""

    layers: list[str]
    """In their order."""
    images: list[str]
    kernels: Tensor
    """(layers, images, P, 3, 3)."""

    @property
    def spread(self) -> list[float] | None:
        """Of each layer: how far kernels of one image are from their mean over the images.

        The root mean square of that distance, over that of the kernels: 0 means that every image
        gets the same kernels. None with a single image.
        """
        if len(self.images) < 2:
            return None
        distance = (self.kernels - self.kernels.mean(1, keepdim=True)).square().mean((1, 2, 3, 4))
        size = self.kernels.square().mean((1, 2, 3, 4))
        return (distance / size.clamp(min=1e-30)).sqrt().tolist()


def asymmetry(kernel: Tensor) -> float:
    """How far a kernel is from its average over the square's symmetries, as a share of its size.

    Args:
        kernel: (…, K, K).
    Returns:
        0 for a symmetric kernel; below 1 in any case.
    """
    turned = [kernel.rot90(turns, (-2, -1)) for turns in range(4)]
    average = torch.stack([*turned, *(one.flip(-1) for one in turned)]).mean(0)
    return float((kernel - average).norm() / kernel.norm().clamp(min=1e-30))


def large_kernels(network: nn.Module) -> LargeKernels | Skipped:
    """The large kernel of an ESC; the first of them in the ablation that shares none."""
    if esc_within(network) is None:
        return Skipped(NO_ESC)
    found = [module for module in network.modules() if isinstance(module, SharedLargeKernel)]
    if not found:
        return Skipped("none of its layers is a ConvAttention.")
    with torch.no_grad():
        return LargeKernels(
            stored=found[0].weights[-1].detach().float().cpu(),
            used=found[0]()[-1].detach().float().cpu(),
            is_averaged=found[0].is_averaged,
            count=len(found),
        )


def dynamic_kernels(
    network: nn.Module,
    images: Sequence[ImageBatch],
    names: Sequence[str],
    on_image: Callable[[], None],
) -> DynamicKernels | Skipped:
    """The dynamic kernels of every layer, made of each of some images.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        names: of the images.
        on_image: called after each.
    """
    found = [(n, m) for n, m in network.named_modules() if isinstance(m, DynamicKernel)]
    if not found:
        return Skipped(NO_ESC if esc_within(network) is None else "it makes no dynamic kernels.")
    made: dict[nn.Module, list[Tensor]] = {module: [] for _, module in found}

    def keep(module: nn.Module, inputs: object, kernel: Tensor) -> None:
        made[module].append(kernel[0].float().cpu())

    handles = [module.register_forward_hook(keep) for _, module in found]
    try:
        with torch.inference_mode():
            for image in images:
                network(image)
                on_image()
    finally:
        for handle in handles:
            handle.remove()
    return DynamicKernels(
        layers=[layer_label(network, name) for name, _ in found],
        images=list(names),
        kernels=torch.stack([torch.stack(made[module]) for _, module in found]),
    )
