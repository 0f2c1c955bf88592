"""One way to open any network: by name, from a file, from code, or a module that is there."""

import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escsr.engines.core_engine import CoreEngine, uses_core
from escsr.engines.engine import Engine, EngineOptions
from escsr.errors import CheckpointError, ConfigurationError, EscsrError, import_torch
from escsr.family.configuration import ESCConfig
from escsr.weights.arrays import Float32Array
from escsr.weights.box import bundled_models
from escsr.weights.checkpoint import Checkpoint, open_checkpoint
from escsr.weights.checkpoint_file import holds_tensors, is_of_another_kind
from escsr.weights.inspection import variant_name
from escsr.weights.loading import is_module_callable, is_path, open_named_checkpoint

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import TypeIs

    from escsr.rivals.rivals import Rival

NetworkSource = "str | os.PathLike[str] | nn.Module"
"""The name of a pretrained network, the path of a file of weights (ours, the reference's, or any
that spandrel reads), ``module:callable``, or a module with a ``scale``."""

logger = logging.getLogger("escsr")


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network, and what is known of it; an engine runs it."""

    label: str
    """For tables and reports: its name, the stem of its file, or its class."""
    scale: int
    """Upscaling factor per side."""
    architecture: str
    """The name of its configuration, or of its class."""
    parameters: int
    config: ESCConfig | None = None
    """Of an ESC."""
    weights: Mapping[str, Float32Array] | None = None
    """Of an ESC that came from a file."""
    module: "nn.Module | None" = None
    """Of any other network."""
    size_multiple: int = 1
    """Sides of LR images are extended to multiples of this many pixels, which the network needs."""
    path: Path | None = None
    """Its file."""
    licence: str | None = None
    """Of the weights, where it is known."""

    @property
    def sha256(self) -> str | None:
        """Of the file of weights, byte for byte; None where there is none."""
        if self.path is None:
            return None
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def as_module(self) -> "nn.Module":
        """The network as a module of torch's, in eval mode, float32, on the CPU.

        Raises:
            MissingExtraError: torch is not installed.
        """
        if self.module is not None:
            return self.module
        import_torch(f"{self.label} as a module")
        from escsr.weights.building import network_of

        assert self.config is not None and self.weights is not None
        return network_of(self.config, self.weights)

    def engine(self, options: EngineOptions | None = None) -> Engine:
        """Prepare to run it.

        Raises:
            ConfigurationError: it cannot run as the options say.
            MissingExtraError: that needs torch, which is not installed.
        """
        options = options or EngineOptions()
        if self.module is None and uses_core(options):
            assert self.config is not None and self.weights is not None
            return CoreEngine(self.config, self.weights, options)
        purpose = f"Running {self.label} with these options"
        import_torch(purpose)
        from escsr.engines.eager import TorchEngine, engine_of_module

        if self.module is not None:
            return engine_of_module(self.module, scale=self.scale, options=options)
        return TorchEngine(self.as_module(), scale=self.scale, options=options)


def open_any_network(
    source: "str | os.PathLike[str] | nn.Module", *, scale: int | None = None
) -> OpenedNetwork:
    """Open a network, whatever kind it is.

    Args:
        source: see ``NetworkSource``.
        scale: upscaling factor per side; None is the network's own (of a name: x4, or its largest).
    Raises:
        UnknownModelError, CheckpointError, MissingExtraError: it cannot be loaded.
        ConfigurationError: the scale is not the network's; or no such module or callable.
    """
    if is_module(source):
        return _of_module(source)
    if isinstance(source, str) and is_module_callable(source):
        import_torch(source)
        from escsr.rivals.rivals import load_rival

        return _of_rival(load_rival(source), source, scale)
    path = Path(source).expanduser() if is_path(source) else None
    # Path.is_file raises for very long names.
    if path is not None and os.path.isfile(path):  # noqa: PTH113
        rival = _rival_in_file(path)
        if rival is not None:
            return _of_rival(rival, path, scale)
    return _of_checkpoint(open_named_checkpoint(source, scale=scale))


def is_module(source: object) -> "TypeIs[nn.Module]":
    """Whether something is a module of torch's, found out without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def _of_checkpoint(checkpoint: Checkpoint) -> OpenedNetwork:
    weights, header = checkpoint.weights(), checkpoint.header
    named = next((m for m in bundled_models() if m.path == checkpoint.path), None)
    return OpenedNetwork(
        label=checkpoint.path.stem if named is None else named.name,
        scale=checkpoint.config.scale,
        architecture=variant_name(checkpoint.config) or "ESC",
        parameters=sum(array.size for array in weights.values()),
        config=checkpoint.config,
        weights=weights,
        path=checkpoint.path,
        licence=None if header is None else header.provenance.licence,
    )


def _of_module(module: "nn.Module") -> OpenedNetwork:
    scale: Any = getattr(module, "scale", None)
    kind = type(module).__name__
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise ConfigurationError(
            f"The module {kind} has scale={scale!r}; an upscaler needs a network "
            "whose attribute `scale` is a whole number of 1 or more."
        )
    parameters = sum(values.numel() for values in module.parameters())
    return OpenedNetwork(
        label=kind, scale=scale, architecture=kind, parameters=parameters, module=module
    )


def _rival_in_file(path: Path) -> "Rival | None":
    """The network in a file that is no ESC; None where it is one."""
    try:
        open_checkpoint(path)
    except CheckpointError as error:
        is_known_kind = holds_tensors(path)
        if not is_known_kind and not is_of_another_kind(error):
            raise  # a damaged file is for no reader
        import_torch(f"{path} is no ESC, and another network")
        from escsr.rivals.rivals import load_rival

        try:
            return load_rival(path)
        except EscsrError:
            if is_known_kind:
                raise
            # spandrel reads kinds of files that we do not, such as TorchScript; not this one.
            raise error from None
    return None


def _of_rival(rival: "Rival", source: str | os.PathLike[str], scale: int | None) -> OpenedNetwork:
    if scale is not None and scale != rival.scale:
        raise ConfigurationError(
            f"{source} is a x{rival.scale} network, and x{scale} was asked for. Use it with "
            f"scale {rival.scale}, or leave the scale out."
        )
    return OpenedNetwork(
        label=rival.name,
        scale=rival.scale,
        architecture=rival.architecture,
        parameters=rival.parameters,
        module=rival.network,
        size_multiple=rival.size_multiple,
        path=Path(source) if rival.sha256 is not None else None,
        licence=rival.licence,
    )
