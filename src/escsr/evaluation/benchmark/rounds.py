"""Measure subjects in turn, each in a worker process of its own.

Every round holds each subject once, so that drift of the machine hits all.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import IO, Any, Self

from escsr.errors import ConfigurationError
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
from escsr.evaluation.environment import describe_environment

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
        self._environment = describe_environment(device=conditions.device, tf32=conditions.tf32)
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


_MODULE = "escsr.evaluation.benchmark.worker"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECONDS_TO_END = 5
_SIGKILL = 9
"""By which Linux ends a process when memory runs out."""


class SubjectFailed(Exception):  # noqa: N818 # it is an outcome, and goes no further than a round
    """A subject cannot go on; the message says why."""


class WorkerProcess:
    """Starts a process, which does nothing until it is asked; end it with ``close``.

    Args:
        subject: what it runs.
        conditions: how.
    """

    def __init__(self, subject: Subject, conditions: Conditions) -> None:
        self._message = {"subject": asdict(subject), "conditions": asdict(conditions)}
        # A file, since nobody reads while the process works, and a pipe would fill up.
        self._errors = tempfile.TemporaryFile()  # it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=_environment(conditions.threads),
            # Ctrl-C is for us alone: we end the processes once the finished rounds are safe.
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._questions: IO[str] = self._process.stdin
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(
            target=_pass_on, args=(self._process.stdout, self._answers), daemon=True
        )
        self._reader.start()

    def prepare(self, *, limit_s: float | None = None) -> Mapping[str, Any]:
        """Load, compile and warm up.

        Args:
            limit_s: seconds it may take.
        Returns:
            The portrait.
        Raises:
            SubjectFailed: it cannot, or takes longer.
        """
        message = {"do": "prepare", **self._message}
        return self._ask(message, limit_s, late="it was not ready")["portrait"]

    def run_round(self, *, limit_s: float | None = None) -> Mapping[str, Any]:
        """Run one round and return what was measured.

        Args:
            limit_s: seconds it may take.
        Raises:
            SubjectFailed: it broke, or takes longer.
        """
        return self._ask({"do": "round"}, limit_s, late="a round was not done")

    def close(self) -> None:
        """End the process and all that it started, such as compilers, whatever they do."""
        _end(self._process, forced=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        # What it started may live longer than it.
        _end(self._process, forced=True)
        self._process.wait()
        self._reader.join(_SECONDS_TO_END)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def _ask(
        self, message: Mapping[str, Any], limit_s: float | None, *, late: str
    ) -> dict[str, Any]:
        try:
            self._questions.write(json.dumps(message) + "\n")
            self._questions.flush()
        except OSError as error:
            raise SubjectFailed(self._how_it_ended()) from error
        try:
            line = self._answers.get(timeout=limit_s)
        except queue.Empty as error:
            raise SubjectFailed(
                f"{late} after {limit_s:g} s; allow more with --time-limit"
            ) from error
        if not line:
            raise SubjectFailed(self._how_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SubjectFailed(str(answer["error"]))
        return answer

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "its process runs on, but has closed the pipe on which it answers"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = f" ({lines[-1].strip()[:200]})" if lines else ""
        if status == -_SIGKILL:
            return f"its process was killed, probably for want of memory{last}"
        return f"its process ended with status {status}{last}"


def _end(process: "subprocess.Popen[str]", *, forced: bool) -> None:
    """Ask a process and its group to end, or make them; those that have ended do not mind."""
    if not hasattr(os, "killpg"):
        (process.kill if forced else process.terminate)()
        return
    # It leads a session of its own, so its number is the group's. macOS refuses where all that is
    # left of the group has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, _SIGKILL if forced else signal.SIGTERM)


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def _pass_on(stream: IO[str], answers: "queue.Queue[str]") -> None:
    """Every line, and an empty one at the end."""
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            answers.put(line)
    answers.put("")
