"""The networks behind one Upscaler: which factors there are, each loaded when first needed."""

import os
import threading
from pathlib import Path

import torch
from torch import nn

from escsr.errors import ConfigurationError
from escsr.inference.engine import Engine, ImagePadding, require_padding
from escsr.model.attention_backends import ATTENTION_BACKENDS, AttentionBackend
from escsr.weights import bundled_models, load_model
from escsr.weights.box import DEFAULT_SCALE
from escsr.weights.loading import normalised_name

ModelSource = str | os.PathLike[str] | nn.Module
"""A name in the box, the path of a checkpoint, or a network."""


class ModelShelf:
    """One model at the factors it comes in; may be used from several threads.

    Args:
        model: a name in the box (all its factors), a checkpoint or a network (its own factor).
        device: where networks run.
        attention_backend: replaces the networks' own choice.
        keep_colours: as for an ``Engine``.
        padding: as for an ``Engine``.
    Raises:
        UnknownModelError, CheckpointError: as ``load_model``.
        ConfigurationError: a module without a factor, or an unknown back-end or padding.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        device: torch.device,
        attention_backend: AttentionBackend | None = None,
        keep_colours: bool = False,
        padding: ImagePadding = "none",
    ) -> None:
        require_padding(padding)
        if attention_backend is not None and attention_backend not in ATTENTION_BACKENDS:
            raise ConfigurationError(
                f"The attention back-end is {attention_backend!r}; allowed are "
                f"{', '.join(ATTENTION_BACKENDS)}."
            )
        self.device = device
        self._keep_colours = keep_colours
        self._padding: ImagePadding = padding
        self.attention_backend: AttentionBackend | None = attention_backend
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()
        self.scales = _in_box(model) if isinstance(model, str) else ()
        if isinstance(model, str) and self.scales:
            self.name = normalised_name(model)
            return
        network = model if isinstance(model, nn.Module) else load_model(model)
        scale = _factor_of(network)
        self.scales = (scale,)
        self.name = type(network).__name__ if isinstance(model, nn.Module) else Path(model).name
        self._engines[scale] = self._engine_for(network, scale)

    @property
    def default_scale(self) -> int:
        """x4 where there is one, else the largest."""
        return DEFAULT_SCALE if DEFAULT_SCALE in self.scales else max(self.scales)

    def engine(self, scale: int) -> Engine:
        """The engine of one of ``scales``; loads its weights at the first call."""
        with self._lock:
            if scale not in self._engines:
                network = load_model(self.name, scale=scale)
                self._engines[scale] = self._engine_for(network, scale)
            return self._engines[scale]

    def _engine_for(self, network: nn.Module, scale: int) -> Engine:
        return Engine(
            network,
            scale=scale,
            device=self.device,
            attention_backend=self.attention_backend,
            keep_colours=self._keep_colours,
            padding=self._padding,
        )


def _in_box(model: str) -> tuple[int, ...]:
    """The factors in which the box holds a name; none if it is no name of the box."""
    name = normalised_name(model)
    return tuple(sorted(m.scale for m in bundled_models() if m.name == name and m.scale > 1))


def _factor_of(network: nn.Module) -> int:
    scale = getattr(network, "scale", None)
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 2:
        raise ConfigurationError(
            f"The module {type(network).__name__} has scale={scale!r}; an upscaler needs a network "
            "whose attribute `scale` is a whole number of 2 or more."
        )
    return scale
