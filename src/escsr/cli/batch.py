"""Do the jobs of a run in order; one bad file never ends it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from escsr.cli.exit_status import ALL_DONE, SOME_FAILED, printable
from escsr.cli.interruption import interrupted_status
from escsr.cli.plan import Job, error_in_words
from escsr.cli.progress import RunView
from escsr.cli.results import FileResult
from escsr.errors import EscsrError, OutputExistsError
from escsr.machine import is_out_of_memory, out_of_memory_text
from escsr.upscaling.files import FileOutcome, FileWatch, UpscaleReport

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[list[Job], FileWatch], None]
"""Does jobs, and tells of each; whatever goes wrong with one is its outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run."""

    results: list[FileResult]
    """One per input, in order."""

    interruption: KeyboardInterrupt | None = None
    """Who ended it before its end, if anybody did."""

    @property
    def exit_status(self) -> int:
        """0 all done, 1 some failed, 128 and the signal's number when interrupted."""
        if self.interruption is not None:
            return interrupted_status(self.interruption)
        failed = any(result.status == "failed" for result in self.results)
        return SOME_FAILED if failed else ALL_DONE


def run_jobs(
    planned: Sequence[Job | FileResult],
    work: Work,
    view: RunView,
    on_report: Callable[[UpscaleReport], None],
    *,
    leaves_existing: bool = False,
) -> Outcome:
    """Do the jobs, and tell the view about each input.

    Args:
        planned: jobs to do, and results of inputs that need no work.
        work: does the jobs.
        view: shows the run.
        on_report: told how each job was done.
        leaves_existing: a result that another run made meanwhile is no failure.
    Returns:
        The results; after an interruption, the rest are marked as interrupted.
    """
    jobs = [entry for entry in planned if isinstance(entry, Job)]
    told = _ToldInOrder(planned, jobs, view, on_report, leaves_existing=leaves_existing)
    interruption = None
    try:
        told.tell_settled()
        if jobs:
            work(jobs, told)
    except KeyboardInterrupt as error:
        interruption = error
        rest = planned[len(told.results) :]
        told.results.extend(e.result("interrupted") if isinstance(e, Job) else e for e in rest)
    return Outcome(results=told.results, interruption=interruption)


class _ToldInOrder:
    """Turns what becomes of jobs into results of all inputs, in order, and shows them."""

    def __init__(
        self,
        planned: Sequence[Job | FileResult],
        jobs: list[Job],
        view: RunView,
        on_report: Callable[[UpscaleReport], None],
        *,
        leaves_existing: bool,
    ) -> None:
        self.results: list[FileResult] = []
        self._planned = planned
        self._jobs = jobs
        self._view = view
        self._on_report = on_report
        self._leaves_existing = leaves_existing

    def begin(self, index: int) -> None:
        """The network turns to a job."""
        self._view.begin(self._jobs[index])

    def advance(self, fraction: float) -> None:
        """It is this far."""
        self._view.advance(fraction)

    def end(self, index: int, outcome: FileOutcome) -> None:
        """A job is settled, and with it the inputs behind it that need none."""
        job = self._jobs[index]
        if self._leaves_existing and isinstance(outcome.error, OutputExistsError):
            self._tell(replace(job, note="another run made it meanwhile").result("skipped"))
        else:
            self._tell(_result(job, outcome))
        if outcome.report is not None:
            self._on_report(outcome.report)
        self.tell_settled()

    def tell_settled(self) -> None:
        """Tell of inputs that need no work, up to the next job."""
        for entry in self._planned[len(self.results) :]:
            if isinstance(entry, Job):
                return
            self._tell(entry)

    def _tell(self, result: FileResult) -> None:
        self.results.append(result)
        self._view.end(result)


def _result(job: Job, outcome: FileOutcome) -> FileResult:
    error = outcome.error
    if error is None:
        report = outcome.report
        notes = [*filter(None, [job.note]), *(report.notes if report is not None else ())]
        told = replace(job, note=printable("; ".join(notes)) if notes else None)
        return told.result("done", seconds=outcome.seconds, report=report)
    if isinstance(error, EscsrError):
        text = error_in_words(error, job.file)
        return job.result("failed", error=text, seconds=outcome.seconds)
    if is_out_of_memory(error):
        text = printable(out_of_memory_text(error))
        return job.result("failed", error=text, seconds=outcome.seconds)
    # A defect of ours or of a library: this file's failure, but not the collection's.
    logger.debug("Unexpected error", exc_info=error)
    words = error_in_words(error, job.file)
    text = f"unexpected {type(error).__name__}: {words} (--verbose shows where)"
    return job.result("failed", error=text, seconds=outcome.seconds)
