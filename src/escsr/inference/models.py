"""The networks behind one Upscaler: which factors there are, each loaded when first needed."""

import os
import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn

from escsr.errors import ConfigurationError
from escsr.inference.backends import Backend, BackendChoice, choose_backend
from escsr.inference.devices import choose_device
from escsr.inference.engine import Engine, ImagePadding, require_padding
from escsr.model.attention.backends import FoldedBackend, require_available
from escsr.model.attention.flash_bias import RankRule
from escsr.weights import BundledModel, bundled_models, load_model
from escsr.weights.box import DEFAULT_SCALE
from escsr.weights.loading import normalised_name

ModelSource = str | os.PathLike[str] | nn.Module
"""A name in the box, the path of a checkpoint, or a network."""


class ModelShelf:
    """One model at the factors it comes in; may be used from several threads.

    Args:
        model: a name in the box (all its factors), a checkpoint or a network (its own factor).
        device: where networks run.
        backend: how they run.
        attention_backend: replaces the networks' own choice.
        flash_bias: the rank of "flashbias".
        keep_colours: as for an ``Engine``.
        padding: as for an ``Engine``.
    Raises:
        UnknownModelError, CheckpointError: as ``load_model``.
        ConfigurationError: a module without a factor, an unknown back-end or padding, or a back-end
            that cannot run here.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        device: torch.device,
        backend: BackendChoice = "auto",
        attention_backend: FoldedBackend | None = None,
        flash_bias: RankRule | None = None,
        keep_colours: bool = False,
        padding: ImagePadding = "none",
    ) -> None:
        require_padding(padding)
        self._choice: BackendChoice = backend
        self.backend: Backend = choose_backend(backend, device)
        if attention_backend is not None:
            require_available(attention_backend, device)
        self.device = device
        self._keep_colours = keep_colours
        self._padding: ImagePadding = padding
        self.attention_backend: FoldedBackend | None = attention_backend
        self._flash_bias = flash_bias
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()
        in_box = _in_box(model) if isinstance(model, str) else []
        self.scales = tuple(sorted(entry.scale for entry in in_box))
        self._is_bundled = bool(in_box)
        if isinstance(model, str) and in_box:
            self.name = normalised_name(model)
            self.makes_any_size = in_box[0].header.config.is_arbitrary_scale
            return
        network = model if isinstance(model, nn.Module) else load_model(model)
        scale = _factor_of(network)
        self.scales = (scale,)
        self.name = type(network).__name__ if isinstance(model, nn.Module) else Path(model).name
        self._engines[scale] = self._engine_for(network, scale)
        self.makes_any_size = self._engines[scale].makes_any_size

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs; a bundled model is loaded there by its name."""
        with self._lock:
            state = self.__dict__.copy()
        del state["_lock"]
        return {**state, "_engines": {} if self._is_bundled else dict(self._engines)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over such a state.

        Raises:
            ConfigurationError: the device is not there, or the back-end cannot run here.
        """
        self.__dict__.update(state, _lock=threading.Lock())
        choose_device(self.device)
        self.backend = choose_backend(self._choice, self.device)

    @property
    def keeps_colours(self) -> bool:
        """Whether results are held to the colours of their source."""
        return self._keep_colours

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
            backend=self._choice,
            attention_backend=self.attention_backend,
            flash_bias=self._flash_bias,
            keep_colours=self._keep_colours,
            padding=self._padding,
        )


def _in_box(model: str) -> list[BundledModel]:
    """What the box holds under a name, a network for each factor."""
    name = normalised_name(model)
    return [entry for entry in bundled_models() if entry.name == name]


def _factor_of(network: nn.Module) -> int:
    scale = getattr(network, "scale", None)
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise ConfigurationError(
            f"The module {type(network).__name__} has scale={scale!r}; an upscaler needs a network "
            "whose attribute `scale` is a whole number of 1 or more."
        )
    return scale
