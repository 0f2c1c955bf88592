"""A picture of a benchmark: quality against latency; a disc's area is memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from escsr.analysis.drawing import LINE_COLOURS, new_figure, shortened
from escsr.evaluation.benchmark.record import Benchmark

_LARGEST_AREA_POINTS = 1500.0
"""Of the disc of the subject that needs most memory, in square points."""
_SMALLEST_AREA_POINTS = 25.0
_LEGEND_SHARES = (1.0, 0.25)
_LABEL_POINTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Disc:
    """One subject."""

    label: str
    latency_ms: float
    psnr_db: float
    memory_bytes: int | None
    is_ours: bool
    is_published: bool
    """Its quality is a paper's, not measured by us."""


def draw_quality_and_latency(benchmark: Benchmark, *, test_set: str | None = None) -> Any | None:
    """Draw what is known to have a quality; None where fewer than two subjects have one.

    Args:
        benchmark: with latencies.
        test_set: whose PSNR is the height; that of most subjects unless given.
    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    name = test_set or most_known_test_set(benchmark)
    discs = discs_of(benchmark, name) if name is not None else []
    if len(discs) < 2:
        return None
    figure = new_figure(7.2, 4.6)
    panel = figure.subplots()
    largest = max((disc.memory_bytes or 0 for disc in discs), default=0)
    for disc in discs:
        _show(panel, disc, largest)
    _label(panel, discs, largest)
    conditions = benchmark.conditions
    device = "GPU" if benchmark.environment["gpu"] else "CPU"
    panel.set_xscale("log")
    panel.set(
        xlabel=f"latency in ms for {conditions.output_size} ({device}, {conditions.precision})",
        ylabel=f"PSNR-Y on {name} x{conditions.scale}, dB",
    )
    panel.margins(x=0.16, y=0.2)
    panel.grid(alpha=0.3)
    _tidy_ticks(panel)
    _legend(panel, discs, largest)
    return figure


def discs_of(benchmark: Benchmark, test_set: str) -> list[Disc]:
    """The subjects whose quality on a test set is known, and that were timed; slowest first."""
    discs: list[Disc] = []
    for one in benchmark.subjects:
        quality, latency = one.portrait.quality, one.latency_ms
        if quality is None or latency is None or test_set not in quality.psnr_db:
            continue
        disc = Disc(
            label=one.label,
            latency_ms=latency.median,
            psnr_db=quality.psnr_db[test_set],
            memory_bytes=one.peak_memory_bytes,
            is_ours=one.subject.kind == "ours",
            is_published=quality.origin == "published",
        )
        discs.append(disc)
    return sorted(discs, key=lambda disc: -disc.latency_ms)


def most_known_test_set(benchmark: Benchmark) -> str | None:
    """The test set that most subjects have a figure for; the first of equals."""
    counts: dict[str, int] = {}
    for one in benchmark.subjects:
        if one.portrait.quality is not None and one.latency_ms is not None:
            for name in one.portrait.quality.psnr_db:
                counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: counts[name], default=None)


def _area(memory_bytes: int | None, largest: int) -> float:
    share = (memory_bytes or 0) / largest if largest else 0.0
    return max(_SMALLEST_AREA_POINTS, _LARGEST_AREA_POINTS * share)


def _show(panel: Any, disc: Disc, largest: int) -> None:
    colour = LINE_COLOURS[0] if disc.is_ours else LINE_COLOURS[1]
    panel.scatter(
        [disc.latency_ms],
        [disc.psnr_db],
        s=_area(disc.memory_bytes, largest),
        color=colour,
        alpha=0.35,
        edgecolor=colour,
        linewidth=1.2,
        # Hatched and not only of another colour: ours and rivals differ in grey too.
        hatch=None if disc.is_ours else "////",
    )
    panel.plot([disc.latency_ms], [disc.psnr_db], marker=".", color="black", markersize=3)


def _label(panel: Any, discs: Sequence[Disc], largest: int) -> None:
    """Names in turn above and below, so that those of one height do not cover each other."""
    heights: dict[float, int] = {}
    for disc in discs:
        place = heights.get(disc.psnr_db, 0)
        heights[disc.psnr_db] = place + 1
        upwards = place % 2 == 0
        distance = _area(disc.memory_bytes, largest) ** 0.5 / 2 + 3 + 11 * (place // 2)
        panel.annotate(
            shortened(disc.label) + "°" * disc.is_published,
            (disc.latency_ms, disc.psnr_db),
            xytext=(0, distance if upwards else -distance),
            textcoords="offset points",
            ha="center",
            va="bottom" if upwards else "top",
            fontsize=_LABEL_POINTS,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.4"},
        )


def _tidy_ticks(panel: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(panel: Any, discs: Sequence[Disc], largest: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = []
    if largest:
        for share in _LEGEND_SHARES:
            side = _area(int(share * largest), largest) ** 0.5
            label = f"{share * largest / 1e6:,.0f} MB"
            entries.append(
                Line2D([], [], marker="o", linestyle="", markersize=side, label=label, mfc="none")
            )
            entries[-1].set_markeredgecolor("0.4")
    for is_ours, colour, label in (
        (True, LINE_COLOURS[0], "ours"),
        (False, LINE_COLOURS[1], "rival"),
    ):
        if any(disc.is_ours is is_ours for disc in discs):
            hatch = None if is_ours else "////"
            entries.append(Patch(fc=colour, ec=colour, alpha=0.35, hatch=hatch, label=label))
    if any(disc.is_published for disc in discs):
        entries.append(Line2D([], [], linestyle="", label="° quality as published"))
    if entries:
        panel.legend(
            handles=entries,
            fontsize=_LABEL_POINTS,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            labelspacing=2.3,
            handletextpad=2.0,
            frameon=False,
        )
