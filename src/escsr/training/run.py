"""One run of a recipe, from a folder of images to a file of weights."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from escsr.errors import TrainingError
from escsr.evaluation.test_sets import TestPair, find_test_pairs, names_of_test_sets
from escsr.images.files import probe_image
from escsr.machine import usable_cores
from escsr.model.attention.backends import AttentionBackend
from escsr.model.network import ESC
from escsr.temporary_files import TemporaryFolder
from escsr.training.adversarial.perceptual_network import open_perceptual
from escsr.training.checkpoint import CheckpointFolder
from escsr.training.data.machine import default_cache_bytes
from escsr.training.data.pairs import PairSource
from escsr.training.initial_weights import located, start_from
from escsr.training.launching import launch, processes_here, with_precision
from escsr.training.loop import CHECKPOINT_FOLDER, LoopHooks, TrainingLoop
from escsr.training.outcome import measured_quality, psnr_key, save_trained
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import read_recipe
from escsr.training.recipe_pairs import open_recipe_pairs
from escsr.training.rehearsal import REHEARSAL_IMAGES, make_photographs, rehearsed
from escsr.training.state import TrainingState
from escsr.weights import read_header

_log = logging.getLogger("escsr")

BEST_FILE = "best.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Where a run reads from and writes to."""

    recipe_path: Path
    data: str | Path | None
    """Training images: a folder, searched with its sub-folders, or tar shards; a dry run makes its
    own pictures where none is given."""
    out: Path | None = None
    """Folder for checkpoints, log, samples and weights; ``runs/<recipe name>`` unless given."""
    test_sets: Sequence[Path] = ()
    """Judged at the end; the first one while training, too."""
    initial_weights: str | Path | None = None
    """A network to start from, by its name in the box or its file; one for another scale gets its
    last convolution converted."""
    perceptual_weights: Path | None = None
    """torchvision's VGG19, for recipes with ``loss.perceptual``; None lets torchvision bring it."""
    resume: bool = False
    device: str = "auto"
    processes: int = 1
    """That train together on this machine; ``torchrun``'s own number goes before."""
    cache_bytes: int | None = None
    """Bound on decoded images in the memory of this machine, shared among its processes; None takes
    half of what is free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run left behind."""

    out: Path
    weights: Path | None
    """The averaged weights; None if the run was stopped before its end (its state is saved)."""
    quality: dict[str, float]
    """Of the test sets, as ``"Set5 PSNR-Y dB"``."""


def train_recipe(
    run: Run, *, changes: Mapping[str, object] | None = None, hooks: LoopHooks | None = None
) -> RunResult:
    """Train as a recipe says and write ``<out>/<recipe name>.safetensors``.

    Under ``torchrun`` each process calls this; the first one writes.

    Args:
        run: where everything is.
        changes: recipe values to replace.
        hooks: what to call while training.
    Raises:
        RecipeError, ConfigurationError: the recipe or the device cannot be used.
        TrainingError: there are no images, or training cannot go on.
        CheckpointError: ``initial_weights`` or ``perceptual_weights`` cannot be used.
        MissingExtraError: VGG19 is needed, no file was given, and torchvision is not installed.
    """
    hooks = hooks or LoopHooks()
    recipe, run, fabric = _launched(run, changes, hooks)
    return _train(recipe, run, fabric, hooks)


def rehearse_recipe(
    run: Run, *, changes: Mapping[str, object] | None = None, hooks: LoopHooks | None = None
) -> RunResult:
    """Run two steps of everything that a recipe does, and leave nothing behind.

    Smaller than in the recipe are the batch, the patch and the number of images.

    Raises:
        As ``train_recipe``.
    """
    hooks = hooks or LoopHooks()
    recipe, run, fabric = _launched(run, changes, hooks)
    recipe = rehearsed(recipe, processes=fabric.world_size)
    with TemporaryFolder() as name:
        photographs = Path(name) / "photographs"
        photographs.mkdir()
        make_photographs(photographs, side_pixels=2 * recipe.data.patch_pixels * recipe.scale)
        rehearsal = replace(
            run,
            data=run.data or photographs,
            out=Path(name) / "run",
            test_sets=run.test_sets or (photographs,),
            resume=False,
        )
        return _train(recipe, rehearsal, fabric, hooks, is_rehearsal=True)


def _launched(
    run: Run, changes: Mapping[str, object] | None, hooks: LoopHooks
) -> tuple[Recipe, Run, Fabric]:
    """The recipe with the precision that it is computed in, and this process, alone or of many."""
    recipe, note = with_precision(read_recipe(run.recipe_path, changes=changes), device=run.device)
    run = _with_located_weights(run, recipe)
    fabric = launch(recipe, device=run.device, processes=run.processes)
    hooks.on_note(note)
    return recipe, run, fabric


def _train(
    recipe: Recipe, run: Run, fabric: Fabric, hooks: LoopHooks, *, is_rehearsal: bool = False
) -> RunResult:
    image_limit = REHEARSAL_IMAGES if is_rehearsal else None
    out = run.out or Path("runs") / recipe.name
    if run.data is None:
        raise TrainingError("No training images were given; name their folder with --data.")
    test_sets = _find_test_sets(run, recipe, image_limit=image_limit)
    torch.manual_seed(recipe.seed)
    newest_step = CheckpointFolder(out / CHECKPOINT_FOLDER).newest_step() if run.resume else None
    resume, path = newest_step is not None, out / f"{recipe.name}.safetensors"
    if newest_step is not None and newest_step >= recipe.steps and path.exists():
        _log.warning("%s is finished: for more, set more steps (--set steps=N).", out)
        return RunResult(out=out, weights=path, quality=_stated_quality(path))
    if resume and run.initial_weights:
        _log.warning("%s is left aside: the run goes on from its state.", run.initial_weights)
    network = _network(recipe, fabric)
    if not resume:
        weights = _weights_to_start_from(run, out)
        start_from(network, recipe, weights, out=out, is_optional=is_rehearsal)
    perceptual = open_perceptual(recipe, run.perceptual_weights, fabric, is_rehearsal=is_rehearsal)
    pairs = _open_pairs(recipe, run, fabric, image_limit=image_limit, hooks=hooks)
    state = TrainingState.start(network, recipe)
    with closing(pairs) as source:
        is_finished = TrainingLoop(
            recipe,
            source,
            out,
            fabric=fabric,
            state=state,
            validation_pairs=next(iter(test_sets.values()), ()),
            data_workers=_data_workers(recipe, fabric),
            resume=resume,
            hooks=_keeping_best(hooks, recipe, out, test_sets),
            perceptual=perceptual,
        ).run()
    if not is_finished or not fabric.is_global_zero:
        return RunResult(out=out, weights=None, quality={})
    quality = measured_quality(state.averaged_network.cpu(), test_sets)
    save_trained(path, state.averaged_network, recipe, quality)
    return RunResult(out=out, weights=path, quality=quality)


def _network(recipe: Recipe, fabric: Fabric) -> ESC:
    # PyTorch's fused attention has no gradient for the bias on a CPU.
    backend: AttentionBackend = "chunked" if fabric.device.type == "cpu" else "sdpa"
    return ESC(recipe.network_config(), attention_backend=backend)


def _keeping_best(
    hooks: LoopHooks, recipe: Recipe, out: Path, test_sets: Mapping[str, Sequence[TestPair]]
) -> LoopHooks:
    """The hooks, with the best averaged weights so far also written to their file."""

    def keep_best(best: nn.Module, psnr_y_db: float) -> None:
        quality = {psnr_key(next(iter(test_sets))): round(psnr_y_db, 3)}
        save_trained(out / BEST_FILE, best, recipe, quality)
        hooks.on_best(best, psnr_y_db)

    return replace(hooks, on_best=keep_best)


def _find_test_sets(
    run: Run, recipe: Recipe, *, image_limit: int | None
) -> dict[str, list[TestPair]]:
    test_sets = {
        name: find_test_pairs(folder, scale=recipe.scale)[:image_limit]
        for name, folder in zip(names_of_test_sets(run.test_sets), run.test_sets, strict=True)
    }
    for pair in chain.from_iterable(test_sets.values()):
        probe_image(pair.hr_path)  # told now, not after the first thousand steps
    return test_sets


def _with_located_weights(run: Run, recipe: Recipe) -> Run:
    """Find the weights to start from before other processes are started."""
    if run.initial_weights is None:
        return run
    return replace(run, initial_weights=located(run.initial_weights, scale=recipe.scale))


def _stated_quality(path: Path) -> dict[str, float]:
    return dict(read_header(path).provenance.quality)


def _open_pairs(
    recipe: Recipe, run: Run, fabric: Fabric, *, image_limit: int | None, hooks: LoopHooks
) -> PairSource:
    processes = processes_here(fabric)
    assert run.data is not None
    return open_recipe_pairs(
        recipe,
        run.data,
        image_limit=image_limit,
        cache_bytes=default_cache_bytes(processes)
        if run.cache_bytes is None
        else run.cache_bytes // processes,
        on_loaded=hooks.on_loaded,
    )


def _data_workers(recipe: Recipe, fabric: Fabric) -> int:
    """Threads that make batches: one suffices to cut decoded images, all else takes many."""
    only_cuts = recipe.data.degradation in ("matlab", "second-order")
    only_cuts = only_cuts and fabric.device.type == "cpu"
    return 1 if only_cuts else max(1, min(8, usable_cores() // processes_here(fabric)))


def _weights_to_start_from(run: Run, out: Path) -> Path | None:
    """Those given, or, for ``--resume``, those that a run left where its states are gone."""
    if run.initial_weights:
        return Path(run.initial_weights)
    if not run.resume:
        return None
    finished = (path for path in sorted(out.glob("*.safetensors")) if path.name != BEST_FILE)
    path = next(finished, out / BEST_FILE)
    if not path.exists():
        raise TrainingError(
            f"There is nothing to resume in {out}: it holds no state of a run. Leave out --resume "
            "to start one."
        )
    _log.warning("%s holds weights but no state: a new run starts from %s", out, path.name)
    return path
