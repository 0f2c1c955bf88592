"""``escsr train``: from a folder of photographs to a file of weights."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escsr.cli.console import printable
from escsr.errors import MissingExtraError

if TYPE_CHECKING:
    from escsr.training.run import Run, RunResult


def train_command(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.toml", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Training images: a folder, or a folder or pattern of .tar shards. Needed.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Of the run [default: runs/NAME].",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Test set to judge with; may be repeated.", show_default=False
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="To start from: a file, or a name in the box; of any scale.",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a value: steps=100, data.batch_size=8."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Try two steps of everything, then leave nothing behind.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Train with so many together: one per GPU, or per CPU core.")
    ] = 1,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for decoded images, as 4GB [default: half of what is free].",
            show_default=False,
        ),
    ] = None,
    perceptual_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="VGG19 as torchvision stores it, for GAN recipes [default: torchvision's].",
            show_default=False,
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE.png",
            help="Draw what the recipe's degradation does to some photographs, and stop.",
            show_default=False,
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")
    ] = False,
) -> None:
    """Train a network as a recipe says; Ctrl-C saves the state, and --resume goes on from it.

    On many machines: torchrun --nnodes 4 --nproc-per-node 8 -m escsr train RECIPE.toml ...
    """
    from escsr.cli.upscale_plan import parse_memory

    if schema:
        with _training_extra():
            from escsr.training.recipe_file import recipe_schema
        typer.echo(recipe_schema(), nl=False)
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe, such as recipes/shipped/esc-tiny-x2.toml.")
    if data is None and not dry_run:
        raise typer.BadParameter("give the folder of training images.", param_hint="--data")
    with _training_extra():
        from escsr.training.recipe_file import parse_change
        from escsr.training.run import Run
    changes = dict(parse_change(item) for item in change or [])
    if preview is not None:
        _draw_preview(recipe, changes, data, preview)
        return
    run = Run(
        recipe_path=recipe,
        data=data,
        out=out,
        test_sets=tuple(test or ()),
        initial_weights=start_from,
        perceptual_weights=perceptual_weights,
        resume=resume,
        device=device,
        processes=processes,
        cache_bytes=None if cache is None else parse_memory(cache, option="--cache"),
    )
    _run(run, changes, is_dry_run=dry_run)


@contextmanager
def _training_extra() -> Iterator[None]:
    """Around imports: a package that is not installed becomes an error that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Training needs {error.name}: pip install 'escsr[train]'"
        ) from error


def _draw_preview(
    recipe: Path, changes: dict[str, object], data: str | None, picture: Path
) -> None:
    from escsr.training.pictures import write_preview
    from escsr.training.recipe_file import read_recipe

    if data is None:
        raise typer.BadParameter("give the photographs to degrade.", param_hint="--data")
    write_preview(read_recipe(recipe, changes=changes), data, picture)
    typer.echo(f"Preview: {printable(picture)}")


def _run(run: "Run", changes: dict[str, object], *, is_dry_run: bool) -> None:
    from escsr.cli.console import stop_flag
    from escsr.cli.training_view import training_view
    from escsr.training.loop import LoopHooks
    from escsr.training.run import rehearse_recipe, train_recipe

    with stop_flag() as stop_signal, training_view() as view:
        hooks = LoopHooks(
            on_note=view.note,
            on_loaded=view.loaded,
            on_start=view.start,
            on_progress=view.row,
            on_step=view.step,
            on_best=view.best,
            should_stop=lambda: stop_signal() is not None,
        )
        work = rehearse_recipe if is_dry_run else train_recipe
        result = work(run, changes=changes, hooks=hooks)
        number = stop_signal()
    _tell(result, is_dry_run=is_dry_run, stop_signal=number)


def _tell(result: "RunResult", *, is_dry_run: bool, stop_signal: int | None) -> None:
    from escsr.cli.training_view import is_first_process

    if result.weights is None and is_first_process():
        out = printable(result.out)
        typer.echo(f"Stopped; the state is in {out}. Go on with --resume.", err=True)
    if result.weights is None and (is_first_process() or stop_signal):
        raise typer.Exit(128 + (stop_signal or signal.SIGINT))
    if result.weights is None:  # one of the processes that do not write
        return
    figures = "  ".join(f"{name} {value}" for name, value in result.quality.items())
    if is_dry_run:
        typer.echo("Dry run passed: data, two steps, validation, checkpoint and weights.")
    else:
        typer.echo(f"Weights: {printable(result.weights)}" + (f"  ({figures})" if figures else ""))
