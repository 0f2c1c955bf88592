"""Run an analysis: every question that was asked, of one network after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from escsr.analysis.kernels import (
    DynamicKernels,
    LargeKernels,
    dynamic_kernels,
    large_kernels,
)
from escsr.analysis.pictures import Patch, Picture
from escsr.analysis.reach import (
    LocalAttribution,
    ReceptiveField,
    local_attribution,
    receptive_field,
)
from escsr.analysis.records import DEFAULT_STEPS, PARTS, Part, Skipped
from escsr.analysis.similarity import Similarity, attention_similarity, feature_similarity
from escsr.analysis.spectrum import Spectra, spectra
from escsr.engines.devices import is_out_of_memory, release_cached_memory
from escsr.evaluation.contenders import Contender

Found = TypeVar("Found")

OnPass = Callable[[str, Part], None]
"""Called with the label of a network and the question after each pass through the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is asked, and how."""

    device: torch.device
    patch: Patch
    """Of the first picture, in pixels of its part that is looked at."""
    parts: tuple[Part, ...] = PARTS
    steps: int = DEFAULT_STEPS
    """Of the path of the local attribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was found about one network; None where it was not asked."""

    contender: Contender
    features: Similarity | Skipped | None = None
    attention: Similarity | Skipped | None = None
    field: ReceptiveField | Skipped | None = None
    attribution: LocalAttribution | Skipped | None = None
    large_kernel: LargeKernels | Skipped | None = None
    dynamic_kernel: DynamicKernels | Skipped | None = None
    spectrum: Spectra | Skipped | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What was asked, of which images, and what was found."""

    settings: Settings
    crop_pixels: int
    """Longest side of the part of each image that was looked at."""
    pictures: list[Picture]
    findings: list[Findings]

    def found(self, field: str, kind: type[Found]) -> list[tuple[str, Found]]:
        """The label and the answer of every network that has one, not a reason for none.

        Args:
            field: of ``Findings``.
            kind: what an answer is.
        """
        answers = ((each.contender.label, getattr(each, field)) for each in self.findings)
        return [(label, given) for label, given in answers if isinstance(given, kind)]


def analyse(
    contenders: Sequence[Contender],
    pictures: Sequence[Picture],
    settings: Settings,
    *,
    crop_pixels: int,
    on_pass: OnPass = lambda label, part: None,
) -> Analysis:
    """Ask everything of every network.

    Args:
        contenders: from ``evaluation.contenders.open_contender``; their networks are moved to the
            device one at a time, and lose the gradients of their parameters.
        pictures: the images, at least one; the attribution is of the first.
        settings: what is asked.
        crop_pixels: what the pictures were read with.
        on_pass: called after every pass, ``num_passes`` times at most.
    """
    findings: list[Findings] = []
    for contender in contenders:
        contender.module.to(settings.device).requires_grad_(False)
        findings.append(_findings_of(contender, pictures, settings, on_pass))
        contender.module.cpu()
        release_cached_memory(settings.device)
    return Analysis(
        settings=settings,
        crop_pixels=crop_pixels,
        pictures=list(pictures),
        findings=findings,
    )


def num_passes(settings: Settings, *, contenders: int, pictures: int) -> int:
    """How many passes through networks an analysis makes, where nothing is skipped."""
    per_part: dict[Part, int] = {
        "similarity": 2 * pictures,
        "receptive-field": pictures,
        "attribution": settings.steps + 1,
        "kernels": pictures,
        "spectrum": pictures,
    }
    return contenders * sum(per_part[part] for part in settings.parts)


def _findings_of(
    contender: Contender, pictures: Sequence[Picture], settings: Settings, on_pass: OnPass
) -> Findings:
    network, parts = contender.module, settings.parts
    images = [picture.image.to(settings.device) for picture in pictures]
    names = [picture.name for picture in pictures]

    def passing(part: Part) -> Callable[[], None]:
        return lambda: on_pass(contender.label, part)

    alike, reach, kernels = (passing(part) for part in ("similarity", "receptive-field", "kernels"))
    return Findings(
        contender=contender,
        features=_asked("similarity", parts, lambda: feature_similarity(network, images, alike)),
        attention=_asked("similarity", parts, lambda: attention_similarity(network, images, alike)),
        field=_asked("receptive-field", parts, lambda: receptive_field(network, images, reach)),
        attribution=_asked(
            "attribution",
            parts,
            lambda: local_attribution(
                network,
                images[0],
                settings.patch,
                steps=settings.steps,
                on_step=passing("attribution"),
            ),
        ),
        large_kernel=_asked("kernels", parts, lambda: large_kernels(network)),
        dynamic_kernel=_asked(
            "kernels", parts, lambda: dynamic_kernels(network, images, names, kernels)
        ),
        spectrum=_asked("spectrum", parts, lambda: spectra(network, images, passing("spectrum"))),
    )


def _asked(part: Part, parts: Sequence[Part], find: Callable[[], Found]) -> Found | Skipped | None:
    """The answer, where the question was asked; what a network cannot do is skipped."""
    if part not in parts:
        return None
    try:
        return find()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return Skipped("memory ran out; choose a smaller --crop.")
        first_line = (str(error).strip().splitlines() or ["no message"])[0][:200].rstrip(".")
        return Skipped(f"the network failed with {type(error).__name__}: {first_line}.")
