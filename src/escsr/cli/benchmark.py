"""``escsr benchmark``: time networks beside each other."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from escsr.cli.console import SOME_FAILED, printable

if TYPE_CHECKING:
    from escsr.evaluation.benchmark import Benchmark, Conditions, Subject
    from escsr.evaluation.benchmark.report import ResultPaths


MODEL_HELP = (
    "A network of the family or a checkpoint, with @BACKEND or @BACKEND+ATTENTION behind it; @all "
    "is every back-end that runs here. Default: esc-tiny@all."
)
RIVAL_HELP = (
    "A rival by name (swinir-light, atd-light, craft, plksr, span, rcan, hat), a file that "
    "spandrel loads, or module:callable; with @eager, @channels-last or @compiled behind it. May "
    "be repeated."
)
BEST_HELP = "Without a back-end or mode behind @, measure all, and mark each network's fastest."
FLOOR_HELP = "Measure what arithmetic alone would take, and how far above it each back-end is."
LARGE_KERNEL_HELP = (
    "What one layer's large kernel needs per pixel where it is not direct, for the floor of what "
    "remains."
)
OUT_HELP = "A .json file, or a folder for benchmark.json; Markdown and a picture come beside it."
TEST_SET_HELP = "Whose PSNR the picture shows. Default: that of most networks."
COMPARE_HELP = "Compare two results instead: --compare OLD.json NEW.json."
TOLERANCE_HELP = "Of --compare: how much slower or larger is still alike, in percent."
TIME_HELP = "Seconds that one network may take to load, compile and warm up, and for each round."


class BenchmarkPrecision(StrEnum):
    """What the networks compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


ModelsArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL]...", help=MODEL_HELP, show_default=False)
]
RivalOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help=RIVAL_HELP, show_default=False)
]
ScaleOption: TypeAlias = Annotated[int, typer.Option("-s", "--scale", min=1)]
SizeOption: TypeAlias = Annotated[str, typer.Option(help="Of the result, WIDTHxHEIGHT.")]
LrSizeOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Of the LR image instead, WIDTHxHEIGHT.", show_default=False)
]
RoundsOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Each holds every network once.")]
RepeatsOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Timed runs of a network in each round.")
]
WarmUpOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Runs before the first round. Default: 1; 10 on a GPU.", metavar="N"),
]
ThreadsOption: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Default: as many as there are cores.", metavar="N")
]
LargeKernelOption: TypeAlias = Annotated[
    float | None, typer.Option(metavar="MACS", help=LARGE_KERNEL_HELP, show_default=False)
]
BaselineOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LABEL", help="Ratios are to it. Default: the first.")
]
OutOption: TypeAlias = Annotated[
    Path | None, typer.Option("-o", "--out", help=OUT_HELP, show_default=False)
]
CompareOption: TypeAlias = Annotated[
    tuple[Path, Path] | None,
    typer.Option(metavar="OLD NEW", help=COMPARE_HELP, show_default=False),
]
Tf32Option: TypeAlias = Annotated[
    bool, typer.Option("--tf32", help="Let a GPU round float32 factors.")
]
BestOption: TypeAlias = Annotated[bool, typer.Option("--best", help=BEST_HELP)]
FloorOption: TypeAlias = Annotated[bool, typer.Option("--floor", help=FLOOR_HELP)]
TimeLimitOption: TypeAlias = Annotated[float, typer.Option(min=1, help=TIME_HELP)]
OverwriteOption: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace files not ours.")
]
TestSetOption: TypeAlias = Annotated[
    str | None, typer.Option(help=TEST_SET_HELP, show_default=False)
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
ToleranceOption: TypeAlias = Annotated[float, typer.Option(min=0, help=TOLERANCE_HELP)]


def parse_size(text: str, *, option: str) -> tuple[int, int]:
    """Read ``1280x720``.

    Returns:
        (width, height), in pixels.
    Raises:
        ConfigurationError: anything else.
    """
    from escsr.errors import ConfigurationError

    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text, re.ASCII)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(sides) < 1:
        raise ConfigurationError(f"{option} is {text!r}; write WIDTHxHEIGHT, such as 1280x720.")
    return sides


def benchmark_command(
    model: ModelsArgument = None,
    rival: RivalOption = None,
    scale: ScaleOption = 4,
    size: SizeOption = "1280x720",
    lr_size: LrSizeOption = None,
    precision: BenchmarkPrecision = BenchmarkPrecision.FLOAT32,
    tf32: Tf32Option = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    rounds: RoundsOption = 5,
    repeats: RepeatsOption = 3,
    warm_up: WarmUpOption = None,
    best: BestOption = False,
    baseline: BaselineOption = None,
    floor: FloorOption = False,
    large_kernel_macs: LargeKernelOption = None,
    time_limit: TimeLimitOption = 1200,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    test_set: TestSetOption = None,
    json: JsonOption = False,
    compare: CompareOption = None,
    tolerance: ToleranceOption = 5.0,
) -> None:
    """Measure latency and peak memory of networks, each in a process of its own.

    Networks take turns over several rounds, so that drift of the machine hits all alike; the ratios
    to a baseline, with their spread, are the result. What fails is named, the others go on, and the
    exit status is 1. Ctrl-C keeps the rounds that are finished.
    """
    if compare is not None:
        _compare(compare, tolerance / 100, as_json=json)
        return
    conditions = _conditions(
        lr_side=_lr_size(scale, size, lr_size),
        scale=scale,
        device=device,
        precision=precision.value,
        tf32=tf32,
        threads=threads,
        rounds=rounds,
        repeats=repeats,
        warm_up=warm_up,
    )
    subjects = _subjects(model or [], rival or [], conditions.device, best=best)
    if floor:
        subjects = [*subjects, *_floors(subjects, conditions, large_kernel_macs)]
    paths = _result_paths(out, overwrite=overwrite)
    benchmark, status = _measured(subjects, conditions, baseline, time_limit)
    _store_and_show(benchmark, paths, as_json=json)
    if paths is not None:
        _add_picture(benchmark, paths, test_set)
    if status != 0:
        raise typer.Exit(status)


def _lr_size(scale: int, size: str, lr_size: str | None) -> tuple[int, int]:
    """(width, height) of the LR image; where the factor does not divide, as papers do: 427x240."""
    if lr_size is not None:
        return parse_size(lr_size, option="--lr-size")
    width, height = parse_size(size, option="--size")
    return max(1, round(width / scale)), max(1, round(height / scale))


def _conditions(
    *,
    lr_side: tuple[int, int],
    scale: int,
    device: str,
    precision: str,
    tf32: bool,
    threads: int | None,
    rounds: int,
    repeats: int,
    warm_up: int | None,
) -> "Conditions":
    import torch

    from escsr.engines.devices import choose_device
    from escsr.evaluation.benchmark import Conditions

    chosen = torch.device(choose_device(device))
    return Conditions(
        scale=scale,
        lr_width=lr_side[0],
        lr_height=lr_side[1],
        precision=precision,
        device=str(chosen),
        threads=threads or torch.get_num_threads(),
        rounds=rounds,
        repeats=repeats,
        warm_up=warm_up or (10 if chosen.type == "cuda" else 1),
        tf32=tf32,
    )


def _subjects(models: list[str], rivals: list[str], device: str, *, best: bool) -> "list[Subject]":
    import torch

    from escsr.evaluation.benchmark.subject import parse_ours, parse_rival, told_apart

    chosen = torch.device(device)
    wanted = models if models or rivals else ["esc-tiny@all"]
    ours = [subject for text in wanted for subject in parse_ours(text, chosen, best=best)]
    others = [subject for text in rivals for subject in parse_rival(text, best=best)]
    return told_apart([*ours, *others])


def _floors(
    subjects: "list[Subject]", conditions: "Conditions", large_kernel_macs: float | None
) -> "list[Subject]":
    from escsr.errors import ConfigurationError
    from escsr.evaluation.benchmark.subject import floor_of

    if conditions.device != "cpu" or conditions.precision != "float32":
        raise ConfigurationError("--floor is of a CPU in float32; leave it out, or --device cpu.")
    sources = dict.fromkeys(one.source for one in subjects if one.kind == "ours")
    return [floor_of(source, large_kernel_macs=large_kernel_macs) for source in sources]


def _result_paths(out: Path | None, *, overwrite: bool) -> "ResultPaths | None":
    from escsr.evaluation.benchmark.report import prepare_result_paths

    return None if out is None else prepare_result_paths(out, overwrite=overwrite)


def _measured(
    subjects: "list[Subject]", conditions: "Conditions", baseline: str | None, limit_s: float
) -> "tuple[Benchmark, int]":
    """What was measured, and the exit status."""
    from escsr.cli.benchmark_view import progress_shown
    from escsr.cli.console import interrupted_status, stopping_cleanly
    from escsr.evaluation.benchmark import BenchmarkRun

    run = BenchmarkRun(subjects, conditions, baseline=baseline, limit_s=limit_s)
    with stopping_cleanly(), run:
        try:
            with progress_shown(run.num_steps) as on_step:
                run.run(on_step)
        except KeyboardInterrupt as interruption:
            return run.benchmark(interrupted=True), interrupted_status(interruption)
    benchmark = run.benchmark()
    has_failed = any(one.failure is not None for one in benchmark.results)
    return benchmark, SOME_FAILED if has_failed else 0


def _store_and_show(benchmark: "Benchmark", paths: "ResultPaths | None", *, as_json: bool) -> None:
    """Files first, and where the disk fails all is shown nevertheless."""
    from escsr.evaluation.benchmark.report import write_results

    try:
        if paths is not None:
            write_results(paths, benchmark, None)
            typer.echo(f"Results: {printable(paths.json)}", err=True)
    finally:
        _show(benchmark, as_json=as_json)


def _add_picture(benchmark: "Benchmark", paths: "ResultPaths", test_set: str | None) -> None:
    """Draw, and write the results once more, with the picture on their page."""
    from escsr.analysis.drawing import as_png
    from escsr.analysis.quality_and_latency import draw_quality_and_latency
    from escsr.errors import MissingExtraError
    from escsr.evaluation.benchmark.report import write_results

    try:
        figure = draw_quality_and_latency(benchmark, test_set=test_set)
    except MissingExtraError:
        typer.echo("There is no picture without matplotlib: pip install 'escsr[plots]'", err=True)
        return
    if figure is None:
        typer.echo("There is no picture: fewer than two networks have a known quality.", err=True)
        return
    write_results(paths, benchmark, as_png(figure))


def _show(benchmark: "Benchmark", *, as_json: bool) -> None:
    """The table or the JSON on stdout, and what failed on stderr."""
    from escsr.cli.benchmark_view import print_benchmark
    from escsr.evaluation.benchmark.record import as_json as json_of
    from escsr.evaluation.benchmark.report import failures_in_words

    if as_json:
        typer.echo(json_of(benchmark), nl=False)
    else:
        print_benchmark(benchmark)
    for line in failures_in_words(benchmark):
        typer.echo(f"FAILED: {printable(line)}", err=True)
    if benchmark.interrupted:
        typer.echo("Interrupted; the finished rounds are kept.", err=True)


def _compare(paths: tuple[Path, Path], tolerance: float, *, as_json: bool) -> None:
    from escsr.cli.benchmark_view import changes_as_json, print_changes
    from escsr.evaluation.benchmark.record import read_benchmark
    from escsr.evaluation.benchmark.report import compare_benchmarks

    old, new = (read_benchmark(path) for path in paths)
    changes = compare_benchmarks(old, new)
    if as_json:
        typer.echo(changes_as_json(changes, tolerance))
    else:
        print_changes(changes, tolerance, baseline=new.baseline)
    is_worse = any(change.is_regression(tolerance) for change in changes.changes)
    if is_worse or changes.missing:
        raise typer.Exit(SOME_FAILED)
