"""``escsr train``: from a folder of photographs to a file of weights."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from escsr.training.loop import Progress


def train_command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of training images.", show_default=False)],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for state, log and weights.")
    ] = Path("runs/latest"),
    test: Annotated[
        list[Path] | None,
        typer.Option(help="Test set to judge with; may be repeated.", show_default=False),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Weights to start from, of any scale.", show_default=False),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
) -> None:
    """Train a network as a recipe says; Ctrl-C saves the state, and --resume goes on from it."""
    from escsr.cli.interruption import stop_flag
    from escsr.errors import MissingExtraError

    try:
        from escsr.training.run import Run, train_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Training needs {error.name}: pip install 'escsr[train]'"
        ) from error
    run = Run(
        recipe_path=recipe,
        data=data,
        out=out,
        test_sets=tuple(test or ()),
        initial_weights=start_from,
        resume=resume,
    )
    overrides = dict(_parse_change(item) for item in change or [])
    with stop_flag() as should_stop:
        weights = train_recipe(run, overrides=overrides, on_progress=_show, should_stop=should_stop)
    if weights is None:
        typer.echo(f"Stopped; the state is in {out}. Go on with --resume.", err=True)
        raise typer.Exit(130)
    typer.echo(f"Weights: {weights}")


def _parse_change(item: str) -> tuple[str, object]:
    """``steps=100`` -> ("steps", 100); a value that is no TOML is taken as text."""
    key, separator, value = item.partition("=")
    if not separator:
        raise typer.BadParameter(f"{item!r} is not KEY=VALUE.", param_hint="--set")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _show(progress: "Progress") -> None:
    judged = progress.validation_psnr_y_db
    remaining_minutes = (progress.steps - progress.step) / max(1e-9, progress.steps_per_second) / 60
    typer.echo(
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.5f}  "
        f"{progress.steps_per_second:.2f} steps/s  {remaining_minutes:.0f} min left"
        + ("" if judged is None else f"  {judged:.3f} dB"),
        err=True,
    )
