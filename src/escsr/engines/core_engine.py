"""The core as an engine: ESC networks in float32 on a CPU, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from escsr.core.network import Axis, Network
from escsr.engines.cost import NetworkCost, cost_on_core
from escsr.engines.engine import Backend, Engine, EngineOptions, Floats, Precision
from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig


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
