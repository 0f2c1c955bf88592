"""What the benchmark computes by itself: counts, floors, comparisons, the picture."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from escsr.engines.published import as_published
from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.loading import load_subject
from escsr.evaluation.benchmark.measuring import (
    Product,
    arithmetic_of,
    count_products,
    fastest_seconds,
    floor_of_network,
    measure_round,
    resident_bytes,
    resident_peak,
)
from escsr.evaluation.benchmark.record import (
    Benchmark,
    Conditions,
    FloorRound,
    Portrait,
    Quality,
    Round,
    SubjectResult,
)
from escsr.evaluation.benchmark.report import (
    compare_benchmarks,
    prepare_result_paths,
    write_results,
)
from escsr.evaluation.benchmark.subject import Kind, Subject, floor_of, parse_rival
from escsr.family.complexity import count_macs
from escsr.family.configuration import ESCConfig
from escsr.family.variants import variant
from escsr.model.network import ESC
from escsr.rivals.rivals import Rival

ENVIRONMENT = {"gpu": None, "processor": "one", "torch": "2.6", "cores": 2, "instructions": "-"} | {
    "date": "-",
    "escsr": "-",
    "git_revision": None,
    "packages": {},
    "python": "-",
    "system": "-",
}


def _result(
    source: str, latencies_ms: list[float], megabytes: int, *, kind: Kind = "ours"
) -> SubjectResult:
    return SubjectResult(
        subject=Subject(label=f"{source}@x", kind=kind, source=source, mode="x"),
        portrait=Portrait(
            parameters=1, macs=1, quality=Quality(psnr_db={"Set5": 30.0}, origin="published")
        ),
        rounds=tuple(
            Round(latencies_ms=(one,), peak_memory_bytes=megabytes * 10**6) for one in latencies_ms
        ),
    )


def _benchmark(*results: SubjectResult) -> Benchmark:
    return Benchmark(
        conditions=Conditions(scale=4, lr_width=320, lr_height=180),
        environment=ENVIRONMENT,
        baseline=results[0].label,
        results=results,
    )


def _norms_and_pools(config: ESCConfig, pixels: int) -> int:
    """What papers count and no product makes: 5 per normalised value, 1 per pooled value."""
    norms = 3 + config.num_conv_layers * config.norm_in_conv_layers
    values = config.num_blocks * (5 * config.dim * norms + config.num_conv_layers * config.pdim)
    return (values + 5 * config.dim * config.norm_before_last_conv) * pixels


@pytest.mark.parametrize("name", ["esc-light", "esc-fp", "esc-tiny"])
def test_the_counter_agrees_with_the_papers_formula(name: str) -> None:
    """On a size that is no multiple of a window, but for what no product makes.

    The decomposed large kernel and the dynamic one convolve apart in a network that is not folded;
    the formula has them added up.
    """
    config, pixels = variant(name, scale=4), 40 * 56
    network = as_published(ESC(config))
    expected = count_macs(config, 40, 56) - _norms_and_pools(config, pixels)
    if config.large_kernel == "decomposed":
        expected += config.num_blocks * config.num_conv_layers * config.pdim * 9 * pixels
    assert count_products(network, 40, 56) == expected
    assert arithmetic_of(network, 40, 56).macs == expected


def test_products_are_listed_by_shape() -> None:
    """One window of 256 tokens in each of 2 layers: 2 heads, so 131,072 exps each."""
    config = variant("esc-tiny", scale=2)
    arithmetic = arithmetic_of(as_published(ESC(config)), 16, 16)
    assert arithmetic.exps == 2 * 2 * 256 * 256
    assert arithmetic.products[Product("batched", 2, 256, 16, 256)] == 2
    assert arithmetic.products[Product("convolution 13x13", 1, 256, 8 * 169, 8)] == 8
    assert arithmetic.products[Product("convolution 3x3", 40, 256, 9, 1)] == 8


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transposed_convolutions_are_counted_by_what_comes_in(scale: int) -> None:
    """Both counters agree; by hand, the first product at x4."""
    config = variant("esc-real-m-transpose-conv", scale=scale, num_blocks=1, num_conv_layers=1)
    network = as_published(ESC(config))
    arithmetic = arithmetic_of(network, 32, 32)
    assert arithmetic.macs == count_products(network, 32, 32)
    first = Product("transposed convolution 4x4", 1, 1024, 64, 64 * 16)
    assert (first in arithmetic.products) == (scale == 4)


def test_a_floor_without_the_large_kernel_is_lower() -> None:
    """Its direct arithmetic is 43 % of ESC's; with none of it only the others remain."""
    network = ESC(variant("esc-tiny", scale=4))
    floor = floor_of_network(network, 16, 16, large_kernel_macs_per_pixel=0.0)
    macs = floor.arithmetic.macs
    large = 8 * 256 * 8 * 8 * 169
    assert sum(floor.arithmetic.products[p] * p.macs for p in floor.large_kernel_products) == large
    measured = floor.measure()
    best = max(measured.gigaflops.values()) * 1e9 / 2
    assert measured.direct_ms == pytest.approx(1000 * macs / best)
    assert measured.remaining_ms is not None
    at_best = (macs - large) / best + floor.arithmetic.exps / (1e9 * measured.gigaexps)
    assert measured.remaining_ms >= 1000 * at_best * (1 - 1e-9)
    unknown = replace(floor, large_kernel_macs=None)
    assert unknown._remaining_ms({}, 1.0, 1.0) is None


def test_times_over_the_floor_are_of_rounds() -> None:
    """A floor of 10 ms in one round and of 20 ms in the next, when all was slower."""
    ours = _result("esc", [30.0, 50.0], 10)
    rounds = (
        FloorRound(direct_ms=10.0, remaining_ms=5.0, gigaflops={"a": 1.0}, gigaexps=1.0),
        FloorRound(direct_ms=20.0, remaining_ms=None, gigaflops={"a": 1.0}, gigaexps=1.0),
    )
    floor = SubjectResult(subject=floor_of("esc"), floor_rounds=rounds)
    benchmark = _benchmark(ours, floor)
    direct = benchmark.over_floor("esc@x", direct=True)
    remaining = benchmark.over_floor("esc@x", direct=False)
    assert direct is not None and (direct.low, direct.high) == (2.5, 3.0)
    assert remaining is not None and remaining.median == 6.0
    assert [one.label for one in benchmark.subjects] == ["esc@x"]


def test_the_peak_is_above_what_was_loaded() -> None:
    """64 MB that come and go are seen; 8 MB of slack is for the interpreter."""
    loaded_bytes = resident_bytes()
    if loaded_bytes is None:
        pytest.skip("this system does not tell what is resident")

    def run() -> None:
        torch.ones(16 * 2**20)

    measured = measure_round(run, repeats=2, device=torch.device("cpu"), loaded_bytes=loaded_bytes)
    assert measured.peak_memory_bytes is not None
    assert 2**26 - 2**23 < measured.peak_memory_bytes < 2**26 + 2**23


def test_without_the_kernels_mark_memory_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few milliseconds, so 64 MB that stay for 0.1 s are seen."""
    if resident_bytes() is None:
        pytest.skip("this system does not tell what is resident")
    closed = Path("/proc/self/closed/clear_refs")
    monkeypatch.setattr("escsr.evaluation.benchmark.measuring._CLEAR_REFS", closed)
    before = resident_bytes() or 0
    with resident_peak() as peak:
        block = torch.ones(16 * 2**20)
        time.sleep(0.1)
        del block
    assert peak.num_bytes is not None
    assert peak.num_bytes - before > 2**26 - 2**23


def test_the_fastest_of_several_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of all is not timed; three are enough where they take long."""
    clock = [0.0]
    naps = iter([0.001, 0.2, 0.1, 0.3])

    def nap() -> None:
        clock[0] += next(naps)

    monkeypatch.setattr("escsr.evaluation.benchmark.measuring.time.perf_counter", lambda: clock[0])
    assert fastest_seconds(nap) == pytest.approx(0.1)


def test_a_slower_subject_is_a_regression() -> None:
    """100 -> 20 ms was five times faster than the baseline; 40 ms is half of that."""
    old = _benchmark(_result("base", [100.0, 110.0], 50), _result("esc", [20.0, 22.0], 10))
    new = _benchmark(_result("base", [200.0, 210.0], 50), _result("esc", [80.0, 84.0], 10))
    base, change = compare_benchmarks(old, new).changes
    assert base.speed is None
    assert change.speed == pytest.approx(0.5)
    assert change.is_regression(0.05) and not change.is_regression(1.1)
    assert not any(one.is_regression(0.05) for one in compare_benchmarks(old, old).changes)


def test_a_speed_whose_rounds_overlap_is_no_regression_and_memory_always_is() -> None:
    """Ratios of 4 to 6 before and 3 to 5 now say nothing; 20 % more memory does."""
    old = _benchmark(_result("base", [100.0, 100.0], 50), _result("esc", [25.0, 100 / 6], 10))
    noisy = _benchmark(_result("base", [100.0, 100.0], 50), _result("esc", [100 / 3, 20.0], 10))
    larger = _benchmark(_result("base", [100.0, 100.0], 50), _result("esc", [25.0, 100 / 6], 12))
    assert not compare_benchmarks(old, noisy).changes[1].is_regression(0.05)
    assert compare_benchmarks(old, larger).changes[1].is_regression(0.05)
    assert not compare_benchmarks(larger, old).changes[1].is_regression(0.05)


def test_only_runs_of_equal_conditions_are_compared() -> None:
    """Another size, another baseline, nothing in common; what is missing now is named."""
    old = _benchmark(_result("base", [100.0], 50), _result("esc", [20.0], 10))
    smaller = replace(old, conditions=replace(old.conditions, lr_width=160))
    with pytest.raises(ConfigurationError, match="LR width was 320 and is 160"):
        compare_benchmarks(old, smaller)
    with pytest.raises(ConfigurationError, match="baseline"):
        compare_benchmarks(old, replace(old, baseline="esc@x"))
    on_a_gpu = replace(old, conditions=replace(old.conditions, device="cuda:1"))
    with pytest.raises(ConfigurationError, match="kind of device was cpu and is cuda"):
        compare_benchmarks(old, on_a_gpu)
    fewer = _benchmark(_result("base", [100.0], 50))
    assert compare_benchmarks(old, fewer).missing == ("esc@x",)


def test_another_gpu_is_told() -> None:
    """By its name; which of several it is does not matter."""
    one, other = (
        replace(
            _benchmark(_result("base", [100.0], 50)),
            conditions=Conditions(scale=4, lr_width=320, lr_height=180, device=device),
            environment=ENVIRONMENT | {"gpu": {"name": name}},
        )
        for device, name in (("cuda", "small"), ("cuda:1", "large"))
    )
    assert compare_benchmarks(one, other).notes == ("GPU: small before, large now",)
    assert compare_benchmarks(one, one).notes == ()


def test_floors_of_files_of_one_name_are_told_apart() -> None:
    """Each is a subject of its own, so their labels show the folders."""
    assert floor_of("a/x.pth").label != floor_of("b/x.pth").label


def test_a_file_named_like_a_rival_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are the user's, so they have no published quality, and are not random."""

    def load(name: str) -> Rival:
        return Rival(
            name=Path(name).stem,
            network=nn.Conv2d(3, 3, 1),
            scale=4,
            architecture="other",
            parameters=12,
            sha256=None,
        )

    monkeypatch.setattr("escsr.evaluation.benchmark.loading.load_rival", load)
    conditions = Conditions(scale=4, lr_width=8, lr_height=8)
    for name in ("rcan", "plksr"):
        (subject,) = parse_rival(f"mine/{name}.pth")
        portrait = load_subject(subject, conditions).portrait
        assert portrait == Portrait(parameters=12, macs=9 * 64)


def test_results_lie_beside_each_other_and_replace_only_their_own(tmp_path: Path) -> None:
    """JSON, Markdown and a picture of one name; a folder gets benchmark.json."""
    from escsr.errors import OutputExistsError

    benchmark = _benchmark(_result("esc", [20.0], 10))
    paths = prepare_result_paths(tmp_path / "new")
    assert paths.json == tmp_path / "new" / "benchmark.json"
    write_results(paths, benchmark, b"PNG")
    names = ["benchmark.json", "benchmark.md", "benchmark.png"]
    assert sorted(path.name for path in paths.json.parent.iterdir()) == names
    write_results(prepare_result_paths(paths.json), benchmark, None)
    assert not paths.figure.exists()
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="no result of escsr benchmark"):
        prepare_result_paths(tmp_path / "mine.json")
    assert prepare_result_paths(tmp_path / "mine.json", overwrite=True).json.name == "mine.json"


def test_the_picture_shows_whose_quality_is_known() -> None:
    """Of two networks and more; others are left out."""
    from escsr.analysis.drawing import as_png
    from escsr.analysis.quality_and_latency import discs_of, draw_quality_and_latency

    unknown = replace(_result("c", [9.0], 1), portrait=Portrait())
    benchmark = _benchmark(
        _result("a", [20.0], 10), unknown, _result("b", [40.0], 20, kind="rival")
    )
    assert [disc.label for disc in discs_of(benchmark, "Set5")] == ["b@x", "a@x"]
    figure = draw_quality_and_latency(benchmark)
    assert figure is not None
    assert as_png(figure).startswith(b"\x89PNG")
    assert draw_quality_and_latency(benchmark, test_set="Urban100") is None
