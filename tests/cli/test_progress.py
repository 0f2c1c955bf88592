"""How a run shows itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from escsr.cli.inputs import InputFile
from escsr.cli.upscale_plan import FileResult, Job
from escsr.cli.upscale_progress import (
    LineView,
    ShownAs,
    bar_view,
    result_line,
    shown_run,
    summary_line,
)


def job_named(name: str) -> Job:
    """A job of one megapixel."""
    return Job(
        file=InputFile(path=Path(name)),
        output=Path("out") / name,
        input_size=(500, 500),
        output_size=(1000, 1000),
        note="written as PNG",
        size_label="x2",
    )


def test_a_line_says_sizes_time_and_rate() -> None:
    """A megapixel in two seconds is half a megapixel per second."""
    done = job_named("a.jpg").result("done", seconds=2.0)
    output = Path("out/a.jpg")
    assert result_line(done) == (
        f"a.jpg -> {output}: done, 500x500 -> 1000x1000, 2.0 s, 0.50 MP/s, written as PNG"
    )
    failed = job_named("a.jpg").result("failed", error="disk full")
    assert result_line(failed) == "a.jpg: FAILED: disk full"


def test_a_name_with_control_characters_stays_in_its_line() -> None:
    """A line break would look like another file, and an escape could repaint the terminal."""
    line = result_line(job_named("a\nb\x1b[2J.jpg").result("planned"))
    assert line.isprintable()
    assert r"a\nb\x1b[2J.jpg" in line


@pytest.mark.parametrize("sign", "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\ufeff\x9b")
def test_a_name_cannot_turn_the_direction_of_its_line(sign: str) -> None:
    """photo<override>gpj.exe would be shown as photoexe.jpg; Hebrew and emoji are letters."""
    job = job_named(f"photo{sign}gpj.exe")
    result = replace(job.result("skipped"), note=f"the result of {sign}")
    assert sign not in result_line(result)
    assert sign not in result_line(job.result("failed", error=f"{sign}!"))
    assert "א👩‍🚀.jpg" in result_line(job_named("א👩‍🚀.jpg").result("done"))


def test_a_summary_counts_what_there_is() -> None:
    """In the order of success; what there is none of is not named."""
    job = job_named("a.jpg")
    results = [job.result("failed"), job.result("done"), job.result("done")]
    assert summary_line(results) == "2 done, 1 FAILED."


def test_failures_go_to_stderr_and_json_takes_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads stdout reads results alone."""
    bad = FileResult(input=Path("bad"), status="failed", error="no")
    good = job_named("good").result("done")
    for taken in (False, True):
        view = LineView(2, stdout_is_taken=taken)
        view.end(good)
        view.end(bad)
        said = capsys.readouterr()
        assert said.out == ("" if taken else f"[1/2] {result_line(good)}\n")
        assert said.err.endswith("[2/2] bad: FAILED: no\n")


def test_without_a_terminal_there_are_no_bars() -> None:
    """A log file holds lines, not control characters."""
    with shown_run([], ShownAs()) as view:
        assert type(view) is LineView


def test_bars_show_names_rate_and_remaining_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets in a name are letters; failed files leave the length of the run's bar."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    jobs = [job_named("[bold]a[1].jpg"), job_named("b.jpg"), job_named("c.jpg")]
    with bar_view(jobs, stdout_is_taken=True) as view:
        for job, status in zip(jobs, ("done", "failed", "done"), strict=True):
            view.begin(job)
            view.advance(0.25)
            view.advance(0.5)
            view.end(job.result(status))
    said = capsys.readouterr()
    assert said.out == ""
    assert "[bold]a[1].jpg" in said.err
    assert "all files" in said.err
