"""Networks with random weights, made without torch, and engines that stand for any network.

Most tests open a network by the path of its file, as users do; ``Upscaler`` and
``open_any_network`` take it so, with torch and without.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from escsr.engines.cost import NetworkCost, network_cost
from escsr.engines.devices import choose_precision
from escsr.engines.engine import Backend, Engine, EngineOptions, Floats, Precision
from escsr.engines.opening import open_any_network
from escsr.family import ESCConfig
from escsr.family.axis_view import AxisView
from escsr.family.variants import variant
from escsr.family.weight_shapes import weight_shapes
from escsr.upscaling import Upscaler
from escsr.upscaling.passes import MultiPassUpscaler
from escsr.weights import Provenance
from escsr.weights.store import save_state

PROVENANCE = Provenance(licence="CC0-1.0", training_data="none", date="2026-11-27")
"""Of weights that were made up."""


def random_weights(config: ESCConfig, seed: int = 0) -> dict[str, Floats]:
    """Weights by our names that give every part something to do.

    Where the network adds the enlarged image, the result stays near it; else it stays near 0.5.
    """
    chance = np.random.default_rng(seed)
    weights = {
        name: _scaled(name, chance.standard_normal(shape, np.float32))
        for name, shape in weight_shapes(config).items()
    }
    last = last_layer(weights)
    weights[f"{last}.weight"] *= np.float32(0.1)
    weights[f"{last}.bias"][:] = 0 if config.image_skip != "none" else 0.5
    return weights


def last_layer(weights: dict[str, Floats]) -> str:
    """The name of the layer that makes the pixels of the result."""
    *_, last = (name for name in weights if name.endswith(".bias"))
    return last.removesuffix(".bias")


def _scaled(name: str, drawn: Floats) -> Floats:
    """Normal numbers in the range that a weight of this name has in a trained network."""
    if "norm" in name:
        return np.float32(name.endswith("weight")) + np.float32(0.1) * drawn
    if "dynamic_kernel.to_kernel" in name:
        return np.float32(0.1) * drawn
    if name.endswith("position_bias.table"):
        return np.float32(0.5) * drawn
    if drawn.ndim > 1:
        return drawn / np.float32((3 * drawn[0].size) ** 0.5)
    return np.float32(0.1) * drawn


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where networks lie for as long as the tests run."""
    return tempfile.TemporaryDirectory(prefix="escsr-tests-")


_numbers = iter(range(10**9))


def saved(config: ESCConfig, weights: dict[str, Floats]) -> Path:
    """A file of ours with these weights."""
    path = Path(_folder().name) / f"network-{next(_numbers)}.safetensors"
    save_state(path, config, weights, provenance=PROVENANCE)
    return path


@functools.cache
def network_file(config: ESCConfig, seed: int = 0) -> Path:
    """A file of a network with random weights; one for all tests that want the same."""
    return saved(config, random_weights(config, seed))


def smallest_config(scale: int = 2, **overrides: Any) -> ESCConfig:
    """An ESC of one block and one layer with windows of 8: for tests that run it often."""
    fields: dict[str, Any] = {
        "scale": scale,
        "dim": 16,
        "pdim": 4,
        "num_blocks": 1,
        "num_conv_layers": 1,
        "window_size": 8,
        "num_heads": 2,
        "large_kernel_size": 5,
    }
    return ESCConfig(**{**fields, **overrides})


def smallest(scale: int = 2, seed: int = 0, **overrides: Any) -> Path:
    """The file of such a network."""
    return network_file(smallest_config(scale, **overrides), seed)


def tiny(scale: int = 4, seed: int = 0) -> Path:
    """The file of the architecture that ships, with random weights."""
    return network_file(variant("esc-tiny", scale=scale), seed)


def engine_of(network: Any, **options: Any) -> Engine:
    """The engine of a network, on the CPU; options as of ``EngineOptions``."""
    return open_any_network(network).engine(EngineOptions(**{"device": "cpu", **options}))


class ArrayEngine(Engine):
    """An engine whose network is a function from arrays to arrays, as foreign networks are.

    Args:
        enlarge: (B, 3, H, W) -> (B, 3, scale*H, scale*W), float32.
        scale: its factor.
        options: as of any engine.
        config: as if it were an ESC.
    """

    name: Backend = "eager"
    device = "cpu"

    def __init__(
        self,
        enlarge: Callable[[Floats], Floats],
        *,
        scale: int = 2,
        options: EngineOptions | None = None,
        config: ESCConfig | None = None,
    ) -> None:
        super().__init__(config, scale=scale, options=options or EngineOptions(device="cpu"))
        self.enlarge = enlarge

    @property
    def exact_network(self) -> None:
        """It has no layers."""
        return

    def choose_precision(self, *, eight_bit: bool) -> Precision:
        """As torch's engine does."""
        return choose_precision(self.options.precision, self.device, eight_bit=eight_bit)

    def cost(self, scale: float, precision: Precision) -> NetworkCost:
        """Of such a network in torch."""
        return network_cost(self.config, scale=scale)

    def images_at_once(self, num_images: int) -> int:
        """One, as on any CPU."""
        return 1

    def _run(self, images: Floats, precision: Precision, views: tuple[AxisView, ...]) -> Floats:
        return self.enlarge(images)


def upscaler_of(engine: Engine, *, scale: float | None = None, **options: Any) -> Upscaler:
    """An Upscaler whose one network is an engine's; options as of ``Upscaler``."""
    upscaler = Upscaler(smallest(engine.scale), **{"device": "cpu", **options})
    models = upscaler._upscaler.models
    models.name, models.device = type(engine).__name__, engine.device
    models._engines[engine.scale] = engine
    settings = upscaler._upscaler.settings
    upscaler._upscaler = MultiPassUpscaler(models, settings, default_scale=scale)
    return upscaler


def nearest(images: Floats, scale: int = 2) -> Floats:
    """Repeat pixels: what comes of a tile does not depend on the rest of the image.

    (B, 3, H, W) -> (B, 3, scale*H, scale*W).
    """
    return images.repeat(scale, axis=2).repeat(scale, axis=3)


def nearest_engine(scale: int = 2) -> ArrayEngine:
    """An engine that repeats pixels."""
    return ArrayEngine(functools.partial(nearest, scale=scale), scale=scale)


def drifting(images: Floats, enlarge: Callable[[Floats], Floats] = nearest) -> Floats:
    """Darken to 98 % and add 0.02 of red, as networks do that learned on other colours."""
    red = np.array([0.02, 0, 0], np.float32).reshape(1, 3, 1, 1)
    return np.float32(0.98) * enlarge(images) + red


def limited(max_pixels: int, enlarge: Callable[[Floats], Floats] = nearest) -> ArrayEngine:
    """An x2 engine on a device with memory for no more than so many pixels at once."""

    def run(images: Floats) -> Floats:
        if images.shape[2] * images.shape[3] > max_pixels:
            raise MemoryError("out of memory. Tried to allocate 2.00 GiB.")
        return enlarge(images)

    return ArrayEngine(run)


def batches(count: int, height: int, width: int, seed: int = 0) -> Floats:
    """Random images in [0, 1]: (count, 3, height, width)."""
    return np.random.default_rng(seed).random((count, 3, height, width), np.float32)
