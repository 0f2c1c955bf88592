"""What stands in a table: ours, the reference's, foreign networks, and bicubic enlargement."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from escsr.engines.engine import BackendChoice, EngineOptions, Floats
from escsr.engines.opening import OpenedNetwork, open_any_network
from escsr.engines.self_ensemble import run_eight_ways
from escsr.errors import ConfigurationError
from escsr.evaluation.protocol import Enlarge
from escsr.images.resize import resize_bicubic_uint8

if TYPE_CHECKING:
    from torch import nn

BICUBIC = "bicubic"
"""The word for MATLAB's bicubic enlargement, the baseline of every table."""

Padding = Literal["window", "none"]
"""``window``: the LR image is extended to whole windows, as by the official tester of ESC.
``none``: it is given as it is."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of a table: a network, and what is known of it."""

    label: str
    """Its name in tables; no two contenders share one."""
    source: str
    """What was asked for: a name, a path, ``module:callable``."""
    network: OpenedNetwork | Enlarge
    """What is judged; what is no network is run as it is."""
    scale: int
    """Upscaling factor per side."""
    architecture: str

    @property
    def has_backends(self) -> bool:
        """Whether it runs with one of our back-ends; other networks run as they are."""
        return self._opened is not None and self._opened.config is not None

    @property
    def parameters(self) -> int:
        """How many there are; 0 where it is no network."""
        return 0 if self._opened is None else self._opened.parameters

    @cached_property
    def sha256(self) -> str | None:
        """Of the file of weights, byte for byte; None where there is none."""
        return None if self._opened is None else self._opened.sha256

    @property
    def licence(self) -> str | None:
        """Of the weights, where it is known."""
        return None if self._opened is None else self._opened.licence

    @cached_property
    def module(self) -> "nn.Module":
        """The network as a module of torch's, in eval mode, float32, on the CPU.

        Raises:
            ConfigurationError: it is no network.
            MissingExtraError: torch is not installed.
        """
        if self._opened is None:
            raise ConfigurationError(f"{self.label} is no network, and has no module.")
        return self._opened.as_module()

    def prepared(
        self,
        *,
        padding: Padding,
        self_ensemble: bool,
        device: str,
        backend: BackendChoice = "auto",
    ) -> Enlarge:
        """The network as the protocol runs it, on a device, in float32.

        Every flip of a self-ensemble is padded by itself, as the image would be. Bicubic stays the
        baseline that it is.

        Args:
            padding: how LR images are extended.
            self_ensemble: whether to ask for eight flips and rotations.
            device: where to run.
            backend: how to run an ESC.
        Raises:
            ConfigurationError: the back-end cannot run here.
        """
        if not isinstance(self.network, OpenedNetwork):
            return self.network
        options = EngineOptions(
            device=device,
            # The reference leaves networks that are no ESC as they are.
            backend=backend if self.has_backends else "reference",
            precision="float32",
            padding=padding if self.has_backends else "none",
        )
        engine = self.network.engine(options)
        return partial(run_eight_ways, engine) if self_ensemble else engine.run

    def padding_multiple(self, padding: Padding) -> int:
        """The multiple that the LR image is extended to, in pixels; 1 means that it is not.

        An ESC's is its window, where that is wished; other networks do what they need.
        """
        if self._opened is None:
            return 1
        if padding == "window" and self._opened.config is not None:
            return self._opened.config.window_pixels
        return self._opened.size_multiple

    @property
    def _opened(self) -> OpenedNetwork | None:
        return self.network if isinstance(self.network, OpenedNetwork) else None


@dataclass(frozen=True)
class MatlabBicubic:
    """MATLAB's ``imresize`` with its default kernel, on 8-bit pixels."""

    scale: int
    """Factor per side."""

    def __call__(self, lr_image: Floats) -> Floats:
        """(B, 3, H, W), every value k/255 -> (B, 3, scale*H, scale*W), every value k/255."""
        pixels = np.rint(lr_image * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        larger = np.stack([resize_bicubic_uint8(image, scale=self.scale) for image in pixels])
        return np.ascontiguousarray(larger.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(
            255
        )


def open_contender(source: str, *, scale: int | None = None) -> Contender:
    """Load what a row of the table is about.

    Args:
        source: ``bicubic``; the name of a pretrained network; the path of a checkpoint of ours or
            of the reference; any other file that spandrel reads; or ``module:callable``.
        scale: upscaling factor per side; None means the network's own.
    Raises:
        UnknownModelError, CheckpointError, MissingExtraError: it cannot be loaded.
        ConfigurationError: the scale is not the network's, or bicubic without one; or the
            callable is none.
    """
    if source.strip().lower() == BICUBIC:
        return _bicubic(source, scale)
    network = open_any_network(source, scale=scale)
    path = Path(source).expanduser()
    # Path.is_file raises for very long names.
    is_our_file = network.config is not None and os.path.isfile(path)  # noqa: PTH113
    return Contender(
        label=path.stem if is_our_file else network.label,
        source=source,
        network=network,
        scale=network.scale,
        architecture=network.architecture,
    )


def distinguished(contenders: Sequence[Contender]) -> list[Contender]:
    """Give contenders of one label their whole source as label, and a number where that is one."""
    labels = Counter(contender.label for contender in contenders)
    sources = Counter(contender.source for contender in contenders)
    result: list[Contender] = []
    for position, contender in enumerate(contenders, start=1):
        label = contender.label
        if labels[label] > 1:
            label = contender.source
            if sources[contender.source] > 1:
                label = f"{contender.source} #{position}"
        result.append(replace(contender, label=label))
    return result


def _bicubic(source: str, scale: int | None) -> Contender:
    if scale is None:
        raise ConfigurationError("bicubic has any scale; say which with scale (-s 2, 3 or 4).")
    return Contender(
        label=BICUBIC,
        source=source,
        network=MatlabBicubic(scale),
        scale=scale,
        architecture="MATLAB imresize",
    )
