"""One model at the factors it comes in, each network opened when it is first needed."""

import os
import threading
from typing import TYPE_CHECKING, Any

from escsr.engines.core_engine import uses_core
from escsr.engines.devices import choose_device
from escsr.engines.engine import Engine, EngineOptions
from escsr.engines.opening import OpenedNetwork, is_module, open_any_network
from escsr.weights.box import DEFAULT_SCALE, bundled_models
from escsr.weights.loading import normalised_name

if TYPE_CHECKING:
    from torch import nn


class ModelPool:
    """The networks behind one Upscaler; may be used from several threads.

    Args:
        model: a name of pretrained networks (all their factors), or anything else that
            ``open_any_network`` opens (its own factor).
        options: how the networks run.
    Raises:
        UnknownModelError, CheckpointError, MissingExtraError: as ``open_any_network``.
        ConfigurationError: a module without a factor, or options that cannot be kept here.
    """

    def __init__(self, model: "str | os.PathLike[str] | nn.Module", options: EngineOptions) -> None:
        self.options = options
        self.device = "cpu" if uses_core(options) else choose_device(options.device)
        """Where networks run; one that the core cannot run may be elsewhere than "cpu"."""
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()
        self._bundled_name: str | None = None
        name = normalised_name(model) if isinstance(model, str) else ""
        pretrained = [entry for entry in bundled_models() if entry.name == name]
        if pretrained:
            self._bundled_name = self.name = name
            self.scales = tuple(sorted(entry.scale for entry in pretrained))
            self.makes_any_size = pretrained[0].header.config.is_arbitrary_scale
            return
        opened = open_any_network(model)
        engine = opened.engine(options)
        self.scales, self.name = (opened.scale,), _shown_name(opened)
        self.device, self.makes_any_size = engine.device, engine.makes_any_size
        self._engines[opened.scale] = engine

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs; pretrained networks are opened there by name."""
        with self._lock:
            state = self.__dict__.copy()
        del state["_lock"]
        return {**state, "_engines": {} if self._bundled_name else dict(self._engines)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over such a state.

        Raises:
            ConfigurationError: the device is not there, or the back-end cannot run here.
        """
        self.__dict__.update(state, _lock=threading.Lock())
        choose_device(self.device)
        uses_core(self.options)

    @property
    def default_scale(self) -> int:
        """x4 where there is one, else the largest."""
        return DEFAULT_SCALE if DEFAULT_SCALE in self.scales else max(self.scales)

    def engine(self, scale: int) -> Engine:
        """The engine of one of ``scales``; loads its weights at the first call."""
        with self._lock:
            if scale not in self._engines:
                assert self._bundled_name is not None
                opened = open_any_network(self._bundled_name, scale=scale)
                self._engines[scale] = opened.engine(self.options)
            return self._engines[scale]


def _shown_name(opened: OpenedNetwork) -> str:
    return opened.label if opened.path is None else opened.path.name


__all__ = ["ModelPool", "is_module"]
