"""Subjects in turn: every round holds each of them once, so that drift of the machine hits all."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.environment import describe_environment
from escsr.evaluation.benchmark.record import (
    Benchmark,
    Conditions,
    FloorRound,
    Portrait,
    SubjectResult,
    portrait_of,
    round_of,
)
from escsr.evaluation.benchmark.subject import Subject
from escsr.evaluation.benchmark.worker_process import SubjectFailed, WorkerProcess

OnStep = Callable[[str, str], None]
"""Called before each step with what is done, such as ``round 2 of 5``, and the label; and once
more at the end, with two empty texts."""


class BenchmarkRun:
    """A run that may be interrupted: what is finished by then is kept.

    Use it as a context manager, which ends the processes.

    Args:
        subjects: told apart by their labels; never two at a time are at work.
        conditions: the same for all.
        baseline: label of the subject that ratios refer to; the first one unless given.
        limit_s: seconds that a subject may take to load, compile and warm up, and for each round;
            then it is ended with all that it started, and left out.
    Raises:
        ConfigurationError: no subjects, or no such baseline.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        conditions: Conditions,
        *,
        baseline: str | None = None,
        limit_s: float | None = None,
    ) -> None:
        runnable = [subject.label for subject in subjects if subject.kind != "floor"]
        if not runnable:
            raise ConfigurationError("There is nothing to measure; name a model or a rival.")
        if baseline is not None and baseline not in runnable:
            raise ConfigurationError(
                f"The baseline is {baseline!r}; it must be one of {', '.join(runnable)}."
            )
        self.conditions = conditions
        self.baseline = baseline or runnable[0]
        self._limit_s = limit_s
        self._environment = describe_environment(conditions)
        self._results = {subject.label: SubjectResult(subject=subject) for subject in subjects}
        self._processes: dict[str, WorkerProcess] = {}

    @property
    def num_steps(self) -> int:
        """How often ``on_step`` is called at most."""
        return len(self._results) * (1 + self.conditions.rounds) + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        while self._processes:
            self._processes.popitem()[1].close()

    def run(self, on_step: OnStep = lambda what, label: None) -> None:
        """Prepare all subjects, one after the other, and run all rounds.

        A subject that fails is left out from then on.
        """
        for label in list(self._results):
            on_step("preparing", label)
            self._prepare(label)
        for number in range(self.conditions.rounds):
            # Every other round the other way, so that a steady drift cancels out.
            order = list(self._results)[:: 1 if number % 2 == 0 else -1]
            for label in order:
                on_step(f"round {number + 1} of {self.conditions.rounds}", label)
                self._run_round(label)
        on_step("", "")

    def benchmark(self, *, interrupted: bool = False) -> Benchmark:
        """What has been measured so far."""
        return Benchmark(
            conditions=self.conditions,
            environment=self._environment,
            baseline=self.baseline,
            results=tuple(self._results.values()),
            interrupted=interrupted,
        )

    def _prepare(self, label: str) -> None:
        started = time.perf_counter()
        process = WorkerProcess(self._results[label].subject, self.conditions)
        self._processes[label] = process
        with self._watching(label):
            told = process.prepare(limit_s=self._limit_s)
            seconds = time.perf_counter() - started
            portrait = _portrait(told)
            self._update(label, portrait=portrait, preparation_seconds=seconds)

    def _run_round(self, label: str) -> None:
        process = self._processes.get(label)
        if process is None:
            return
        with self._watching(label):
            measured = process.run_round(limit_s=self._limit_s)
            result = self._results[label]
            if result.subject.kind == "floor":
                rounds = (*result.floor_rounds, FloorRound(**measured))
                self._update(label, floor_rounds=rounds)
            else:
                self._update(label, rounds=(*result.rounds, round_of(dict(measured))))

    @contextlib.contextmanager
    def _watching(self, label: str) -> Any:
        """Let a subject that fails be one."""
        try:
            yield
        except SubjectFailed as failure:
            self._update(label, failure=str(failure))
            self._processes.pop(label).close()

    def _update(self, label: str, **changes: Any) -> None:
        self._results[label] = replace(self._results[label], **changes)


def _portrait(told: Mapping[str, Any]) -> Portrait:
    return portrait_of({"quality": None, "notes": (), **told})
