"""The benchmark: real processes in turn, and what they tell."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark import Benchmark, BenchmarkRun, Conditions
from escsr.evaluation.benchmark.record import as_json, read_benchmark
from escsr.evaluation.benchmark.report import (
    as_markdown,
    failures_in_words,
    network_table,
    timing_table,
)
from escsr.evaluation.benchmark.subject import parse_ours, parse_rival, told_apart

CPU = torch.device("cpu")
CONDITIONS = Conditions(scale=2, lr_width=32, lr_height=32, threads=1, rounds=3, repeats=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of the run, with a module of foreign networks."""
    folder = tmp_path_factory.mktemp("benchmark")
    shutil.copy(Path(__file__).with_name("networks_to_measure.py"), folder)
    return folder


@pytest.fixture(scope="module")
def benchmark(folder: Path) -> Iterator[Benchmark]:
    """One run, interrupted before its third round: a rival, one that dies in the second, ours."""
    rivals = [f"networks_to_measure:{name}" for name in ("lasting", "dying")]
    subjects = [
        *(subject for name in rivals for subject in parse_rival(name)),
        *parse_ours("esc-tiny@eager+naive", CPU),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with (
            BenchmarkRun(subjects, CONDITIONS, baseline=subjects[2].label) as run,
            pytest.raises(KeyboardInterrupt),
        ):
            run.run(_interrupt_in_round_3)
        yield run.benchmark(interrupted=True)


def _interrupt_in_round_3(what: str, label: str) -> None:
    if what == "round 3 of 3":
        raise KeyboardInterrupt


def test_subjects_take_turns_and_never_run_at_once(folder: Path, benchmark: Benchmark) -> None:
    """Each round holds every subject, every other one in reverse, and no run overlaps another."""
    lines = [line.split() for line in (folder / "runs.txt").read_text().splitlines()]
    order = [name for name, _, _ in lines]
    warm_up = ["lasting", "dying"]
    rounds = ["lasting"] * 2 + ["dying"] * 3 + ["failing"] + ["lasting"] * 2
    assert order == [*warm_up, *rounds]
    ends = [int(end) for _, _, end in lines]
    starts = [int(start) for _, start, _ in lines]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


def test_finished_rounds_are_kept_with_their_memory(benchmark: Benchmark) -> None:
    """Two of three rounds, of two runs each; memory is that above the loaded network."""
    ours = benchmark.result("esc-tiny@eager+naive")
    assert ours is not None
    assert [len(one.latencies_ms) for one in ours.rounds] == [2, 2]
    assert all(latency > 0 for one in ours.rounds for latency in one.latencies_ms)
    assert ours.peak_memory_bytes is not None
    # 32 channels of 1024 pixels in float32 are 131 KB; torch's libraries would be hundreds of MB.
    assert 131_072 < ours.peak_memory_bytes < 200e6
    assert ours.preparation_seconds is not None


def test_networks_are_counted_by_one_counter(benchmark: Benchmark) -> None:
    """One convolution of 3 to 12 channels on 1024 pixels, and esc-tiny x2's parameters."""
    lasting, _, ours = benchmark.subjects
    assert (lasting.portrait.macs, lasting.portrait.parameters) == (27 * 12 * 1024, 27 * 12 + 12)
    assert ours.portrait.parameters == 101_136
    assert ours.portrait.quality is not None
    assert ours.portrait.quality.origin == "measured"
    assert ours.portrait.quality.psnr_db["Set5"] == pytest.approx(37.239)


def test_what_fails_is_named_and_the_others_go_on(benchmark: Benchmark) -> None:
    """It runs out of memory in the second round, and keeps the first."""
    dying = benchmark.subjects[1]
    assert dying.failure is not None and "ran out of memory" in dying.failure
    assert failures_in_words(benchmark) == [f"{dying.label}: {dying.failure}"]
    assert [len(one.rounds) for one in benchmark.subjects] == [2, 1, 2]


def test_ratios_are_of_rounds(benchmark: Benchmark) -> None:
    """To the baseline that was asked for, whose own is 1; of those that both took part in."""
    lasting, dying, ours = benchmark.subjects
    assert benchmark.baseline == ours.label
    own, other = benchmark.times_faster(ours.label), benchmark.times_faster(lasting.label)
    assert own is not None and (own.low, own.median, own.high) == (1, 1, 1)
    pairs = zip(ours.rounds, lasting.rounds, strict=True)
    ratios = [one.latency_ms / two.latency_ms for one, two in pairs]
    assert other is not None
    assert (other.low, other.high) == (min(ratios), max(ratios))
    only = benchmark.times_faster(dying.label)
    assert only is not None and only.low == only.high
    assert benchmark.times_faster("esc-tny@eager") is None


def test_json_comes_back_as_it_went(benchmark: Benchmark, tmp_path: Path) -> None:
    """With the machine, the switches and a summary for readers."""
    path = tmp_path / "one.json"
    path.write_text(as_json(benchmark))
    assert read_benchmark(path) == benchmark
    content = json.loads(path.read_text())
    environment = content["environment"]
    assert environment["torch"] == torch.__version__
    assert environment["switches"]["tf32"] is False
    assert {"processor", "cores", "python", "system", "date", "git_revision"} <= set(environment)
    summary = content["results"][0]["summary"]
    assert summary["latency_ms"]["low"] <= summary["latency_ms"]["median"]


def test_a_file_that_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    """Missing, no JSON, or another's JSON."""
    path = tmp_path / "one.json"
    for content in (None, "no JSON", '{"format": "escsr evaluate 1"}', "[]"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigurationError, match="escsr benchmark"):
            read_benchmark(path)


def test_the_page_holds_the_tables_the_machine_and_the_failures(benchmark: Benchmark) -> None:
    """And one row per network beside the row per subject."""
    page = as_markdown(benchmark, figure="one.png")
    assert "interrupted" in page and "2 of 3 rounds" in page
    words = ("esc-tiny@eager+naive", "## Machine", "## What failed", "one.png", "64x64")
    assert all(word in page for word in words)
    assert len(timing_table(benchmark).rows) == 3
    assert [row[0] for row in network_table(benchmark).rows][-1] == "esc-tiny"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("esc@eager", ["esc@eager"]),
        ("esc@eager+sdpa", ["esc@eager+sdpa"]),
        ("a@b/my-x4.pth@reference", ["my-x4@reference"]),
    ],
)
def test_our_subjects_are_a_model_a_backend_and_attention(text: str, labels: list[str]) -> None:
    """A path may hold an @ of its own."""
    assert [subject.label for subject in parse_ours(text, CPU)] == labels


def test_all_backends_are_those_that_run_here() -> None:
    """The reference among them, first; without @ it is the default one alone."""
    everything = parse_ours("esc@all", CPU)
    assert everything[0].mode == "reference"
    assert len(everything) > 1
    assert len(parse_ours("esc", CPU)) == 1
    assert parse_ours("esc", CPU, best=True) == everything


def test_what_cannot_be_measured_is_refused_with_what_can() -> None:
    """Wrong words behind @ and +, rivals that had to be left out, no subjects, no such baseline."""
    with pytest.raises(ConfigurationError, match="eager"):
        parse_ours("esc@egaer", CPU)
    with pytest.raises(ConfigurationError, match="sdpa"):
        parse_ours("esc@eager+sdap", CPU)
    with pytest.raises(ConfigurationError, match="stores its scores"):
        parse_ours("esc@reference+sdpa", CPU)
    with pytest.raises(ConfigurationError, match="left out"):
        parse_rival("OmniSR")
    with pytest.raises(ConfigurationError, match="nothing to measure"):
        BenchmarkRun([], CONDITIONS)
    with pytest.raises(ConfigurationError, match="esc@eager"):
        BenchmarkRun(parse_ours("esc@eager", CPU), CONDITIONS, baseline="esc")


def test_subjects_are_told_apart() -> None:
    """What was asked for twice is measured once; files of one name show their folders."""
    texts = ("esc@eager", "esc@eager", "a/x.pth@eager", "b/x.pth@eager")
    subjects = [subject for text in texts for subject in parse_ours(text, CPU)]
    labels = [subject.label for subject in told_apart(subjects)]
    assert labels == ["esc@eager", "a/x.pth@eager", "b/x.pth@eager"]
    assert [one.mode for one in parse_rival("rcan", best=True)] == [
        "eager",
        "channels-last",
        "compiled",
    ]
