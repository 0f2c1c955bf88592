"""ESC networks in PyTorch programs, run by the core."""

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from escsr.core.network import Axes, Axis, Network
from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.model.network import ESC
from escsr.model.window_attention import WindowAttention
from escsr.shapes import ImageBatch

_BACKENDS = ("auto", "sdpa")
"""Of attention: what a network is made with unless another one is chosen."""


class CoreESC(nn.Module):
    """Stands for an ``ESC``: float32 on the CPU, without gradients.

    Args:
        source: its weights are copied.
    Raises:
        CheckpointError: an array is missing, unknown, of another shape or not finite.
        ConfigurationError: the core cannot be used here.
    """

    def __init__(self, source: ESC) -> None:
        super().__init__()
        self.config, self.scale = source.config, source.scale
        self.network = Network(source.config, _state_of(source))

    def forward(
        self, lr_image: ImageBatch, output_size: tuple[int, int] | None = None
    ) -> ImageBatch:
        """As of ``ESC``."""
        return self._run(lr_image, output_size, None)

    def enlarge_part(self, lr_image: ImageBatch, rows: AxisView, columns: AxisView) -> ImageBatch:
        """Make a part of a result of any size from a part of an image, as the views say."""
        size = (rows.num_pixels, columns.num_pixels)
        return self._run(lr_image, size, axes_of(rows, columns))

    def _run(
        self, lr_image: ImageBatch, output_size: tuple[int, int] | None, axes: Axes | None
    ) -> ImageBatch:
        images = lr_image.detach().to("cpu", torch.float32).numpy()
        threads = torch.get_num_threads()
        try:
            result = self.network(images, output_size, num_threads=threads, axes=axes)
        except DeviceMemoryError as error:  # as PyTorch says it: smaller tiles may do
            raise MemoryError(str(error)) from error
        return torch.from_numpy(result)  # pyright: ignore[reportUnknownMemberType]


def axes_of(rows: AxisView, columns: AxisView) -> Axes:
    """Views as the core takes them."""
    return _axis_of(rows), _axis_of(columns)


def _axis_of(view: AxisView) -> Axis:
    return Axis(
        length=view.length,
        output_length=view.output_length,
        start=view.start,
        output_start=view.first,
    )


def is_for_core(network: nn.Module) -> bool:
    """Whether a module is an ESC, or holds one, whose attention is computed as usual."""
    attentions = [part for part in network.modules() if isinstance(part, WindowAttention)]
    has_network = any(type(part) is ESC for part in network.modules())
    return has_network and all(part.backend in _BACKENDS for part in attentions)


def on_core(network: nn.Module) -> nn.Module:
    """A copy in which the core runs every ESC.

    Raises:
        CheckpointError, ConfigurationError: as of ``CoreESC``.
    """
    if type(network) is ESC:
        return CoreESC(network)
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is ESC:
                parent.add_module(name, CoreESC(child))
    return copied


def _state_of(network: ESC) -> dict[str, npt.NDArray[np.float32]]:
    return {
        name: values.detach().to("cpu", torch.float32).numpy()
        for name, values in network.state_dict().items()
    }
