"""Do the jobs of a run one after another; one bad file never ends it."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from escsr.cli.exit_status import ALL_DONE, SOME_FAILED, printable
from escsr.cli.interruption import interrupted_status
from escsr.cli.plan import Job
from escsr.cli.progress import RunView
from escsr.cli.results import FileResult
from escsr.errors import EscsrError
from escsr.inference.file_job import UpscaleReport

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[Job, Callable[[float], None]], UpscaleReport]
"""Does one job, and calls back with the fraction that is done."""


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


def run_jobs(planned: Sequence[Job | FileResult], work: Work, view: RunView) -> Outcome:
    """Do each job, and tell the view about each input.

    Args:
        planned: jobs to do, and results of inputs that need no work.
        work: does one job; whatever it raises is that file's failure and no other's.
        view: shows the run.
    Returns:
        The results; after an interruption, the rest are marked as interrupted.
    """
    results: list[FileResult] = []
    interruption = None
    try:
        for entry in planned:
            result = _run_job(entry, work, view) if isinstance(entry, Job) else entry
            results.append(result)
            view.end(result)
    except KeyboardInterrupt as error:
        interruption = error
        rest = planned[len(results) :]
        results.extend(e.result("interrupted") if isinstance(e, Job) else e for e in rest)
    return Outcome(results=results, interruption=interruption)


def _run_job(job: Job, work: Work, view: RunView) -> FileResult:
    view.begin(job)
    start = time.perf_counter()
    try:
        report = work(job, view.advance)
    except EscsrError as error:
        return job.result("failed", error=printable(error), seconds=time.perf_counter() - start)
    except Exception as error:
        # A defect of ours or of a library: this file's failure, but not the collection's.
        logger.debug("Unexpected error", exc_info=True)
        text = f"unexpected {type(error).__name__}: {printable(error)} (--verbose shows where)"
        return job.result("failed", error=text, seconds=time.perf_counter() - start)
    return job.result("done", seconds=time.perf_counter() - start, report=report)
