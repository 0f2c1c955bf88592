"""``escsr benchmark`` as a command: what it prints, writes, and exits with."""

import json
from pathlib import Path
from typing import NoReturn

import pytest

from escsr.cli.benchmark import parse_size
from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.record import read_benchmark

from .conftest import Escsr

QUICK = ("--size", "48x32", "--rounds", "1", "--repeats", "1", "--threads", "1")


def test_a_network_is_measured_and_written(escsr: Escsr, weights: Path, tmp_path: Path) -> None:
    """Into JSON, which is what is printed, and Markdown; and compared with itself."""
    out = tmp_path / "out"
    result = escsr("benchmark", f"{weights}@eager", "-s", "2", *QUICK, "-o", out, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content == json.loads((out / "benchmark.json").read_text())
    (ours,) = content["results"]
    assert ours["subject"]["label"] == "small-x2@eager"
    assert (content["conditions"]["lr_width"], content["conditions"]["lr_height"]) == (24, 16)
    assert len(ours["rounds"]) == 1
    assert ours["failure"] is None
    assert "small-x2@eager" in (out / "benchmark.md").read_text()
    # Nothing became worse than itself.
    same = escsr("benchmark", "--compare", out / "benchmark.json", out / "benchmark.json")
    assert same.exit_code == 0, same.output
    assert "small-x2@eager" in same.stdout


ANSWERS = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "round":
        answer = {"latencies_ms": [5.0], "peak_memory_bytes": 1, "reserved_memory_bytes": 1}
    elif message["subject"]["source"] == "mine:missing":
        answer = {"error": "there is no mine:missing"}
    else:
        answer = {"portrait": {}}
    print(json.dumps(answer), flush=True)
"""
"""A process in place of the one that loads PyTorch: one subject fails, the others do not."""


def test_what_fails_is_named_and_gives_exit_status_1(
    escsr: Escsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are measured, and can be compared with another run."""
    (tmp_path / "answers.py").write_text(ANSWERS)
    monkeypatch.setattr("escsr.evaluation.benchmark.rounds._MODULE", "answers")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rivals = ("--rival", "mine:missing", "--rival", "mine:sound")
    out = tmp_path / "out.json"
    result = escsr("benchmark", *rivals, "-s", "2", *QUICK, "-o", out, "--json")
    assert result.exit_code == 1, result.output
    missing, sound = json.loads(result.stdout)["results"]
    assert missing["failure"] == "there is no mine:missing"
    assert (sound["failure"], len(sound["rounds"])) == (None, 1)
    assert f"FAILED: {missing['subject']['label']}: there is no mine:missing" in result.stderr
    # What could not be measured is not compared.
    same = escsr("benchmark", "--compare", out, out)
    assert same.exit_code == 0, same.output


@pytest.mark.parametrize("what", ["the picture", "the disk"])
def test_what_was_measured_is_not_lost_with(
    escsr: Escsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is stored and shown before it is drawn, and shown where it cannot be stored."""
    measured = tmp_path / "measured.json"
    measured.write_text(_record([10.0, 11.0]))

    def fail(*arguments: object, **options: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("escsr.cli.benchmark._measured", lambda *_: (read_benchmark(measured), 0))
    figures = "escsr.analysis.quality_and_latency.draw_quality_and_latency"
    stored = "escsr.evaluation.benchmark.report.replace_file"
    monkeypatch.setattr(figures if what == "the picture" else stored, fail)
    out = tmp_path / "out.json"
    result = escsr("benchmark", "esc-tiny@eager", "-s", "2", *QUICK, "-o", out, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["baseline"] == "base@x"
    if what == "the picture":
        assert read_benchmark(out) == read_benchmark(measured)
        assert out.with_suffix(".md").exists()


def test_a_regression_gives_exit_status_1(escsr: Escsr, tmp_path: Path) -> None:
    """Three times the latency, and a tolerance that allows it."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(_record([10.0, 11.0]))
    new.write_text(_record([30.0, 33.0]))
    worse = escsr("benchmark", "--compare", old, new)
    assert worse.exit_code == 1
    assert "WORSE" in worse.stdout
    allowed = escsr("benchmark", "--compare", old, new, "--tolerance", "300", "--json")
    assert allowed.exit_code == 0
    changes = json.loads(allowed.stdout)["changes"]
    assert changes[1]["speed"] == pytest.approx(1 / 3)
    assert escsr("benchmark", "--compare", new, old).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "big"), "WIDTHxHEIGHT"),
        (("esc@quick",), "eager"),
        (("--rival", "omnisr"), "left out"),
        (("--compare", "no.json", "no.json"), "escsr benchmark"),
        (("esc@eager", "--floor", "--precision", "bfloat16"), "--floor"),
    ],
)
def test_wrong_options_are_told_before_any_work(
    escsr: Escsr, arguments: tuple[str, ...], words: str
) -> None:
    """One line, and exit status 2."""
    result = escsr("benchmark", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_sizes_are_read_as_people_write_them() -> None:
    """Width first."""
    assert parse_size("1280x720", option="--size") == (1280, 720)
    assert parse_size(" 64 X 48 ", option="--size") == (64, 48)
    with pytest.raises(ConfigurationError, match="--size"):
        parse_size("0x720", option="--size")


def _record(latencies_ms: list[float]) -> str:
    """A result of two subjects, the baseline at 100 ms."""
    conditions = {"scale": 4, "lr_width": 320, "lr_height": 180}
    names = ("date", "escsr", "git_revision", "python", "system", "instructions")
    environment = {
        **dict.fromkeys(names, "-"),
        **{"processor": "one", "torch": "2.6", "cores": 2, "gpu": None},
        **{"packages": {}, "switches": {}},
    }
    results = [_entry("base@x", [100.0, 100.0]), _entry("esc@x", latencies_ms)]
    content = {
        "format": "escsr benchmark 1",
        "conditions": conditions,
        "environment": environment,
        "baseline": "base@x",
        "results": results,
        "interrupted": False,
    }
    return json.dumps(content)


def _entry(label: str, latencies_ms: list[float]) -> dict[str, object]:
    return {
        "subject": {"label": label, "kind": "ours", "source": label, "mode": "x"},
        "portrait": {"quality": None, "notes": []},
        "preparation_seconds": 1.0,
        "rounds": [{"latencies_ms": [one], "peak_memory_bytes": 10**6} for one in latencies_ms],
        "floor_rounds": [],
        "failure": None,
    }
