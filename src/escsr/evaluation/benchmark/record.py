"""What a benchmark holds, and its JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from escsr.errors import ConfigurationError
from escsr.evaluation.benchmark.subject import Subject

JSON_FORMAT = "escsr benchmark 1"
"""By which our own results are recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What is the same for every subject."""

    scale: int
    lr_width: int
    lr_height: int
    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    rounds: int = 5
    repeats: int = 3
    """Timed runs of each subject in each round."""
    warm_up: int = 1
    """Runs before the first round, which are not timed."""
    tf32: bool = False
    """Whether a GPU may round the factors of float32 products to 10 bits."""

    @property
    def output_size(self) -> str:
        """Of the result, such as ``1280x720``."""
        return f"{self.scale * self.lr_width}x{self.scale * self.lr_height}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Y-PSNR in dB by test set."""

    psnr_db: dict[str, float]
    origin: Literal["measured", "published"]
    """``measured`` by us with these weights, or ``published`` for this network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """What is known of a subject before it runs."""

    parameters: int | None = None
    macs: int | None = None
    """Of convolutions and matrix products for one image."""
    quality: Quality | None = None
    random_weights: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One subject's share of one round."""

    latencies_ms: tuple[float, ...]
    peak_memory_bytes: int | None = None
    """On CUDA what was allocated at most, with the weights; on a CPU how much more was resident at
    most than once the network was loaded. None where it cannot be measured."""
    reserved_memory_bytes: int | None = None
    """On CUDA what torch held at most; on a CPU what the whole process did."""

    @property
    def latency_ms(self) -> float:
        """The median."""
        return statistics.median(self.latencies_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class FloorRound:
    """What arithmetic alone would take, at the rates of one round."""

    direct_ms: float
    """Every multiply-accumulate, the large kernel's too, at the best matrix rate."""
    remaining_ms: float | None
    """Those that remain, each kind at the best rate for its shape, and the exps of the softmax;
    None where nobody said what the large kernel needs."""
    gigaflops: dict[str, float]
    """Best rate by shape."""
    gigaexps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None of no values."""
        if not values:
            return None
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectResult:
    """What came of a subject."""

    subject: Subject
    portrait: Portrait = field(default_factory=Portrait)
    preparation_seconds: float | None = None
    """From the start of its process to the end of its warm-up: loading, compiling."""
    rounds: tuple[Round, ...] = ()
    floor_rounds: tuple[FloorRound, ...] = ()
    failure: str | None = None
    """Why it stopped."""

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.subject.label

    @property
    def latency_ms(self) -> Spread | None:
        """Over rounds, of each round's median."""
        return Spread.of([one.latency_ms for one in self.rounds])

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest over rounds."""
        peaks = [one.peak_memory_bytes for one in self.rounds]
        return max((peak for peak in peaks if peak is not None), default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A whole run."""

    conditions: Conditions
    environment: dict[str, Any]
    """Machine, versions and switches, as ``describe_environment`` tells them."""
    baseline: str
    """Label of the subject that ratios refer to."""
    results: tuple[SubjectResult, ...]
    interrupted: bool = False

    @property
    def subjects(self) -> tuple[SubjectResult, ...]:
        """Without floors."""
        return tuple(one for one in self.results if one.subject.kind != "floor")

    @property
    def floors(self) -> tuple[SubjectResult, ...]:
        """Of networks of ours."""
        return tuple(one for one in self.results if one.subject.kind == "floor")

    def result(self, label: str) -> SubjectResult | None:
        """Of one subject."""
        return next((one for one in self.results if one.label == label), None)

    def times_faster(self, label: str) -> Spread | None:
        """How many times faster than the baseline, of each round both took part in."""
        baseline, subject = self.result(self.baseline), self.result(label)
        if baseline is None or subject is None:
            return None
        pairs = zip(baseline.rounds, subject.rounds, strict=False)
        return Spread.of([one.latency_ms / other.latency_ms for one, other in pairs])

    def times_less_memory(self, label: str) -> Spread | None:
        """How many times less memory than the baseline, likewise."""
        baseline, subject = self.result(self.baseline), self.result(label)
        if baseline is None or subject is None:
            return None
        pairs = [
            (one.peak_memory_bytes, other.peak_memory_bytes)
            for one, other in zip(baseline.rounds, subject.rounds, strict=False)
        ]
        return Spread.of([one / other for one, other in pairs if one and other])

    def over_floor(self, label: str, *, direct: bool) -> Spread | None:
        """How many times its floor a subject of ours takes, of each round."""
        subject = self.result(label)
        if subject is None or subject.subject.kind != "ours":
            return None
        floors = [one for one in self.floors if one.subject.source == subject.subject.source]
        if not floors:
            return None
        pairs = [
            (one.latency_ms, floor.direct_ms if direct else floor.remaining_ms)
            for one, floor in zip(subject.rounds, floors[0].floor_rounds, strict=False)
        ]
        return Spread.of([latency / floor for latency, floor in pairs if floor])


def as_json(benchmark: Benchmark) -> str:
    """Everything as JSON text; its keys are promised to programs.

    Ratios and medians, which follow from the rounds, stand in it for the reader.
    """
    content: dict[str, Any] = {"format": JSON_FORMAT, **asdict(benchmark)}
    for entry, result in zip(content["results"], benchmark.results, strict=True):
        if result.subject.kind == "floor":
            continue
        entry["summary"] = {
            "latency_ms": _entry(result.latency_ms),
            "peak_memory_bytes": result.peak_memory_bytes,
            "times_faster": _entry(benchmark.times_faster(result.label)),
            "times_less_memory": _entry(benchmark.times_less_memory(result.label)),
            "over_direct_floor": _entry(benchmark.over_floor(result.label, direct=True)),
            "over_remaining_floor": _entry(benchmark.over_floor(result.label, direct=False)),
        }
    return json.dumps(content, indent=2) + "\n"


def read_benchmark(path: Path) -> Benchmark:
    """Read what ``as_json`` wrote.

    Raises:
        ConfigurationError: the file is missing, or is no benchmark of ours.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror or error}); give the JSON file that "
            "escsr benchmark -o wrote."
        ) from error
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != JSON_FORMAT:
        raise ConfigurationError(
            f"{path} is no result of escsr benchmark; give the JSON file that its -o wrote."
        )
    try:
        return _benchmark(content)
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is a damaged result of escsr benchmark ({error}); measure again."
        ) from error


def _benchmark(content: dict[str, Any]) -> Benchmark:
    return Benchmark(
        conditions=Conditions(**content["conditions"]),
        environment=content["environment"],
        baseline=content["baseline"],
        results=tuple(map(_result, content["results"])),
        interrupted=content["interrupted"],
    )


def _result(entry: dict[str, Any]) -> SubjectResult:
    return SubjectResult(
        subject=Subject(**entry["subject"]),
        portrait=portrait_of(entry["portrait"]),
        preparation_seconds=entry["preparation_seconds"],
        rounds=tuple(map(round_of, entry["rounds"])),
        floor_rounds=tuple(FloorRound(**one) for one in entry["floor_rounds"]),
        failure=entry["failure"],
    )


def portrait_of(entry: dict[str, Any]) -> Portrait:
    """From plain JSON values."""
    quality, notes = entry["quality"], tuple(entry["notes"])
    known = Quality(**quality) if quality is not None else None
    return Portrait(**{**entry, "quality": known, "notes": notes})


def round_of(entry: dict[str, Any]) -> Round:
    """From plain JSON values."""
    return Round(**{**entry, "latencies_ms": tuple(entry["latencies_ms"])})


def _entry(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else asdict(spread)
