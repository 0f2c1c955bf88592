"""``escsr upscale``: its options; ``upscale_run`` does what they say."""

import os
from typing import Annotated

import typer

from escsr.cli.console import VerboseOption, importing_quickly, show_log

UPSCALE_HELP = """Make images larger.

INPUT is any number of image files, folders and patterns such as 'scans/*.tif'; - is standard
input. Without --output, results go beside their inputs, as photo_x4.jpg. Nothing is overwritten
unasked.

Exit status: 0 all done, 1 some failed, 2 wrong usage, 130 interrupted
(143 by SIGTERM)."""


def upscale_command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", show_default=False, help="What to upscale."),
    ] = None,
    more_inputs: Annotated[
        list[str] | None, typer.Option("-i", "--input", metavar="INPUT", help="The same as INPUT.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE_OR_FOLDER",
            help="Where results go; - is standard output.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "-s",
            "--scale",
            metavar="FACTOR",
            help="Factor, such as 4 or 2.7. [default: the model's]",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Width of the result in pixels.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Height of the result in pixels.")
    ] = None,
    longest: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Longer side of the result in pixels.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "-n",
            "--model",
            metavar="NAME_OR_FILE",
            help="A name from 'escsr models', a file of weights, or module:callable.",
        ),
    ] = "esc-tiny",
    tile: Annotated[
        str,
        typer.Option(
            "-t",
            "--tile",
            metavar="auto|PIXELS|0",
            help="Side of a tile in pixels of the input; 0: no tiles.",
        ),
    ] = "auto",
    overlap: Annotated[
        int | None,
        typer.Option(min=0, metavar="PIXELS", help="Least overlap of tiles in pixels."),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("-x", "--tta", help="Average over eight flips and rotations; 8 times slower."),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "-g", "--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps; 1 is cuda:1."
        ),
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            "-j", "--threads", min=0, metavar="COUNT", help="Threads of a CPU; 0: all cores."
        ),
    ] = 0,
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="auto, float32, float16, bfloat16.")
    ] = "auto",
    backend: Annotated[
        str,
        typer.Option(metavar="NAME", help="How the network runs: auto, native, eager, reference."),
    ] = "auto",
    attention: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How attention runs: auto, sdpa, flex, triton, flashbias, chunked, naive.",
        ),
    ] = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Memory to plan with, such as 2GB.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact/--no-exact",
            help="Large images as if in one piece, layer by layer; else in tiles that differ a "
            "little.",
        ),
    ] = False,
    keep_colours: Annotated[
        bool,
        typer.Option(
            "--keep-colours/--no-keep-colours",
            help="Hold tint and brightness to the input's, whatever the model does.",
        ),
    ] = True,
    alpha: Annotated[
        str,
        typer.Option(
            metavar="opacity|data",
            help="What a fourth channel is; colours are kept where data is 0, as in game textures.",
        ),
    ] = "opacity",
    edges: Annotated[
        str,
        typer.Option(
            metavar="auto|wrap", help="wrap: the picture repeats, as tileable textures do."
        ),
    ] = "auto",
    suffix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Goes behind the name. [default: _x4; none in an output folder]"
        ),
    ] = None,
    image_format: Annotated[
        str | None,
        typer.Option(
            "-f", "--format", "--ext", metavar="NAME", help="Such as png. [default: the input's]"
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="1-100", help="Of JPEG, WebP and AVIF.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Folders below folders too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave existing results.")
    ] = False,
    keep_time: Annotated[
        bool, typer.Option("--keep-time", help="Give results the dates of their inputs.")
    ] = False,
    max_megapixels: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Largest input to accept. [default: 268]", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be written, and the memory.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    progress: Annotated[
        str,
        typer.Option(
            metavar="auto|json|none",
            help="json: an event a line, for programs; none: no bars.",
        ),
    ] = "auto",
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say only what failed, and warnings.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Make images larger."""
    if verbose:
        show_log()
    _bound_convolution_caches()
    with importing_quickly():
        from escsr.cli import upscale_run as run

    status = run.run_upscale(
        [*(inputs or []), *(more_inputs or [])],
        output,
        model=model,
        size=run.SizeRequest(scale=scale, width=width, height=height, longest=longest),
        engine=run.engine_options(
            device=device,
            backend=backend,
            precision=precision,
            attention=attention,
            num_threads=threads,
        ),
        settings=run.work_settings(
            tile=tile,
            overlap_pixels=overlap,
            memory=memory,
            tta=tta,
            exact=exact,
            keep_colours=keep_colours,
            alpha=alpha,
            edges=edges,
        ),
        files=run.FileOptions(
            name_suffix=suffix,
            image_suffix=run.parse_format(image_format),
            quality=quality,
            recursive=recursive,
            existing=run.existing_rule(overwrite=overwrite, skip_existing=skip_existing),
            keep_time=keep_time,
            max_pixels=run.parse_max_pixels(max_megapixels) or run.DEFAULT_MAX_PIXELS,
        ),
        shown=run.ShownAs(as_json=as_json, progress=run.parse_progress(progress), quiet=quiet),
        dry_run=dry_run,
    )
    raise typer.Exit(status)


def _bound_convolution_caches() -> None:
    """Let PyTorch's memory level off early where images have many sizes.

    It keeps 1024 prepared convolutions, some 100 MB in a folder of a few hundred sizes; 128 are
    enough for twenty (``docs/attention-back-ends.md``). PyTorch reads these at its first
    convolution; a program that uses the library decides for itself, as does who has set them.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")
