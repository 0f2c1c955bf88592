"""From a subject to something that runs, inside the process that measures it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from escsr.engines.eager import TorchEngine, engine_of_module
from escsr.engines.engine import AttentionChoice, Backend, EngineOptions, PrecisionChoice
from escsr.engines.published import as_published
from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.measuring import Floor, count_products, floor_of_network
from escsr.evaluation.benchmark.record import Conditions, Portrait, Quality
from escsr.evaluation.benchmark.subject import Subject
from escsr.family.variants import VARIANTS, variant
from escsr.model.network import ESC
from escsr.rivals.published import PUBLISHED_RIVALS, build_rival, is_rival_name
from escsr.rivals.rivals import Rival, load_rival
from escsr.shapes import ImageBatch
from escsr.weights import bundled_models, load_model
from escsr.weights.loading import normalised_name

_ENGINE_OF_MODE: dict[str, Backend] = {
    "eager": "reference",
    "channels-last": "eager",
    "compiled": "reference",
}
"""The back-end that runs a rival: it leaves foreign networks as they are, and differs in how pixels
lie in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runnable:
    """A network that is ready."""

    run: Callable[[ImageBatch], object]
    portrait: Portrait


def load_subject(subject: Subject, conditions: Conditions) -> Runnable:
    """Load a network.

    Raises:
        EscsrError: it cannot be loaded, or cannot run here.
    """
    return _ours(subject, conditions) if subject.kind == "ours" else _rival(subject, conditions)


def load_floor(subject: Subject, conditions: Conditions) -> Floor:
    """Load a network of ours, and say what it computes."""
    network, _ = open_ours(subject.source, conditions.scale)
    return floor_of_network(
        network,
        conditions.lr_height,
        conditions.lr_width,
        large_kernel_macs_per_pixel=subject.large_kernel_macs,
    )


def open_ours(source: str, scale: int) -> tuple[ESC, bool]:
    """A network of ours, and whether its weights are random.

    A variant without weights in the box gets random ones, always the same.

    Args:
        source: a variant, a name in the box, or the path of a checkpoint.
        scale: upscaling factor per side.
    Raises:
        UnknownModelError, CheckpointError, ConfigurationError: as ``load_model``.
    """
    name = normalised_name(source)
    in_box = {(model.name, model.scale) for model in bundled_models()}
    if name not in VARIANTS or (name, scale) in in_box:
        return load_model(source, scale=scale), False
    torch.manual_seed(0)
    return ESC(variant(name, scale=scale)).eval(), True


def _ours(subject: Subject, conditions: Conditions) -> Runnable:
    network, is_random = open_ours(subject.source, conditions.scale)
    portrait = Portrait(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=count_products(as_published(network), conditions.lr_height, conditions.lr_width),
        quality=_quality_of_ours(subject.source, conditions.scale, is_random=is_random),
        random_weights=is_random,
    )
    run = _engine(
        network,
        conditions,
        backend=cast("Backend", subject.mode),
        attention=cast("AttentionChoice | None", subject.attention),
    )
    return Runnable(run=run, portrait=portrait)


def _rival(subject: Subject, conditions: Conditions) -> Runnable:
    rival = _open_rival(subject.source, conditions)
    # A file may have the same name, and holds whatever weights it likes.
    is_by_name = is_rival_name(subject.source)
    notes: list[str] = []
    if is_by_name and not PUBLISHED_RIVALS[rival.name].thousands:
        notes.append("its number of parameters is not checked against its paper")
    portrait = Portrait(
        parameters=rival.parameters,
        macs=count_products(rival.network, conditions.lr_height, conditions.lr_width),
        quality=published_quality(rival.name, conditions.scale) if is_by_name else None,
        random_weights=is_by_name,
        notes=tuple(notes),
    )
    network = Compiled(rival.network) if subject.mode == "compiled" else rival.network
    run = _engine(network, conditions, backend=_ENGINE_OF_MODE[subject.mode])
    return Runnable(run=run, portrait=portrait)


def _open_rival(source: str, conditions: Conditions) -> Rival:
    if is_rival_name(source):
        return build_rival(
            source,
            scale=conditions.scale,
            height=conditions.lr_height,
            width=conditions.lr_width,
        )
    rival = load_rival(source)
    if rival.scale != conditions.scale:
        raise ConfigurationError(
            f"{source} is a x{rival.scale} network, and x{conditions.scale} is measured. Leave it "
            f"out, or measure with -s {rival.scale}."
        )
    return rival


class Compiled(nn.Module):
    """A foreign network by ``torch.compile``, for one size of image, with weights that stay.

    It is compiled at the first call, after it has been copied and moved; on CUDA into a graph.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._compiled: Callable[[ImageBatch], ImageBatch] | None = None

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """(B, 3, H, W) -> (B, 3, scale*H, scale*W)."""
        if self._compiled is None:
            # Each is what helps there, and neither works on the other.
            options: dict[str, Any] = {
                "triton.cudagraphs" if lr_image.is_cuda else "freezing": True
            }
            compiled = torch.compile(self.network.forward, dynamic=False, options=options)
            self._compiled = cast("Callable[[ImageBatch], ImageBatch]", compiled)
        return self._compiled(lr_image)


def _engine(
    network: nn.Module,
    conditions: Conditions,
    *,
    backend: Backend,
    attention: AttentionChoice | None = None,
) -> Callable[[ImageBatch], object]:
    """All subjects go the same way: through the engine, with its check for NaN."""
    options = EngineOptions(
        device=conditions.device,
        backend=backend,
        attention=attention,
        precision=cast("PrecisionChoice", conditions.precision),
    )
    engine = engine_of_module(network, scale=conditions.scale, options=options)
    precision = engine.choose_precision(eight_bit=True)
    if isinstance(engine, TorchEngine):
        return lambda lr_image: engine.forward(lr_image, precision)
    return lambda lr_image: engine.run(lr_image.cpu().numpy(), precision)


def _quality_of_ours(source: str, scale: int, *, is_random: bool) -> Quality | None:
    name = normalised_name(source)
    if is_random:
        return published_quality(name, scale)
    model = next((m for m in bundled_models() if (m.name, m.scale) == (name, scale)), None)
    if model is None:
        return None
    ending = " PSNR-Y dB"
    figures = {
        key.removesuffix(ending): value
        for key, value in model.header.provenance.quality.items()
        if key.endswith(ending)
    }
    return Quality(psnr_db=figures, origin="measured") if figures else None


_SETS: tuple[str, ...] = ("Set5", "Set14", "B100", "Urban100", "Manga109")

_OURS: dict[tuple[str, int], tuple[float, ...]] = {
    ("esc", 2): (38.35, 34.11, 32.41, 33.46, 39.54),
    ("esc", 3): (34.84, 30.74, 29.34, 29.28, 34.66),
    ("esc", 4): (32.68, 28.93, 27.80, 27.07, 31.54),
    ("esc-light", 2): (38.24, 33.98, 32.35, 33.05, 39.33),
    ("esc-light", 4): (32.52, 28.87, 27.72, 26.76, 31.26),
    ("esc-fp", 2): (38.27, 34.09, 32.37, 33.22, 39.40),
    ("esc-fp", 4): (32.56, 28.87, 27.75, 26.90, 31.40),
    ("esc-rib", 4): (32.82, 29.06, 27.87, 27.59, 31.93),
}
"""Source: ESC, arXiv:2503.06671, table 1; ESC-RIB (DFLIP): arXiv:2603.06738."""

_URBAN100: dict[tuple[str, int], float] = {
    ("swinir-light", 4): 26.47,
    ("atd-light", 4): 26.97,
    ("rcan", 4): 26.82,
}
"""Source: ESC, arXiv:2503.06671, table 1."""


def published_quality(name: str, scale: int) -> Quality | None:
    """What is published of a variant or a rival; None where we know of nothing."""
    if (name, scale) in _OURS:
        figures = dict(zip(_SETS, _OURS[name, scale], strict=True))
        return Quality(psnr_db=figures, origin="published")
    if (name, scale) in _URBAN100:
        return Quality(psnr_db={"Urban100": _URBAN100[name, scale]}, origin="published")
    return None
