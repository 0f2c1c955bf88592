"""Write a benchmark: tables for the terminal and Markdown, changes since another, and files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import ConfigurationError, ImageWriteError, OutputExistsError
from escsr.evaluation.benchmark.record import (
    Benchmark,
    Spread,
    SubjectResult,
    as_json,
    read_benchmark,
)
from escsr.evaluation.report import markdown_table, not_writable
from escsr.temporary_files import replace_file


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


def as_markdown(benchmark: Benchmark, *, figure: str | None = None) -> str:
    """The table, the conditions, what failed, and the machine.

    Args:
        benchmark: what to tell.
        figure: name of the picture's file, beside the page.
    """
    parts = [
        f"# Latency and memory at x{benchmark.conditions.scale}",
        *_parts_of(timing_table(benchmark)),
        "## Networks",
        *_parts_of(network_table(benchmark)),
    ]
    if figure is not None:
        parts.append(f"![Quality against latency; the area is memory]({figure})")
    if failures := failures_in_words(benchmark):
        parts.append("## What failed\n\n" + "\n".join(f"- {failure}" for failure in failures))
    rates = _rates(benchmark)
    if rates:
        parts.append(rates)
    parts.append(_machine(benchmark))
    return "\n\n".join(parts) + "\n"


def _parts_of(table: Table) -> list[str]:
    alignment = ["---", *["---:"] * (len(table.headings) - 1)]
    parts = [markdown_table([table.headings, alignment, *table.rows])]
    return [*parts, "\n".join(f"- {note}" for note in table.notes)] if table.notes else parts


def _rates(benchmark: Benchmark) -> str | None:
    """The best rates of the last round, by shape."""
    measured = [floor.floor_rounds[-1] for floor in benchmark.floors if floor.floor_rounds]
    if not measured:
        return None
    rows = [("Product", "GFLOP/s"), ("---", "---:")]
    rates = {name: rate for one in measured for name, rate in one.gigaflops.items()}
    rows += [(name, f"{rate:.0f}") for name, rate in sorted(rates.items())]
    exps = f"exp: {measured[-1].gigaexps:.2f} G/s."
    return f"## Rates behind the floor\n\n{markdown_table(rows)}\n\n{exps}"


def _machine(benchmark: Benchmark) -> str:
    environment = benchmark.environment
    packages = ", ".join(f"{name} {found}" for name, found in environment["packages"].items())
    facts = {
        "Date": environment["date"],
        "escsr": f"{environment['escsr']}, revision {environment['git_revision'] or 'unknown'}",
        "Processor": f"{environment['processor']}, {environment['instructions']}, "
        f"{environment['cores']} cores",
        "GPU": _gpu(environment["gpu"]),
        "Software": f"torch {environment['torch']}, Python {environment['python']}, {packages}",
        "System": environment["system"],
    }
    rows = [("", ""), ("---", "---"), *facts.items()]
    return "## Machine\n\n" + markdown_table(rows)


def _gpu(gpu: dict[str, object] | None) -> str:
    return "-" if gpu is None else f"{gpu['name']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One subject that both runs hold."""

    label: str
    speed: float | None
    """New ratio to the baseline over the old one: below 1 it became slower; None of the baseline
    itself, and where one of both was not measured."""
    memory: float | None
    """Old peak over new peak: below 1 it needs more."""
    is_certain: bool
    """The ratios of the rounds of both runs do not overlap."""

    def is_regression(self, tolerance: float) -> bool:
        """Whether it became worse by more than a tolerance, such as 0.05 for 5 %."""
        least = 1 / (1 + tolerance)
        is_slower = self.speed is not None and self.speed < least and self.is_certain
        return is_slower or (self.memory is not None and self.memory < least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What two runs say of each other."""

    changes: tuple[Change, ...]
    """In the order of the new run."""
    missing: tuple[str, ...]
    """Subjects that were measured before, and are not now."""
    notes: tuple[str, ...]


def compare_benchmarks(old: Benchmark, new: Benchmark) -> Changes:
    """Compare each subject's ratio to the baseline with what it was.

    A ratio of ratios does not notice a machine that is slower as a whole; it does notice a baseline
    that became faster, so take one that does not change, such as ``MODEL@reference``.

    Args:
        old: an earlier run.
        new: of the same conditions, with the same baseline.
    Raises:
        ConfigurationError: conditions, kinds of device or baselines differ, or no subject is in
            both.
    """
    _require_comparable(old, new)
    known = {one.label: one for one in old.subjects if one.latency_ms is not None}
    changes = [_change(old, new, one.label) for one in new.subjects if one.label in known]
    if not changes:
        raise ConfigurationError(
            "Both runs have no subject in common; measure the same models and back-ends again."
        )
    measured = {one.label for one in new.subjects if one.latency_ms is not None}
    return Changes(
        changes=tuple(changes),
        missing=tuple(label for label in known if label not in measured),
        notes=tuple(_notes_on_change(old, new)),
    )


def _require_comparable(old: Benchmark, new: Benchmark) -> None:
    before, after = old.conditions, new.conditions
    same = {
        "scale": (before.scale, after.scale),
        "LR width": (before.lr_width, after.lr_width),
        "LR height": (before.lr_height, after.lr_height),
        "precision": (before.precision, after.precision),
        "TF32": (before.tf32, after.tf32),
        "kind of device": (_kind(before.device), _kind(after.device)),
        "baseline": (old.baseline, new.baseline),
    }
    for name, (one, other) in same.items():
        if one != other:
            raise ConfigurationError(
                f"The {name} was {one} and is {other}; only runs that agree in it are compared. "
                "Measure again with the earlier run's options."
            )


def _change(old: Benchmark, new: Benchmark, label: str) -> Change:
    before, after = old.times_faster(label), new.times_faster(label)
    was, now = old.result(label), new.result(label)
    assert was is not None and now is not None
    peaks = (was.peak_memory_bytes, now.peak_memory_bytes)
    speed, is_certain = None, False
    if label != new.baseline and before is not None and after is not None:
        speed = after.median / before.median
        is_certain = after.high < before.low or after.low > before.high
    memory = peaks[0] / peaks[1] if peaks[0] and peaks[1] else None
    return Change(label=label, speed=speed, memory=memory, is_certain=is_certain)


def _kind(device: str) -> str:
    """``cuda`` of ``cuda:1``."""
    return device.partition(":")[0]


def _notes_on_change(old: Benchmark, new: Benchmark) -> list[str]:
    names = ("processor", "torch", "cores")
    told = {name: (old.environment[name], new.environment[name]) for name in names}
    told["GPU"] = (_gpu_name(old), _gpu_name(new))
    told["threads"] = (old.conditions.threads, new.conditions.threads)
    return [
        f"{name}: {before} before, {now} now"
        for name, (before, now) in told.items()
        if before != now
    ]


def _gpu_name(benchmark: Benchmark) -> str | None:
    gpu = benchmark.environment["gpu"]
    return None if gpu is None else gpu["name"]


_STEM = "benchmark"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultPaths:
    """The files of one run, beside each other."""

    json: Path

    @property
    def markdown(self) -> Path:
        """The page."""
        return self.json.with_suffix(".md")

    @property
    def figure(self) -> Path:
        """The picture."""
        return self.json.with_suffix(".png")


def prepare_result_paths(out: Path, *, overwrite: bool = False) -> ResultPaths:
    """Find out before the work whether its results may be stored, and make the folder.

    Args:
        out: a ``.json`` file, or a folder, new or not, that gets ``benchmark.json``.
        overwrite: replace files that are not ours.
    Raises:
        OutputExistsError: a file of that name is no benchmark of ours.
        ImageWriteError: the folder cannot be made, or is closed to us.
    """
    path = out if out.suffix.lower() == ".json" else out / f"{_STEM}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path.parent, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageWriteError(f"The folder {path.parent} may not be written to; choose another.")
    paths = ResultPaths(json=path)
    if not overwrite and not _is_free(paths):
        raise OutputExistsError(
            f"{path} or its .md or .png is there, and is no result of escsr benchmark. Choose "
            "another name, or allow overwriting."
        )
    return paths


def write_results(paths: ResultPaths, benchmark: Benchmark, picture: bytes | None) -> None:
    """Write the files; each is complete or not there, and the JSON, which holds all, comes first.

    Args:
        paths: from ``prepare_result_paths``.
        benchmark: what to tell.
        picture: a PNG file's bytes, where there is one.
    Raises:
        ImageWriteError: the disk is full, or a file is closed to us.
    """
    name = paths.figure.name if picture is not None else None
    try:
        replace_file(paths.json, as_json(benchmark).encode("utf-8"))
        page = as_markdown(benchmark, figure=name)
        if picture is not None:
            replace_file(paths.figure, picture)
        else:
            paths.figure.unlink(missing_ok=True)
        replace_file(paths.markdown, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise not_writable(paths.json.parent, error) from error


def _is_free(paths: ResultPaths) -> bool:
    """Nothing is there, or all of it is an earlier result."""
    if not any(path.exists() for path in (paths.json, paths.markdown, paths.figure)):
        return True
    try:
        read_benchmark(paths.json)
    except ConfigurationError:
        return False
    return True
