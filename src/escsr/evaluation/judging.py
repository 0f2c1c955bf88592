"""Judge one image by every network, and one test set by what looks at all its results at once."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from escsr.errors import EscsrError, ImageValueError
from escsr.evaluation.crops import CropGallery
from escsr.evaluation.metrics import SetMetric
from escsr.evaluation.protocol import read_pair, to_pixels, upscale_rounded
from escsr.evaluation.records import Conditions, Failure, Score, SetScore
from escsr.evaluation.test_sets import TestPair, TestSet
from escsr.images.writer import write_image
from escsr.shapes import ImageBatch
from escsr.temporary_files import TemporaryFolder

logger = logging.getLogger("escsr")

OnResult = Callable[[str, str, str], None]
"""Called with contender, test set, and image or metric after each result, failed or not."""


class ImageJudge:
    """Runs all networks on one image, and keeps what came of it."""

    def __init__(self, test_set: TestSet, pair: TestPair, conditions: Conditions) -> None:
        self.scores: list[Score] = []
        self.failures: list[Failure] = []
        self._results: dict[str, ImageBatch] = {}
        self._images: tuple[ImageBatch, ImageBatch] | None = None
        self._test_set = test_set.name
        self._pair = pair
        self._conditions = conditions

    def run(self, networks: Mapping[str, nn.Module], on_result: OnResult) -> None:
        """Judge each network by label; an image that cannot be read fails once for all."""
        try:
            self._images = read_pair(self._pair, scale=self._conditions.scale)
        except (EscsrError, OSError) as error:
            self._fail(None, error)
        for label, network in networks.items():
            if self._images is not None:
                self._judge(label, network, *self._images)
            on_result(label, self._test_set, self._pair.name)

    def show(self, gallery: CropGallery | None) -> None:
        """Offer all results to a gallery, if there is one."""
        if gallery is not None and self._images is not None:
            lr_image, hr_image = self._images
            gallery.offer(
                self._test_set,
                self._pair.name,
                lr_image=lr_image,
                hr_image=hr_image,
                results=self._results,
            )

    def hand_to(self, set_judge: "SetJudge") -> None:
        """Give the truth and all results to what looks at the whole set."""
        if self._images is not None:
            set_judge.store(self._images[1], self._results)

    def _judge(
        self, label: str, network: nn.Module, lr_image: ImageBatch, hr_image: ImageBatch
    ) -> None:
        scale, device = self._conditions.scale, self._conditions.device
        try:
            sr_image = upscale_rounded(network, lr_image.to(device), scale=scale)
        except Exception as error:  # a foreign network can fail in any way
            self._fail(label, error)
            return
        self._results[label] = sr_image
        values = self._measure(label, sr_image, hr_image)
        self.scores.append(
            Score(model=label, test_set=self._test_set, image=self._pair.name, values=values)
        )

    def _measure(
        self, label: str, sr_image: ImageBatch, hr_image: ImageBatch
    ) -> Mapping[str, float]:
        """Every metric that can judge the image; the others are named."""
        values: dict[str, float] = {}
        for metric in self._conditions.metrics:
            try:
                values[metric.key] = metric.measure(sr_image, hr_image, self._conditions.scale)
            except Exception as error:  # so can a foreign metric
                self._fail(label, error, metric=metric.title)
        return values

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

    def store(self, hr_image: ImageBatch, results: Mapping[str, ImageBatch]) -> None:
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
