"""A benchmark as rows of text, for the terminal and for Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from escsr.evaluation.benchmark.record import Benchmark, Spread, SubjectResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Headings, rows, and what stands below."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One per subject, the label first; a cell without a figure is ``-``."""
    notes: tuple[str, ...]


def timing_table(benchmark: Benchmark) -> Table:
    """Latency and memory of all subjects, in the order they were named in.

    Columns that no subject has a figure for are left out.
    """
    subjects = benchmark.subjects
    labels = [one.label for one in subjects]
    best = set(fastest_modes(benchmark).values())
    columns = {
        "Subject": [label + " *" * (label in best) for label in labels],
        "ms": [_milliseconds(one) for one in subjects],
        "times faster": [spread_text(benchmark.times_faster(label)) for label in labels],
        "MB": [_megabytes(one.peak_memory_bytes) for one in subjects],
        "times less": [_median(benchmark.times_less_memory(label)) for label in labels],
        "/ direct floor": [
            spread_text(benchmark.over_floor(label, direct=True), 1) for label in labels
        ],
        "/ floor": [spread_text(benchmark.over_floor(label, direct=False)) for label in labels],
    }
    return _without_empty(columns, keep=("Subject", "ms"), notes=_notes(benchmark))


def network_table(benchmark: Benchmark) -> Table:
    """What is known of the networks, one row for all modes of one."""
    by_source = {one.subject.source: one for one in reversed(benchmark.subjects)}
    known = [one for one in reversed(by_source.values()) if one.portrait.parameters is not None]
    columns = {
        "Network": [one.subject.source for one in known],
        "parameters": [_count(one.portrait.parameters) for one in known],
        "GMAC": [_gigas(one.portrait.macs) for one in known],
        "PSNR-Y, dB": [_quality(one) for one in known],
        "weights": ["random" if one.portrait.random_weights else "its own" for one in known],
    }
    notes = [
        f"{one.subject.source}: {'; '.join(one.portrait.notes)}."
        for one in known
        if one.portrait.notes
    ]
    return _without_empty(columns, keep=("Network", "parameters"), notes=notes)


def conditions_in_words(benchmark: Benchmark) -> str:
    """One line: what was run on what, and how often."""
    conditions, environment = benchmark.conditions, benchmark.environment
    machine = environment["gpu"]["name"] if environment["gpu"] else environment["processor"]
    finished = max((len(one.rounds) for one in benchmark.subjects), default=0)
    of = f" of {conditions.rounds}" if finished < conditions.rounds else ""
    threads = f"{conditions.threads} thread{'s' * (conditions.threads != 1)}"
    tf32 = "" if environment["gpu"] is None else f", TF32 {'on' if conditions.tf32 else 'off'}"
    return (
        f"x{conditions.scale}, {conditions.lr_width}x{conditions.lr_height} to "
        f"{conditions.output_size}, batch 1, {conditions.precision}{tf32}, {threads}; "
        f"{finished}{of} rounds in turn, {conditions.repeats} runs in each; {machine}; torch "
        f"{environment['torch']}."
    )


def failures_in_words(benchmark: Benchmark) -> list[str]:
    """One line per subject that stopped; a floor that fails as its network does is none."""
    told = {(one.subject.source, one.failure) for one in benchmark.subjects}
    floors = [one for one in benchmark.floors if (one.subject.source, one.failure) not in told]
    return [
        f"{one.label}: {one.failure}"
        for one in (*benchmark.subjects, *floors)
        if one.failure is not None
    ]


def fastest_modes(benchmark: Benchmark) -> dict[str, str]:
    """Source -> label of its fastest subject, for sources of which several modes were measured."""
    by_source: dict[str, list[SubjectResult]] = {}
    for one in benchmark.subjects:
        by_source.setdefault(one.subject.source, []).append(one)
    best = dict[str, str]()
    for source, results in by_source.items():
        timed = [(one.latency_ms.median, one.label) for one in results if one.latency_ms]
        if len(results) > 1 and timed:
            best[source] = min(timed)[1]
    return best


def spread_text(spread: Spread | None, digits: int = 2) -> str:
    """The median, and in brackets the lowest and highest; ``-`` of none."""
    if spread is None:
        return "-"
    median, low, high = (
        f"{value:.{digits}f}" for value in (spread.median, spread.low, spread.high)
    )
    return median if low == high else f"{median} ({low}-{high})"


def _without_empty(
    columns: dict[str, list[str]], *, keep: Sequence[str], notes: list[str]
) -> Table:
    shown = {
        heading: cells
        for heading, cells in columns.items()
        if heading in keep or any(cell != "-" for cell in cells)
    }
    rows = tuple(zip(*shown.values(), strict=True))
    return Table(headings=tuple(shown), rows=rows, notes=tuple(notes))


def _milliseconds(result: SubjectResult) -> str:
    spread = result.latency_ms
    if spread is None:
        return "failed" if result.failure else "-"
    return spread_text(spread, 0 if spread.median >= 100 else 2)


def _quality(result: SubjectResult) -> str:
    quality = result.portrait.quality
    if quality is None:
        return "-"
    name = "Urban100" if "Urban100" in quality.psnr_db else next(iter(quality.psnr_db))
    return f"{quality.psnr_db[name]:.2f} {name}" + " (published)" * (quality.origin != "measured")


def _notes(benchmark: Benchmark) -> list[str]:
    memory = (
        "MB: the most that torch had allocated, weights included."
        if benchmark.environment["gpu"]
        else "MB: the most that was resident above the loaded network."
    )
    notes = [
        conditions_in_words(benchmark),
        f"Times faster than {benchmark.baseline}, and times less memory, of each round: median "
        f"(lowest-highest). {memory}",
    ]
    if fastest_modes(benchmark):
        notes.append("*: the fastest of one network.")
    if any(floor.floor_rounds for floor in benchmark.floors):
        notes.append(
            "Direct floor: every multiply-accumulate at the best matrix rate of its round; floor: "
            "what remains with the large kernel done another way, and the softmax's exps."
        )
    for floor in benchmark.floors:
        if not floor.floor_rounds:
            continue
        direct = Spread.of([one.direct_ms for one in floor.floor_rounds])
        found = [one.remaining_ms for one in floor.floor_rounds if one.remaining_ms is not None]
        text = f"{floor.label}: direct {spread_text(direct, 0)} ms"
        notes.append(f"{text}, what remains {spread_text(Spread.of(found), 0)} ms.")
    if benchmark.interrupted:
        notes.append("The run was interrupted; what was finished by then stands here.")
    return notes


def _median(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.2f}"


def _megabytes(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 1e6:.0f}"


def _gigas(macs: int | None) -> str:
    return "-" if macs is None else f"{macs / 1e9:.1f}"


def _count(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters:,}"
