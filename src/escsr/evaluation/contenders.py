"""What stands in a table: ours, the reference's, foreign networks, and bicubic enlargement."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from escsr.engines.eager import engine_of_module
from escsr.engines.engine import BackendChoice, Engine, EngineOptions
from escsr.errors import CheckpointError, ConfigurationError, EscsrError
from escsr.images.resize import resize_bicubic_uint8
from escsr.model.network import ESC, count_parameters
from escsr.rivals.rivals import Rival, load_rival
from escsr.rivals.size_padding import SizePadded
from escsr.shapes import ImageBatch
from escsr.weights import BundledModel, bundled_models, find_weights, load_model
from escsr.weights.checkpoint import open_checkpoint
from escsr.weights.checkpoint_file import holds_tensors, is_of_another_kind
from escsr.weights.inspection import variant_name
from escsr.weights.loading import is_module_callable

BICUBIC = "bicubic"
"""The word for MATLAB's bicubic enlargement, the baseline of every table."""

Padding = Literal["window", "none"]
"""``window``: the LR image is extended to whole windows, as by the official tester of ESC.
``none``: it is given as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One row of a table: a network, and what is known of it."""

    label: str
    """Its name in tables; no two contenders share one."""
    source: str
    """What was asked for: a name, a path, ``module:callable``."""
    network: nn.Module
    """(B, 3, H, W) in [0, 1] -> (B, 3, scale*H, scale*W), in eval mode, float32, on the CPU."""
    scale: int
    """Upscaling factor per side."""
    architecture: str
    window_size: int | None = None
    """In LR pixels, where it is a network whose official tester pads to windows."""
    size_multiple: int = 1
    """Sides of LR images are extended to multiples of this many pixels in any case, since the
    network needs it."""
    parameters: int = 0
    sha256: str | None = None
    """Of the file of weights, byte for byte; None where there is none."""
    licence: str | None = None
    """Of the weights, where it is known."""

    @property
    def has_backends(self) -> bool:
        """Whether it runs with one of our back-ends; other networks run as they are."""
        return isinstance(self.network, ESC)

    def prepared(
        self,
        *,
        padding: Padding,
        self_ensemble: bool,
        device: torch.device,
        backend: BackendChoice = "auto",
    ) -> nn.Module:
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
        if self.has_backends:
            network = _Running(
                engine_of_module(
                    self.network,
                    scale=self.scale,
                    options=EngineOptions(device=str(device), backend=backend),
                )
            )
        else:
            network = self.network.to(device)
        padded = SizePadded(network, scale=self.scale, multiple=self.padding_multiple(padding))
        if self_ensemble and not isinstance(self.network, MatlabBicubic):
            return SelfEnsemble(padded).eval()
        return padded.eval()

    def padding_multiple(self, padding: Padding) -> int:
        """The multiple that the LR image is extended to, in pixels; 1 means that it is not."""
        return self.window_size if padding == "window" and self.window_size else self.size_multiple


class _Running(nn.Module):
    """A network of ours with a back-end, in float32."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W) in [0, 1] -> (B, 3, scale*H, scale*W) float32."""
        return torch.from_numpy(self._engine.run(lr_image.cpu().numpy()))


class SelfEnsemble(nn.Module):
    """A network asked eight times, about each flip and rotation of the image, and averaged.

    A little better and eight times slower. The result turns and flips with the image, whatever the
    network does.

    Args:
        network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
    Source: Timofte et al., "Seven ways to improve example-based single image super resolution",
    CVPR 2016; the "+" behind the names of models in the field's tables.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W), not clamped."""
        results = [
            _undone(self.network(_turned(lr_image, turns, mirrored)), turns, mirrored)
            for turns in range(4)
            for mirrored in (False, True)
        ]
        return torch.stack(results).mean(dim=0)


def _turned(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    turned = torch.rot90(image, turns, dims=(-2, -1))
    return (turned.flip(-1) if mirrored else turned).contiguous()


def _undone(image: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(image.flip(-1) if mirrored else image, -turns, dims=(-2, -1))


class MatlabBicubic(nn.Module):
    """MATLAB's ``imresize`` with its default kernel, on 8-bit pixels.

    Args:
        scale: factor per side.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W), every value k/255 -> (B, 3, scale*H, scale*W), every value k/255."""
        pixels = (lr_image * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        larger = np.stack([resize_bicubic_uint8(image, scale=self.scale) for image in pixels])
        return torch.from_numpy(larger).permute(0, 3, 1, 2).to(lr_image) / 255


def open_contender(source: str, *, scale: int | None = None) -> Contender:
    """Load what a row of the table is about.

    Args:
        source: ``bicubic``; a name in the box; the path of a checkpoint of ours or of the
            reference; any other file that spandrel reads; or ``module:callable``.
        scale: upscaling factor per side; None means the network's own.
    Raises:
        UnknownModelError, CheckpointError, MissingExtraError: it cannot be loaded.
        ConfigurationError: the scale is not the network's, or bicubic without one; or the
            callable is none.
    """
    if source.strip().lower() == BICUBIC:
        return _bicubic(source, scale)
    if is_module_callable(source):
        return _of_rival(load_rival(source), source, scale)
    path = Path(source).expanduser()
    # Path.is_file raises for very long names.
    is_file = os.path.isfile(path)  # noqa: PTH113
    rival = _foreign(path) if is_file else None
    return _of_ours(source, scale) if rival is None else _of_rival(rival, source, scale)


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
        network=MatlabBicubic(scale).eval(),
        scale=scale,
        architecture="MATLAB imresize",
    )


def _foreign(path: Path) -> Rival | None:
    """The network in a file that is no ESC; None where it is one."""
    try:
        open_checkpoint(path)
    except CheckpointError as error:
        if holds_tensors(path):
            return load_rival(path)
        if not is_of_another_kind(error):
            raise  # a damaged file is for no reader
        try:
            # spandrel reads kinds of files that we do not, such as TorchScript.
            return load_rival(path)
        except EscsrError:
            raise error from None
    return None


def _of_ours(source: str, scale: int | None) -> Contender:
    network = load_model(source, scale=scale)
    path = find_weights(source, scale=scale)
    bundled = _in_box(source, path)
    header = bundled.header if bundled is not None else open_checkpoint(path).header
    return Contender(
        label=bundled.name if bundled is not None else path.stem,
        source=source,
        network=network,
        scale=network.scale,
        architecture=variant_name(network.config) or "ESC",
        window_size=network.config.window_pixels,
        parameters=count_parameters(network),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=header.provenance.licence if header is not None else None,
    )


def _in_box(source: str, path: Path) -> BundledModel | None:
    """The model whose name in the box stands for a file; None where the path itself was given."""
    if path == Path(source).expanduser():
        return None
    return next(model for model in bundled_models() if model.path == path)


def _of_rival(rival: Rival, source: str, scale: int | None) -> Contender:
    if scale is not None and scale != rival.scale:
        raise ConfigurationError(
            f"{source} is a x{rival.scale} network, and x{scale} was asked for. Judge it with "
            f"scale {rival.scale}, or leave it out."
        )
    return Contender(
        label=rival.name,
        source=source,
        network=rival.network,
        scale=rival.scale,
        architecture=rival.architecture,
        parameters=rival.parameters,
        sha256=rival.sha256,
        size_multiple=rival.size_multiple,
        licence=rival.licence,
    )
