"""The other end of the process that runs one subject."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

from escsr.evaluation.benchmark.record import Conditions
from escsr.evaluation.benchmark.subject import Subject

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
