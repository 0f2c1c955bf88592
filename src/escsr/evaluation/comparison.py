"""Several networks on several test sets: everything a report tells."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from escsr.errors import ConfigurationError, EscsrError
from escsr.evaluation.contenders import (
    BICUBIC,
    Contender,
    Padding,
    distinguished,
    open_contender,
)
from escsr.evaluation.crops import CropGallery
from escsr.evaluation.metrics import FIDELITY_METRICS, Metric
from escsr.evaluation.protocol import measure_quality, read_pair, upscale_rounded
from escsr.evaluation.test_sets import TestPair, TestSet, find_test_set, names_of_test_sets
from escsr.shapes import ImageBatch

logger = logging.getLogger("escsr")


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The figures of one result."""

    model: str
    """Label of the contender."""
    test_set: str
    image: str
    values: Mapping[str, float]
    """By key of the metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What could not be judged, and why; None stands for all of that kind."""

    model: str | None = None
    test_set: str | None = None
    image: str | None = None
    error: str

    def __str__(self) -> str:
        """One line: what, and why."""
        place = ", ".join(filter(None, (self.model, self.test_set, self.image)))
        return self.error if self.error.startswith(place) else f"{place}: {self.error}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """How networks are run and judged."""

    scale: int
    padding: Padding = "window"
    self_ensemble: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    metrics: Sequence[Metric] = FIDELITY_METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrants:
    """What is compared on what, as far as it could be loaded."""

    contenders: Sequence[Contender]
    test_sets: Sequence[TestSet]
    failures: Sequence[Failure]
    scale: int

    @property
    def num_results(self) -> int:
        """How many images are to be made."""
        return len(self.contenders) * sum(len(test_set.pairs) for test_set in self.test_sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What came of it."""

    conditions: Conditions
    contenders: Sequence[Contender]
    test_sets: Sequence[TestSet]
    scores: Sequence[Score]
    failures: Sequence[Failure]

    def scores_of(self, model: str, test_set: str) -> list[Score]:
        """Of one contender on one test set, by image; empty where every image failed."""
        return [s for s in self.scores if (s.model, s.test_set) == (model, test_set)]

    def mean(self, model: str, test_set: str, metric: Metric) -> float | None:
        """Over the images of a test set that could be judged; None where none could."""
        values = [score.values[metric.key] for score in self.scores_of(model, test_set)]
        return sum(values) / len(values) if values else None


def enter(models: Sequence[str], folders: Sequence[Path], *, scale: int | None) -> Entrants:
    """Load networks and find test sets; what cannot be is named and left out.

    Args:
        models: sources, as for ``open_contender``.
        folders: of test sets; one that is given twice counts once.
        scale: None means that of the first network with a scale of its own.
    Raises:
        EscsrError: nothing is left to compare; the first reason.
    """
    opened, model_failures, scale = _opened_models(models, scale)
    different = list({path.expanduser().resolve(): path for path in folders}.values())
    test_sets: list[TestSet] = []
    set_failures: list[Failure] = []
    for folder, name in zip(different, names_of_test_sets(different), strict=True):
        try:
            test_sets.append(find_test_set(folder.expanduser(), scale=scale, name=name))
        except (EscsrError, OSError) as error:
            if len(different) == 1:
                raise
            set_failures.append(Failure(test_set=name, error=str(error)))
    if not test_sets:
        raise ConfigurationError("; ".join(str(failure) for failure in set_failures))
    return Entrants(
        contenders=distinguished(opened),
        test_sets=test_sets,
        failures=[*model_failures, *set_failures],
        scale=scale,
    )


def compare(
    entrants: Entrants,
    conditions: Conditions,
    *,
    gallery: CropGallery | None = None,
    on_result: Callable[[str, str, str], None] = lambda *_: None,
) -> Comparison:
    """Judge every contender on every image; one that fails does not stop the others.

    Images are the outer loop, so that the results of one image can be compared pixel by pixel.

    Args:
        entrants: from ``enter``.
        conditions: how to run and judge.
        gallery: is shown all results of each image.
        on_result: called with contender, test set and image after each result, failed or not.
    """
    scores: list[Score] = []
    failures = list(entrants.failures)
    with _true_float32():
        networks = _prepared(entrants.contenders, conditions)
        for test_set, pair in _all_pairs(entrants.test_sets):
            judge = _ImageJudge(test_set, pair, conditions)
            judge.run(networks, on_result)
            scores += judge.scores
            failures += judge.failures
            if gallery is not None:
                judge.show(gallery)
    return Comparison(
        conditions=conditions,
        contenders=entrants.contenders,
        test_sets=entrants.test_sets,
        scores=scores,
        failures=failures,
    )


def _prepared(contenders: Sequence[Contender], conditions: Conditions) -> dict[str, nn.Module]:
    return {
        contender.label: contender.prepared(
            padding=conditions.padding,
            self_ensemble=conditions.self_ensemble,
            device=conditions.device,
        )
        for contender in contenders
    }


class _ImageJudge:
    """Runs all networks on one image, and keeps what came of it."""

    def __init__(self, test_set: TestSet, pair: TestPair, conditions: Conditions) -> None:
        self.scores: list[Score] = []
        self.failures: list[Failure] = []
        self._results: dict[str, ImageBatch] = {}
        self._images: tuple[ImageBatch, ImageBatch] | None = None
        self._test_set = test_set.name
        self._pair = pair
        self._conditions = conditions

    def run(
        self, networks: Mapping[str, nn.Module], on_result: Callable[[str, str, str], None]
    ) -> None:
        """Judge each network by label; an image that cannot be read fails once for all."""
        try:
            self._images = read_pair(self._pair, scale=self._conditions.scale)
        except (EscsrError, OSError) as error:
            self._fail(None, error)
        for label, network in networks.items():
            if self._images is not None:
                self._judge(label, network, *self._images)
            on_result(label, self._test_set, self._pair.name)

    def show(self, gallery: CropGallery) -> None:
        """Offer all results to a gallery."""
        if self._images is not None:
            lr_image, hr_image = self._images
            gallery.offer(
                self._test_set,
                self._pair.name,
                lr_image=lr_image,
                hr_image=hr_image,
                results=self._results,
            )

    def _judge(
        self, label: str, network: nn.Module, lr_image: ImageBatch, hr_image: ImageBatch
    ) -> None:
        scale, device = self._conditions.scale, self._conditions.device
        try:
            sr_image = upscale_rounded(network, lr_image.to(device), scale=scale)
            values = measure_quality(
                sr_image, hr_image, scale=scale, metrics=self._conditions.metrics
            )
        except Exception as error:  # a foreign network can fail in any way
            self._fail(label, error)
            return
        self._results[label] = sr_image
        self.scores.append(
            Score(model=label, test_set=self._test_set, image=self._pair.name, values=values)
        )

    def _fail(self, label: str | None, error: Exception) -> None:
        failure = Failure(
            model=label, test_set=self._test_set, image=self._pair.name, error=_told(error)
        )
        logger.info("failed: %s", failure, exc_info=not isinstance(error, EscsrError))
        self.failures.append(failure)


def _opened_models(
    models: Sequence[str], scale: int | None
) -> tuple[list[Contender], list[Failure], int]:
    """Open models in the order given, bicubic last, since it takes the scale of the others."""
    opened: dict[int, Contender] = {}
    failures: list[Failure] = []
    first_error: EscsrError | None = None
    has_own_scale_first = sorted(
        enumerate(models), key=lambda entry: entry[1].strip().lower() == BICUBIC
    )
    for position, source in has_own_scale_first:
        try:
            opened[position] = open_contender(source, scale=scale)
            scale = opened[position].scale
        except EscsrError as error:
            first_error = first_error or error
            failures.append(Failure(model=source, error=str(error)))
    if not opened or scale is None:
        raise first_error or ConfigurationError("No model was named; give at least one.")
    return [opened[position] for position in sorted(opened)], failures, scale


def _all_pairs(test_sets: Sequence[TestSet]) -> Iterator[tuple[TestSet, TestPair]]:
    for test_set in test_sets:
        for pair in test_set.pairs:
            yield test_set, pair


@contextmanager
def _true_float32() -> Iterator[None]:
    """Without TF32, which cuDNN takes for convolutions unless told otherwise."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _told(error: Exception) -> str:
    if isinstance(error, EscsrError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
