"""The process of one subject, and what it starts."""

import os
import time
from pathlib import Path

import pytest

from escsr.evaluation.benchmark import BenchmarkRun, rounds
from escsr.evaluation.benchmark.record import Conditions
from escsr.evaluation.benchmark.report import timing_table
from escsr.evaluation.benchmark.rounds import SubjectFailed, WorkerProcess
from escsr.evaluation.benchmark.subject import parse_rival

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
    monkeypatch.setattr(rounds, "_MODULE", "starts_a_child")
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
    assert ends_soon(child)


HANGS = """
import json, os, subprocess, sys, time
is_hanging = False
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "prepare":
        is_hanging = message["subject"]["source"] == "mine:hanging"
        answer = {"portrait": {"parameters": os.getpid()}}
    elif is_hanging:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("child.txt", "w") as file:
            file.write(str(child.pid))
        time.sleep(600)
    else:
        answer = {"latencies_ms": [1.0], "peak_memory_bytes": 1, "reserved_memory_bytes": 1}
    print(json.dumps(answer), flush=True)
"""
"""In place of the worker: one subject starts a child in its first round, and sleeps."""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no groups of processes")
def test_a_subject_that_hangs_is_ended_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it started; the table says so, and rounds of the others are all there."""
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setattr(rounds, "_MODULE", "hangs")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    subjects = [*parse_rival("mine:sound"), *parse_rival("mine:hanging")]
    conditions = Conditions(scale=2, lr_width=8, lr_height=8, rounds=2)
    # Time enough for a process that only answers, and that the test must wait for the other.
    with BenchmarkRun(subjects, conditions, limit_s=4) as run:
        run.run()
        sound, hanging = run.benchmark().results
        numbers = (hanging.portrait.parameters or 0, int(Path("child.txt").read_text()))
        assert [ends_soon(number) for number in numbers] == [True, True]
    assert (sound.failure, len(sound.rounds)) == (None, 2)
    assert hanging.failure is not None and not hanging.rounds
    assert "a round was not done after 4 s; allow more with --time-limit" in hanging.failure
    (row,) = (row for row in timing_table(run.benchmark()).rows if "hanging" in row[0])
    assert "failed" in " ".join(row).lower()


CLOSES_ITS_PIPE = """
import os, sys, time
sys.stdin.readline()
os.close(1)
time.sleep(600)
"""


def test_a_process_that_only_closes_its_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer can come, with or without a limit."""
    (tmp_path / "closes.py").write_text(CLOSES_ITS_PIPE)
    monkeypatch.setattr(rounds, "_MODULE", "closes")
    monkeypatch.setattr(rounds, "_SECONDS_TO_END", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (subject,) = parse_rival("mine:build")
    process = WorkerProcess(subject, Conditions(scale=2, lr_width=8, lr_height=8))
    try:
        with pytest.raises(SubjectFailed, match="closed the pipe"):
            process.prepare()
    finally:
        process.close()


def ends_soon(number: int) -> bool:
    """Whether a process ends within our patience."""
    deadline = time.monotonic() + PATIENCE_S
    while is_running(number) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(number)


def is_running(number: int) -> bool:
    """Whether a process is there, and not only its exit status, for which nobody asked."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
