"""The engine protocol: how upscaling and evaluation run a network, whatever computes it.

``CoreEngine`` (``core_engine``) runs ESC networks on a CPU by escsr's own library and needs no
torch; ``TorchEngine`` (``eager``) runs any module on any device that torch has.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from escsr.core.network import Network
from escsr.engines.cost import NetworkCost
from escsr.errors import ConfigurationError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig

if TYPE_CHECKING:
    from escsr.model.attention.flash_bias import RankRule

Floats = npt.NDArray[np.float32]

Backend = Literal["native", "eager", "reference"]
"""``native`` is escsr's own library, float32 on a CPU; ``eager`` is PyTorch, with all that follows
from the weights computed once; ``reference`` is PyTorch, computing as the paper writes it down."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)

BackendChoice = Literal["auto", "native", "eager", "reference"]
"""A back-end, or "auto": ``native`` where it can run the network, else ``eager``."""

Precision = Literal["float32", "bfloat16", "float16"]
"""What a network computes in."""
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]
"""A precision, or "auto": float16 on CUDA for images of 8 bits, else float32."""

AttentionChoice = Literal["auto", "sdpa", "flex", "triton", "flashbias", "chunked", "naive"]
"""How PyTorch computes window attention (``docs/attention-back-ends.md``)."""

Padding = Literal["none", "window"]
"""Whether an image is extended to whole attention windows before the network sees it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How networks are run; made once from what the user asks for, and passed whole.

    Raises:
        ConfigurationError: a value that is not allowed.
    """

    device: str = "auto"
    """"auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1" or "mps"."""
    backend: BackendChoice = "auto"
    """What computes the network."""
    precision: PrecisionChoice = "auto"
    """What it computes in."""
    attention: AttentionChoice | None = "auto"
    """How PyTorch computes attention; None is the network's own choice."""
    flash_bias: "RankRule | None" = None
    """The rank of "flashbias"."""
    padding: Padding = "none"
    """Extends images to whole windows, as the reference's tester does."""
    num_threads: int = 0
    """Threads of a CPU; 0 for one per core that the process may use."""

    def __post_init__(self) -> None:
        """Check each value."""
        require_device_name(self.device)
        require_choice("backend", self.backend, get_args(BackendChoice))
        require_choice("precision", self.precision, get_args(PrecisionChoice))
        if self.attention is not None:
            require_choice("attention_backend", self.attention, get_args(AttentionChoice))
        require_choice("padding", self.padding, get_args(Padding))
        if not isinstance(self.num_threads, int) or self.num_threads < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"num_threads is {self.num_threads!r}; it must be a whole number, 0 or more."
            )


def require_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not one of some names.

    Raises:
        ConfigurationError: another value.
    """
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")


def require_device_name(device: str) -> None:
    """Refuse what is no name of a device, whether it is there or not.

    Raises:
        ConfigurationError: another name.
    """
    kind, colon, index = device.partition(":")
    has_index = not colon or (kind != "auto" and index.isascii() and index.isdigit())
    if kind not in ("auto", "cpu", "cuda", "mps") or not has_index:
        raise ConfigurationError(
            f"The device is {device!r}; allowed are auto, cpu, cuda, cuda:0, …, and mps."
        )


class Engine(ABC):
    """One network, ready to run; it may be used from several threads.

    Args:
        config: of the network; None for one that is not an ESC.
        scale: upscaling factor per side.
        options: how to run it.
    """

    name: Backend
    device: str
    """Where it runs, such as "cpu" or "cuda:0"."""

    def __init__(self, config: ESCConfig | None, *, scale: int, options: EngineOptions) -> None:
        self.config = config
        self.scale = scale
        self.options = options
        self.multiple = self._multiple_to_pad_to()
        """Images are extended to multiples of so many pixels before the network sees them."""

    @property
    def makes_any_size(self) -> bool:
        """Whether results may have any size (ESC+LTE)."""
        return self.config is not None and self.config.is_arbitrary_scale

    def run(
        self,
        images: Floats,
        precision: Precision = "float32",
        views: tuple[AxisView, ...] | None = None,
    ) -> Floats:
        """Enlarge a batch.

        A result with NaN or Inf, which half precision can give, is made again in float32.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H, W >= 1.
            precision: to compute in; see ``choose_precision``.
            views: which rows and columns of a whole result to make, where the network makes any
                size, and where in the image the batch lies, where that matters (``needs_position``
                of the configuration). Unless given, the batch is whole images.
        Returns:
            (B, 3, scale*H, scale*W), or what ``views`` say; not clamped.
        Raises:
            CheckpointError: NaN or Inf in float32 too.
            MemoryError, RuntimeError: memory ran out (``escsr.engines.devices.is_out_of_memory``).
        """
        height, width = images.shape[-2:]
        if views is None:
            sides = (height, width)
            views = tuple(AxisView.whole(length=s, output_length=self.scale * s) for s in sides)
        result = self._run(padded_to_multiple(images, self.multiple), precision, views)
        if self.makes_any_size:
            return result
        return result[..., : self.scale * height, : self.scale * width]

    @abstractmethod
    def _run(self, images: Floats, precision: Precision, views: tuple[AxisView, ...]) -> Floats: ...

    @abstractmethod
    def choose_precision(self, *, eight_bit: bool) -> Precision:
        """What "auto" means for results of 8 bits a channel, or of more."""

    @abstractmethod
    def cost(self, scale: float, precision: Precision) -> NetworkCost:
        """What enlarging by a factor takes in memory."""

    @abstractmethod
    def images_at_once(self, num_images: int) -> int:
        """How many images of a batch go through the network together."""

    @property
    @abstractmethod
    def exact_network(self) -> Network | None:
        """What makes exact results of images of any size: an ESC on the core; None for others."""

    def _multiple_to_pad_to(self) -> int:
        if self.options.padding == "none":
            return 1
        if self.config is None:
            raise ConfigurationError(
                'padding is "window", but this network has no attention windows of a known size. '
                'Use padding="none".'
            )
        return self.config.window_pixels


def padded_to_multiple(images: Floats, multiple: int) -> Floats:
    """Extend images at the bottom and right by reflection until both sides are multiples.

    Where a side is shorter than its padding the reflection repeats, and a side of 1 is replicated.

    Args:
        images: (B, 3, H, W).
        multiple: in pixels.
    """
    for axis in (2, 3):
        length = images.shape[axis]
        padded = -(-length // multiple) * multiple
        if padded != length:
            images = np.take(
                images, reflected_positions(np.arange(padded, dtype=np.int64), length), axis
            )
    return images


def reflected_positions(position: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Fold positions beyond the end of an axis back into it, by repeated reflection.

    Args:
        position: any shape, >= 0.
        length: of the axis, >= 1.
    Returns:
        As ``position``: 0, 1, …, length-1 stay, then come length-2, …, 1, 0, 1, … .
    """
    last = length - 1
    forth = position % max(1, 2 * last)
    return np.minimum(forth, 2 * last - forth)
