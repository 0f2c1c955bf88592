"""``escsr analyze``: what a network does inside, as pictures and figures."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escsr.analysis.records import DEFAULT_CROP_PIXELS, DEFAULT_STEPS
from escsr.cli.console import SOME_FAILED, printable

if TYPE_CHECKING:
    from escsr.analysis.pictures import Patch, Picture
    from escsr.analysis.run import Analysis, Settings
    from escsr.evaluation.contenders import Contender

CHECKPOINT_HELP = (
    "The network: a name in the box, a checkpoint, any file that spandrel loads, module:callable."
)
IMAGE_HELP = "LR images, as the network would enlarge them: files, folders or globs."
AGAINST_HELP = "One more network beside it, on the same images; may be repeated."
PATCH_HELP = (
    "X,Y,SIDE in pixels of the first image: what the attribution explains. Default: 8 pixels of "
    "strong edges near its middle."
)
CROP_HELP = (
    "Longest side of the part of each image that is looked at, around its middle or the patch; "
    "less where memory does not suffice."
)
ONLY_HELP = "One of the questions; may be repeated. Default: all."
OUT_HELP = "Folder for pictures and analysis.json. Default: NAME-analysis; none with --json."


class Question(StrEnum):
    """What can be asked."""

    SIMILARITY = "similarity"
    RECEPTIVE_FIELD = "receptive-field"
    ATTRIBUTION = "attribution"
    KERNELS = "kernels"
    SPECTRUM = "spectrum"


def analyze_command(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, show_default=False)
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help=IMAGE_HELP, show_default=False)
    ],
    against: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help=AGAINST_HELP, show_default=False)
    ] = None,
    scale: Annotated[
        int | None, typer.Option("-s", "--scale", min=1, help="Of networks in the box.")
    ] = None,
    patch: Annotated[
        str | None, typer.Option(metavar="X,Y,SIDE", help=PATCH_HELP, show_default=False)
    ] = None,
    crop: Annotated[int, typer.Option(min=1, help=CROP_HELP)] = DEFAULT_CROP_PIXELS,
    steps: Annotated[int, typer.Option(min=1, help="Of the attribution's path.")] = DEFAULT_STEPS,
    only: Annotated[list[Question] | None, typer.Option(help=ONLY_HELP, show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[Path | None, typer.Option("-o", "--out", help=OUT_HELP)] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into an --out folder that is not ours.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look into a network: what its layers, kernels and attention do with images.

    Similarity of layers and attention maps, effective receptive field, local attribution of a
    patch, large and dynamic kernels, spectra. Questions that make no sense of a network are
    skipped, with the reason. Networks and images that cannot be used are named; the rest goes on,
    and the exit status is 1.
    """
    from escsr.engines.devices import choose_device

    wanted_patch = parse_patch(patch)
    import torch

    chosen_device = torch.device(choose_device(device))
    paths, failures = _image_paths(images)
    contenders = _contenders(checkpoint, against or [], scale, failures)
    folder = out if out is not None or json else Path(_folder_name(contenders[0].label))
    if folder is not None:
        from escsr.analysis.report import require_folder

        require_folder(folder, paths, overwrite=overwrite)
    crop_pixels = _affordable_crop(contenders, chosen_device, crop)
    pictures = _pictures(paths, crop_pixels, wanted_patch, failures)
    settings = _settings(chosen_device, pictures[0], wanted_patch, only, steps)
    analysis = _analysed(contenders, pictures, settings, crop_pixels)
    _tell(analysis, folder, as_json=json)
    for line in failures:
        typer.echo(f"FAILED: {printable(line)}", err=True)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _folder_name(label: str) -> str:
    """``esc-tiny`` -> ``esc-tiny-analysis``, without the colon of ``module:callable``."""
    return re.sub(r"[^\w.-]+", "-", label) + "-analysis"


def parse_patch(text: str | None) -> "Patch | None":
    """Read ``--patch``: three whole numbers, X,Y,SIDE.

    Raises:
        ConfigurationError: anything else.
    """
    from escsr.analysis.pictures import Patch
    from escsr.errors import ConfigurationError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigurationError(
            f"--patch is {text!r}; it must be X,Y,SIDE in pixels of the image, such as 40,32,8."
        )
    x, y, side = (int(part) for part in parts)
    return Patch(x=x, y=y, side=side)


def _image_paths(texts: Sequence[str]) -> tuple[list[Path], list[str]]:
    from escsr.cli.inputs import collect_inputs
    from escsr.errors import ConfigurationError
    from escsr.images.formats import READABLE_SUFFIXES

    found = collect_inputs(texts, suffixes=READABLE_SUFFIXES)
    failures = [f"{entry.text}: {entry.reason}" for entry in found.missing]
    failures += [f"{entry.path}: {entry.reason}" for entry in found.left_out if entry.is_failure]
    if not found.files:
        raise ConfigurationError(f"There is no image to look at. {' '.join(failures)}")
    return [file.path for file in found.files], failures


def _contenders(
    checkpoint: str, against: Sequence[str], scale: int | None, failures: list[str]
) -> "list[Contender]":
    """The network, which must be there, and those beside it, which may fail."""
    from escsr.errors import ConfigurationError, EscsrError
    from escsr.evaluation.contenders import BICUBIC, distinguished, open_contender

    if checkpoint.strip().lower() == BICUBIC:
        raise ConfigurationError("bicubic is no network, and there is nothing to see inside.")
    found = [open_contender(checkpoint, scale=scale)]
    for source in against:
        try:
            found.append(open_contender(source, scale=scale))
        except EscsrError as error:
            failures.append(f"{source}: {error}")
    return distinguished(found)


def _affordable_crop(contenders: "Sequence[Contender]", device: Any, wanted_pixels: int) -> int:
    """What every network can afford, so that all are shown the same."""
    from escsr.analysis.pictures import affordable_side

    sides: list[int] = []
    for contender in contenders:
        network = contender.module.to(device).requires_grad_(False)
        sides.append(affordable_side(network, device, wanted_pixels=wanted_pixels))
        contender.module.cpu()
    side = min(sides)
    if side < wanted_pixels:
        typer.echo(
            f"Looking at {side} pixels per side instead of {wanted_pixels}: the gradient of more "
            "does not fit into memory.",
            err=True,
        )
    return side


def _pictures(
    paths: Sequence[Path], crop_pixels: int, patch: "Patch | None", failures: list[str]
) -> "list[Picture]":
    from escsr.analysis.pictures import read_picture
    from escsr.errors import ImageError

    pictures: list[Picture] = []
    for path in paths:
        asked = patch if not pictures else None
        try:
            pictures.append(read_picture(path, crop_pixels=crop_pixels, patch=asked))
        except ImageError as error:
            if len(paths) == 1:
                raise
            failures.append(str(error))
    if not pictures:
        raise ImageError(f"None of the images can be used. {' '.join(failures)}")
    return pictures


def _settings(
    device: Any,
    first: "Picture",
    patch: "Patch | None",
    only: Sequence[Question] | None,
    steps: int,
) -> "Settings":
    from escsr.analysis.pictures import Patch, most_detailed_patch
    from escsr.analysis.records import PARTS, Part
    from escsr.analysis.run import Settings

    if patch is None:
        shown = most_detailed_patch(first.image)
    else:
        shown = Patch(x=patch.x - first.left, y=patch.y - first.top, side=patch.side)
    asked = {question.value for question in only or Question}
    parts: tuple[Part, ...] = tuple(part for part in PARTS if part in asked)
    return Settings(device=device, patch=shown, parts=parts, steps=steps)


def _analysed(
    contenders: "Sequence[Contender]",
    pictures: "Sequence[Picture]",
    settings: "Settings",
    crop_pixels: int,
) -> "Analysis":
    from escsr.analysis.run import analyse, num_passes
    from escsr.cli.console import step_bar, stopping_cleanly

    total = num_passes(settings, contenders=len(contenders), pictures=len(pictures))
    with stopping_cleanly(), step_bar("looking", total=total) as step:
        return analyse(
            contenders,
            pictures,
            settings,
            crop_pixels=crop_pixels,
            on_pass=lambda label, part: step(f"{label}, {part}"),
        )


def _tell(analysis: "Analysis", folder: Path | None, *, as_json: bool) -> None:
    """The key figures, or all of them as JSON, on stdout; the pictures into the folder."""
    from escsr.analysis import report
    from escsr.cli.analyze_view import print_analysis

    if folder is None:
        content = report.analysis_as_dict(analysis)
    else:
        from escsr.analysis.report import write_analysis

        content = write_analysis(folder, analysis)
        names = ", ".join(content["pictures"])
        typer.echo(f"Results: {printable(folder / 'analysis.json')}, {names}", err=True)
    if as_json:
        typer.echo(report.as_json(content))
    else:
        print_analysis(analysis)
    for line in report.skipped_lines(analysis):
        typer.echo(f"Skipped: {printable(line)}", err=True)
