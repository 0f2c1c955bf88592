"""What a comparison holds: its conditions, every figure, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from escsr.engines.core_engine import choose_backend
from escsr.engines.engine import Backend, BackendChoice
from escsr.evaluation.contenders import Contender, Padding
from escsr.evaluation.metrics import FIDELITY_METRICS, Column, Metric, SetMetric
from escsr.evaluation.test_sets import TestSet


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
