"""The core as an engine: ESC networks in float32 on a CPU, without torch."""

import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from escsr.core.library import core_library
from escsr.core.network import Axis, Network
from escsr.engines.cost import NetworkCost, cost_on_core
from escsr.engines.devices import choose_device
from escsr.engines.engine import (
    BACKENDS,
    Backend,
    BackendChoice,
    Engine,
    EngineOptions,
    Floats,
    Precision,
)
from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("escsr")


class CoreEngine(Engine):
    """An ESC on escsr's own library.

    Args:
        config: of the network.
        weights: its arrays by our names.
        options: how to run it.
    Raises:
        CheckpointError: an array is missing, unknown, of another shape or not finite.
        ConfigurationError: the library cannot be loaded here.
    """

    name: Backend = "native"
    device = "cpu"

    def __init__(
        self,
        config: ESCConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        options: EngineOptions | None = None,
    ) -> None:
        super().__init__(config, scale=config.scale, options=options or EngineOptions())
        self.network = Network(config, weights)

    @property
    def exact_network(self) -> Network:
        """The network itself."""
        return self.network

    def choose_precision(self, *, eight_bit: bool) -> Precision:
        """Always float32."""
        return "float32"

    def cost(self, scale: float, precision: Precision) -> NetworkCost:
        """As the library says."""
        return cost_on_core(self.network, scale=scale)

    def images_at_once(self, num_images: int) -> int:
        """One: each has all threads."""
        return 1

    def _run(self, images: Floats, precision: Precision, views: tuple[AxisView, ...]) -> Floats:
        threads = self.options.num_threads
        try:
            if not self.makes_any_size:
                return self.network(images, num_threads=threads)
            rows, columns = views
            size = (rows.num_pixels, columns.num_pixels)
            axes = (axis_of(rows), axis_of(columns))
            return self.network(images, size, num_threads=threads, axes=axes)
        except DeviceMemoryError as error:  # smaller tiles may do
            raise MemoryError(str(error)) from error


def axis_of(view: AxisView) -> Axis:
    """A view as the core takes it."""
    return Axis(
        length=view.length,
        output_length=view.output_length,
        start=view.start,
        output_start=view.first,
    )


def uses_core(options: EngineOptions) -> bool:
    """Whether an ESC runs on the core with these options.

    Raises:
        ConfigurationError: "native" was asked for, and other options keep the core from it.
    """
    obstacle = _obstacle_to_core(options)
    if obstacle is not None and options.backend == "native":
        raise ConfigurationError(
            f'The back-end native cannot run here: {obstacle}. Use backend="auto".'
        )
    return obstacle is None


def choose_backend(choice: BackendChoice, device: "str | torch.device") -> Backend:
    """What runs an ESC on a device; arguments and errors as of ``EngineOptions``."""
    options = EngineOptions(device=str(device), backend=choice)
    if uses_core(options):
        return "native"
    return "reference" if choice == "reference" else "eager"


def available_backends(device: "str | torch.device") -> dict[Backend, str | None]:
    """All back-ends, with the reason why one cannot run on a device; None where it can."""
    obstacle = _obstacle_to_core(EngineOptions(device=str(device)))
    return {name: obstacle if name == "native" else None for name in BACKENDS}


def _obstacle_to_core(options: EngineOptions) -> str | None:
    if options.backend not in ("auto", "native"):
        return f"the back-end {options.backend} was chosen"
    if options.attention not in (None, "auto", "sdpa"):
        return f"it computes attention in its own way, not by {options.attention}"
    if options.precision not in ("auto", "float32"):
        return f"it computes in float32, and {options.precision} was asked for"
    device = options.device
    if device == "auto" and options.backend == "auto":
        device = choose_device(device)
    if device not in ("auto", "cpu"):
        return f"it is for CPUs, and the device is {device}"
    return _obstacle_on_this_machine()


@functools.cache
def _obstacle_on_this_machine() -> str | None:
    """Logged once: every package has a core, so that something is wrong."""
    try:
        core_library()
    except ConfigurationError as error:
        logger.warning("%s Networks run in PyTorch, which is slower.", error)
        return str(error).rstrip(".")
    return None
