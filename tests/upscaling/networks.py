"""Small networks that the tests of this folder run."""

from typing import Any

import torch
from torch import Tensor, nn

from escsr.engines.eager import engine_of_module
from escsr.engines.engine import Engine, EngineOptions
from escsr.family.axis_view import AxisView
from escsr.model import ESC, ESCConfig, variant
from escsr.upscaling.fidelity import keep_colours


def engine_of(network: nn.Module, *, scale: int | None = None, **options: Any) -> Engine:
    """A network ready to run on the CPU."""
    factor = int(getattr(network, "scale")) if scale is None else scale  # noqa: B009
    settings = EngineOptions(device="cpu", **{"attention": None, **options})
    return engine_of_module(network, scale=factor, options=settings)


def run(
    engine: Engine,
    images: Tensor,
    precision: Any = "float32",
    views: tuple[AxisView, ...] | None = None,
    *,
    guarded: bool = False,
) -> Tensor:
    """What an engine makes of a tensor, held to its colours if wanted."""
    array = images.numpy()
    result = engine.run(array, precision, views)
    return torch.from_numpy(keep_colours(result, array, views=views) if guarded else result)


def shaken(network: ESC) -> ESC:
    """Give every part of a network something to do, and keep its output near the enlarged image.

    As built, dynamic kernels are zero and biases tiny, so a mistake in them would not show.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "dynamic_kernel.to_kernel" in name:
                parameter.normal_(std=0.1)
            elif "position_bias.table" in name:
                parameter.normal_(std=0.5)
        network.reconstruction.to_subpixels.weight.mul_(0.05)
        assert network.reconstruction.to_subpixels.bias is not None
        network.reconstruction.to_subpixels.bias.zero_()
    return network.eval()


def tiny(scale: int = 4, seed: int = 0) -> ESC:
    """The architecture that ships, with seeded random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return shaken(ESC(variant("esc-tiny", scale=scale)))


def smallest(scale: int = 2, seed: int = 0, **overrides: object) -> ESC:
    """An ESC of one block and one layer with windows of 8: for tests that run it often."""
    config = ESCConfig.from_dict(
        {
            "scale": scale,
            "dim": 16,
            "pdim": 4,
            "num_blocks": 1,
            "num_conv_layers": 1,
            "window_size": 8,
            "num_heads": 2,
            "large_kernel_size": 5,
            **overrides,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return shaken(ESC(config))


class NearestEnlarger(nn.Module):
    """Repeats pixels: what it makes of a tile does not depend on the rest of the image."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W)."""
        return image.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class LimitedMemory(nn.Module):
    """A network on a device that holds no more than so many pixels; raises torch's own error."""

    def __init__(self, network: nn.Module, *, scale: int, max_pixels: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.max_pixels = max_pixels

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W)."""
        if image.shape[2] * image.shape[3] > self.max_pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(image)
