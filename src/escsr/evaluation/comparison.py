"""Several networks on several test sets: who takes part, and the judging of all."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from escsr.engines.core_engine import choose_backend
from escsr.engines.engine import Backend, BackendChoice, Floats
from escsr.errors import ConfigurationError, EscsrError, ImageValueError
from escsr.evaluation.contenders import BICUBIC, Contender, Padding, distinguished, open_contender
from escsr.evaluation.crops import CropGallery
from escsr.evaluation.metrics import FIDELITY_METRICS, Column, Metric, SetMetric
from escsr.evaluation.protocol import Enlarge, read_pair, to_pixels, upscale_rounded
from escsr.evaluation.test_sets import TestPair, TestSet, find_test_set, names_of_test_sets
from escsr.images.writer import write_image
from escsr.machine import usable_cores
from escsr.temporary_files import TemporaryFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The figures of one result."""

    model: str
    """Label of the contender."""
    test_set: str
    image: str
    values: Mapping[str, float]
    """By key of the metric; without those that could not judge the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetScore:
    """A figure of all results of one contender on one test set together."""

    model: str
    """Label of the contender."""
    test_set: str
    metric: str
    """Key of the metric."""
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What could not be judged, and why; None stands for all of that kind."""

    model: str | None = None
    test_set: str | None = None
    image: str | None = None
    metric: str | None = None
    """Title of the one metric that failed."""
    error: str

    def __str__(self) -> str:
        """One line: what, and why."""
        place = ", ".join(filter(None, (self.model, self.test_set, self.image, self.metric)))
        return self.error if self.error.startswith(place) else f"{place}: {self.error}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """How networks are run and judged."""

    scale: int
    padding: Padding = "window"
    self_ensemble: bool = False
    device: str = "cpu"
    backend: BackendChoice = "auto"
    """How networks of ours run."""
    metrics: Sequence[Metric] = FIDELITY_METRICS
    """One figure per image."""
    set_metrics: Sequence[SetMetric] = ()
    """One figure per test set."""

    @property
    def columns(self) -> Sequence[Column]:
        """Of a table."""
        return (*self.metrics, *self.set_metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What came of it."""

    conditions: Conditions
    contenders: Sequence[Contender]
    test_sets: Sequence[TestSet]
    scores: Sequence[Score]
    set_scores: Sequence[SetScore] = ()
    failures: Sequence[Failure]

    def backend_of(self, contender: Contender) -> Backend | None:
        """What a contender ran with; None where it is no network of ours."""
        if not contender.has_backends:
            return None
        return choose_backend(self.conditions.backend, self.conditions.device)

    def scores_of(self, model: str, test_set: str) -> list[Score]:
        """Of one contender on one test set, by image; empty where every image failed."""
        return [s for s in self.scores if (s.model, s.test_set) == (model, test_set)]

    def count(self, model: str, test_set: str, column: Column) -> int:
        """Of how many images the figure is; a set's metric looks at every result there is."""
        scores = self.scores_of(model, test_set)
        if isinstance(column, SetMetric):
            return len(scores)
        return sum(column.key in score.values for score in scores)

    def figure(self, model: str, test_set: str, column: Column) -> float | None:
        """The mean over the images that have the value, or the set's own figure; None without."""
        if isinstance(column, SetMetric):
            place = (model, test_set, column.key)
            found = (s.value for s in self.set_scores if (s.model, s.test_set, s.metric) == place)
            return next(found, None)
        scores = self.scores_of(model, test_set)
        values = [score.values[column.key] for score in scores if column.key in score.values]
        return sum(values) / len(values) if values else None


logger = logging.getLogger("escsr")

OnResult = Callable[[str, str, str], None]
"""Called with contender, test set, and image or metric after each result, failed or not."""

_MOST_IMAGES_WAITING = 2
"""Images whose figures may still be computed while networks work on the next one, on a GPU."""

_MOST_PIXELS_WAITING = 1 << 23
"""An HR image of more pixels is judged to its end before the next is read, to bound memory."""


def judge_images(
    test_set: TestSet,
    networks: Mapping[str, Enlarge],
    conditions: Conditions,
    *,
    workers: Executor,
    on_result: OnResult,
) -> "Iterator[ImageJudge]":
    """Run all networks on one image after the other.

    Workers compute the figures of an image side by side, and read the next one. On a GPU, networks
    go on meanwhile; on a CPU they would be in each other's way, as both take all cores.

    Args:
        test_set: the images.
        networks: by label.
        conditions: how to run and judge.
        workers: threads for figures and for reading.
        on_result: see ``OnResult``.
    Yields:
        The judge of each image once its networks have run. All have their figures at the end.
    """
    judges = [ImageJudge(test_set, pair, conditions) for pair in test_set.pairs]
    most_waiting = 0 if conditions.device == "cpu" else _MOST_IMAGES_WAITING
    waiting: list[ImageJudge] = []
    for judge, following in zip(judges, [*judges[1:], None], strict=True):
        judge.start_reading(workers)
        judge.run(networks, on_result)
        judge.start_measuring(workers)
        is_small = judge.num_pixels <= _MOST_PIXELS_WAITING
        if following is not None and is_small:
            following.start_reading(workers)
        yield judge
        waiting.append(judge)
        while len(waiting) > (most_waiting if is_small and following is not None else 0):
            waiting.pop(0).finish()


class ImageJudge:
    """Runs all networks on one image, and keeps what came of it.

    Call ``start_reading``, ``run``, ``start_measuring`` and ``finish`` in this order.
    """

    def __init__(self, test_set: TestSet, pair: TestPair, conditions: Conditions) -> None:
        self.scores: list[Score] = []
        """Complete after ``finish``."""
        self.failures: list[Failure] = []
        """Complete after ``finish``."""
        self._results: dict[str, Floats] = {}
        self._reading: Future[tuple[Floats, Floats]] | None = None
        self._measuring: dict[str, list[tuple[Metric, Future[float]]]] = {}
        self._test_set = test_set.name
        self._pair = pair
        self._conditions = conditions

    def start_reading(self, workers: Executor) -> None:
        """Let a worker read the image, unless it was told so before."""
        if self._reading is None:
            self._reading = workers.submit(read_pair, self._pair, scale=self._conditions.scale)

    @property
    def num_pixels(self) -> int:
        """Of the HR image; 0 if it cannot be read."""
        images = self._images()
        return 0 if images is None else images[1].shape[2] * images[1].shape[3]

    def run(self, networks: Mapping[str, Enlarge], on_result: OnResult) -> None:
        """Run each network by label; an image that cannot be read fails once for all."""
        images = self._images()
        for label, network in networks.items():
            if images is not None:
                self._run(label, network, images[0])
            on_result(label, self._test_set, self._pair.name)

    def start_measuring(self, workers: Executor) -> None:
        """Let workers compute the figures of all results."""
        images, scale = self._images(), self._conditions.scale
        for label, sr_image in self._results.items():
            assert images is not None, "without an image there are no results"
            self._measuring[label] = [
                (metric, _measure(metric, sr_image, images[1], scale, workers))
                for metric in self._conditions.metrics
            ]

    def finish(self) -> None:
        """Wait for the figures, and let go of the images."""
        for label, measured in self._measuring.items():
            values: dict[str, float] = {}
            for metric, future in measured:
                try:
                    values[metric.key] = future.result()
                except Exception as error:  # a foreign metric can fail in any way
                    self._fail(label, error, metric=metric.title)
            self.scores.append(
                Score(model=label, test_set=self._test_set, image=self._pair.name, values=values)
            )
        self._measuring.clear()
        self._results.clear()
        self._reading = None

    def show(self, gallery: CropGallery | None) -> None:
        """Offer all results to a gallery, if there is one."""
        images = self._images()
        if gallery is not None and images is not None:
            gallery.offer(
                self._test_set,
                self._pair.name,
                lr_image=images[0],
                hr_image=images[1],
                results=self._results,
            )

    def hand_to(self, set_judge: "SetJudge") -> None:
        """Give the truth and all results to what looks at the whole set."""
        images = self._images()
        if images is not None:
            set_judge.store(images[1], self._results)

    def _images(self) -> tuple[Floats, Floats] | None:
        """LR and HR, once a worker has read them; None where it failed, which is named once."""
        assert self._reading is not None, "start_reading comes first"
        try:
            return self._reading.result()
        except Exception as error:  # one bad file ends nothing
            if not self.failures:
                self._fail(None, error)
            return None

    def _run(self, label: str, network: Enlarge, lr_image: Floats) -> None:
        try:
            scale = self._conditions.scale
            self._results[label] = upscale_rounded(network, lr_image, scale=scale)
        except Exception as error:  # a foreign network can fail in any way
            self._fail(label, error)

    def _fail(self, label: str | None, error: Exception, *, metric: str | None = None) -> None:
        failure = Failure(
            model=label,
            test_set=self._test_set,
            image=self._pair.name,
            metric=metric,
            error=told(error),
        )
        logger.info("failed: %s", failure, exc_info=not isinstance(error, EscsrError))
        self.failures.append(failure)


def _measure(
    metric: Metric, sr_image: Floats, hr_image: Floats, scale: int, workers: Executor
) -> Future[float]:
    """Let a worker measure, or do so here and now where a metric asks for that."""
    if metric.runs_in_thread:
        return workers.submit(metric.measure, sr_image, hr_image, scale)
    measured: Future[float] = Future()
    try:
        measured.set_result(metric.measure(sr_image, hr_image, scale))
    except Exception as error:  # a foreign metric can fail in any way
        measured.set_exception(error)
    return measured


class SetJudge:
    """Stores the results of one test set as PNG until its metrics have looked at all of them.

    The folder is temporary and goes with the ``with`` block, however that is left. Without metrics
    of whole sets, nothing is stored. What cannot be stored fails these metrics and nothing else.
    """

    def __init__(self, test_set: TestSet, metrics: Sequence[SetMetric]) -> None:
        self.scores: list[SetScore] = []
        self.failures: list[Failure] = []
        self._test_set = test_set.name
        self._metrics = metrics
        self._temporary: TemporaryFolder | None = None
        self._labels: list[str | None] = []
        self._counts: Counter[str | None] = Counter()
        self._not_stored: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def store(self, hr_image: Floats, results: Mapping[str, Floats]) -> None:
        """Write the truth and the result of each contender by label, (1, 3, H, W), as PNG."""
        if not self._metrics or self._not_stored is not None:
            return
        name = f"{self._counts[None]:06}.png"
        try:
            for label, image in {None: hr_image, **results}.items():
                write_image(self._folder(label) / name, to_pixels(image))
                self._counts[label] += 1
        except (EscsrError, OSError) as error:
            self._not_stored = error

    def run(self, labels: Sequence[str], on_result: OnResult) -> None:
        """Compare the results of each contender with the truth."""
        for metric in self._metrics:
            for label in labels:
                try:
                    self._judge(metric, label)
                except Exception as error:  # pyiqa and SciPy can fail in any way
                    self._fail(metric, label, error)
                on_result(label, self._test_set, metric.title)

    def _judge(self, metric: SetMetric, label: str) -> None:
        if self._not_stored is not None:
            raise self._not_stored
        if self._counts[label] < metric.least_images:
            raise ImageValueError(
                f"{metric.title} compares at least {metric.least_images} images; there are "
                f"{self._counts[label]}. Take a larger test set."
            )
        value = metric.measure(self._folder(label), self._folder(None))
        self.scores.append(
            SetScore(model=label, test_set=self._test_set, metric=metric.key, value=value)
        )

    def _folder(self, label: str | None) -> Path:
        """Of a contender, or of the truth; numbered, since a label may be no file name."""
        if self._temporary is None:
            self._temporary = TemporaryFolder()
        if label not in self._labels:
            self._labels.append(label)
        folder = Path(self._temporary.name) / f"{self._labels.index(label):03}"
        folder.mkdir(exist_ok=True)
        return folder

    def _fail(self, metric: SetMetric, label: str, error: Exception) -> None:
        failure = Failure(
            model=label, test_set=self._test_set, metric=metric.title, error=told(error)
        )
        logger.info("failed: %s", failure, exc_info=not isinstance(error, EscsrError))
        self.failures.append(failure)


def told(error: Exception) -> str:
    """An error in one line: ours as they are, others with their kind."""
    if isinstance(error, EscsrError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


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
