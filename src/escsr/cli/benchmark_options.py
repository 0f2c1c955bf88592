"""The options of ``escsr benchmark``."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

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
