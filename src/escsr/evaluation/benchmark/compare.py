"""Two benchmarks beside each other: what became slower, or needs more memory."""

from dataclasses import dataclass

from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.record import Benchmark


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
        notes=tuple(_notes(old, new)),
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


def _notes(old: Benchmark, new: Benchmark) -> list[str]:
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
