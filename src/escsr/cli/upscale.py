"""``escsr upscale``: its options. What they do is in ``upscale_run``."""

from typing import Annotated

import typer

from escsr.cli.convolution_caches import bound_convolution_caches
from escsr.cli.log import VerboseOption, show_log
from escsr.cli.quick_imports import importing_quickly

UPSCALE_HELP = """Make images larger.

INPUT is any number of image files, folders and patterns such as 'scans/*.tif'; - is standard
input. Without --output, results go beside their inputs, as photo_x4.jpg. Nothing is overwritten
unasked.

Exit status: 0 all done, 1 some failed, 2 wrong usage, 130 interrupted
(143 by SIGTERM)."""

Inputs = Annotated[
    list[str] | None, typer.Argument(metavar="INPUT", show_default=False, help="What to upscale.")
]
MoreInputs = Annotated[
    list[str] | None, typer.Option("-i", "--input", metavar="INPUT", help="The same as INPUT.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE_OR_FOLDER",
        help="Where results go; - is standard output.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "-s", "--scale", metavar="FACTOR", help="Factor, such as 4 or 2.7. [default: the model's]"
    ),
]
Width = Annotated[int | None, typer.Option(metavar="PIXELS", help="Width of the result in pixels.")]
Height = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Height of the result in pixels.")
]
Longest = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Longer side of the result in pixels.")
]
Model = Annotated[
    str,
    typer.Option(
        "-n",
        "--model",
        metavar="NAME_OR_FILE",
        help="A name from 'escsr models', or a file of weights.",
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        "-t",
        "--tile",
        metavar="auto|PIXELS|0",
        help="Side of a tile in pixels of the input; 0: no tiles.",
    ),
]
Overlap = Annotated[
    int | None, typer.Option(min=0, metavar="PIXELS", help="Least overlap of tiles in pixels.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, float32, float16, bfloat16.")]
Backend = Annotated[
    str,
    typer.Option(metavar="NAME", help="How the network runs: auto, native, eager, reference."),
]
Attention = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How attention runs: auto, sdpa, flex, triton, flashbias, chunked, naive.",
    ),
]
Memory = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help="Memory to plan with, such as 2GB.")
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact/--no-exact",
        help="Large images as if in one piece, layer by layer; else in tiles that differ a little.",
    ),
]
KeepColours = Annotated[
    bool,
    typer.Option(
        "--keep-colours/--no-keep-colours",
        help="Hold tint and brightness to the input's, whatever the model does.",
    ),
]
Alpha = Annotated[
    str,
    typer.Option(
        metavar="opacity|data",
        help="What a fourth channel is; colours are kept where data is 0, as in game textures.",
    ),
]
Edges = Annotated[
    str,
    typer.Option(metavar="auto|wrap", help="wrap: the picture repeats, as tileable textures do."),
]
Suffix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Goes behind the name. [default: _x4; none in an output folder]"
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "--ext", metavar="NAME", help="Such as png. [default: the input's]"),
]
Quality = Annotated[
    int | None, typer.Option(min=1, max=100, metavar="1-100", help="Of JPEG, WebP and AVIF.")
]
Recursive = Annotated[bool, typer.Option("-r", "--recursive", help="Folders below folders too.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave existing results.")]
KeepTime = Annotated[
    bool, typer.Option("--keep-time", help="Give results the dates of their inputs.")
]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER", help="Largest input to accept. [default: 268]", show_default=False
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be written, and the memory."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def upscale_command(
    inputs: Inputs = None,
    more_inputs: MoreInputs = None,
    output: Output = None,
    scale: Scale = None,
    width: Width = None,
    height: Height = None,
    longest: Longest = None,
    model: Model = "esc-tiny",
    tile: Tile = "auto",
    overlap: Overlap = None,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    attention: Attention = "auto",
    memory: Memory = None,
    exact: Exact = False,
    keep_colours: KeepColours = True,
    alpha: Alpha = "opacity",
    edges: Edges = "auto",
    suffix: Suffix = None,
    image_format: Format = None,
    quality: Quality = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    keep_time: KeepTime = False,
    max_megapixels: MaxMegapixels = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    verbose: VerboseOption = False,
) -> None:
    """Make images larger."""
    if verbose:
        show_log()
    bound_convolution_caches()
    with importing_quickly():
        from escsr.cli.upscale_run import UpscaleRequest, run_upscale

    request = UpscaleRequest(
        inputs=[*(inputs or []), *(more_inputs or [])],
        output=output,
        scale=scale,
        width=width,
        height=height,
        longest=longest,
        model=model,
        tile=tile,
        overlap_pixels=overlap,
        device=device,
        precision=precision,
        backend=backend,
        attention=attention,
        memory=memory,
        exact=exact,
        keep_colours=keep_colours,
        alpha=alpha,
        edges=edges,
        name_suffix=suffix,
        image_format=image_format,
        quality=quality,
        recursive=recursive,
        overwrite=overwrite,
        skip_existing=skip_existing,
        keep_time=keep_time,
        max_megapixels=max_megapixels,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(run_upscale(request))
