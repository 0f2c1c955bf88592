"""Several networks on several test sets: who takes part, and the judging of all."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import ConfigurationError, EscsrError
from escsr.evaluation.contenders import BICUBIC, Contender, distinguished, open_contender
from escsr.evaluation.crops import CropGallery
from escsr.evaluation.judging import (
    ImageJudge,
    OnResult,
    SetJudge,
    judge_images,
)
from escsr.evaluation.protocol import Enlarge
from escsr.evaluation.records import Comparison, Conditions, Failure
from escsr.evaluation.test_sets import TestSet, find_test_set, names_of_test_sets
from escsr.machine import usable_cores


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrants:
    """What is compared on what, as far as it could be loaded."""

    contenders: Sequence[Contender]
    test_sets: Sequence[TestSet]
    failures: Sequence[Failure]
    scale: int

    def num_results(self, conditions: Conditions) -> int:
        """How many images are to be made, and figures of whole test sets."""
        sets = (len(s.pairs) + len(conditions.set_metrics) for s in self.test_sets)
        return len(self.contenders) * sum(sets)


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
    on_result: OnResult = lambda *_: None,
) -> Comparison:
    """Judge every contender on every image; one that fails does not stop the others.

    Within a test set, images are the outer loop, so that their results can be compared by pixels.

    Args:
        entrants: from ``enter``.
        conditions: how to run and judge.
        gallery: is shown all results of each image.
        on_result: see ``OnResult``; ``Entrants.num_results`` says how often it is called.
    """
    judges: list[ImageJudge] = []
    set_judges: list[SetJudge] = []
    with _true_float32(), ThreadPoolExecutor(usable_cores()) as workers:
        networks = _prepared(entrants.contenders, conditions)
        for test_set in entrants.test_sets:
            with SetJudge(test_set, conditions.set_metrics) as set_judge:
                for judge in judge_images(
                    test_set, networks, conditions, workers=workers, on_result=on_result
                ):
                    judge.hand_to(set_judge)
                    judge.show(gallery)
                    judges.append(judge)
                set_judge.run(list(networks), on_result)
            set_judges.append(set_judge)
    failures = [failure for judge in (*judges, *set_judges) for failure in judge.failures]
    return Comparison(
        conditions=conditions,
        contenders=entrants.contenders,
        test_sets=entrants.test_sets,
        scores=[score for judge in judges for score in judge.scores],
        set_scores=[score for judge in set_judges for score in judge.scores],
        failures=[*entrants.failures, *failures],
    )


def _prepared(contenders: Sequence[Contender], conditions: Conditions) -> dict[str, Enlarge]:
    return {
        contender.label: contender.prepared(
            padding=conditions.padding,
            self_ensemble=conditions.self_ensemble,
            device=conditions.device,
            backend=conditions.backend,
        )
        for contender in contenders
    }


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


@contextmanager
def _true_float32() -> Iterator[None]:
    """Without TF32, which cuDNN takes for convolutions unless told otherwise."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
