"""The process of one subject, and what it starts."""

import os
import time
from pathlib import Path

import pytest

from escsr.evaluation.benchmark import worker_process
from escsr.evaluation.benchmark.record import Conditions
from escsr.evaluation.benchmark.subject import parse_rival
from escsr.evaluation.benchmark.worker_process import SubjectFailed, WorkerProcess

PATIENCE_S = 20.0

STARTS_A_CHILD = """
import json, subprocess, sys
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
child = subprocess.Popen([sys.executable, "-c", deaf + "print(0, flush=True); time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
for line in sys.stdin:
    if json.loads(line)["do"] == "round":
        break
    print(json.dumps({"portrait": {"child": child.pid}}), flush=True)
"""
"""In place of the worker: its child does not heed SIGTERM, as a compiler might."""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no groups of processes")
@pytest.mark.parametrize("has_ended", [False, True])
def test_what_a_process_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ended: bool
) -> None:
    """Compilers too, and where it ended by itself before."""
    (tmp_path / "starts_a_child.py").write_text(STARTS_A_CHILD)
    monkeypatch.setattr(worker_process, "_MODULE", "starts_a_child")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (subject,) = parse_rival("mine:build")
    process = WorkerProcess(subject, Conditions(scale=2, lr_width=8, lr_height=8))
    try:
        child = process.prepare()["child"]
        assert is_running(child)
        if has_ended:
            with pytest.raises(SubjectFailed):
                process.run_round()
    finally:
        process.close()
    deadline = time.monotonic() + PATIENCE_S
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(number: int) -> bool:
    """Whether a process is there, and not only its exit status, for which nobody asked."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
