"""One run of a recipe, from a folder of images to a file of weights."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from escsr.errors import TrainingError
from escsr.evaluation.protocol import evaluate_officially, mean_quality
from escsr.evaluation.test_sets import TestPair, find_test_pairs, names_of_test_sets
from escsr.images.files import probe_image
from escsr.images.writer import write_image
from escsr.machine import usable_cores
from escsr.model.attention.backends import AttentionBackend
from escsr.model.network import ESC
from escsr.temporary_files import TemporaryFolder
from escsr.training.batches import BatchSource
from escsr.training.data import open_training_data
from escsr.training.initial_weights import located, start_from
from escsr.training.launching import launch, processes_here, with_precision
from escsr.training.loop import CHECKPOINT_FOLDER, LoopHooks, TrainingLoop
from escsr.training.memory_cache import default_cache_bytes
from escsr.training.perceptual import open_perceptual
from escsr.training.recipe import DegradationRecipe, Recipe
from escsr.training.recipe_file import read_recipe, recipe_text
from escsr.training.state import CheckpointFolder, TrainingState
from escsr.weights import Provenance, read_header, save_weights

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
    """A network to start from, by its file or as the name of included pretrained weights; one for
    another scale gets its last convolution converted."""
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
    if run.initial_weights is not None:  # found before other processes are started
        run = replace(run, initial_weights=located(run.initial_weights, scale=recipe.scale))
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
        return RunResult(out=out, weights=path, quality=dict(read_header(path).provenance.quality))
    if resume and run.initial_weights:
        _log.warning("%s is left aside: the run goes on from its state.", run.initial_weights)
    network = _network(recipe, fabric)
    if not resume:
        weights = _weights_to_start_from(run, out)
        start_from(network, recipe, weights, out=out, is_optional=is_rehearsal)
    perceptual = open_perceptual(recipe, run.perceptual_weights, fabric, is_rehearsal=is_rehearsal)
    data = _open_data(recipe, run, fabric, image_limit=image_limit, hooks=hooks)
    state = TrainingState.start(network, recipe)
    with closing(data) as source:
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
        probe_image(pair.hr_path)  # so that it fails now, not after the first thousand steps
    return test_sets


def _open_data(
    recipe: Recipe, run: Run, fabric: Fabric, *, image_limit: int | None, hooks: LoopHooks
) -> BatchSource:
    processes = processes_here(fabric)
    assert run.data is not None
    return open_training_data(
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
    only_cuts = recipe.data.kind == "photographs" or recipe.data.shrinks_whole_images
    if only_cuts and fabric.device.type == "cpu":
        return 1
    return max(1, min(8, usable_cores() // processes_here(fabric)))


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


def measured_quality(
    network: nn.Module, test_sets: Mapping[str, Sequence[TestPair]]
) -> dict[str, float]:
    """PSNR-Y in dB and SSIM-Y of a network on the CPU, by the official tester's protocol."""
    assert isinstance(network, ESC)
    quality: dict[str, float] = {}
    for name, pairs in test_sets.items():
        psnr_y_db, ssim_y = mean_quality(evaluate_officially(network, pairs))
        quality |= {psnr_key(name): round(psnr_y_db, 3), f"{name} SSIM-Y": round(ssim_y, 4)}
    return quality


def psnr_key(test_set: str) -> str:
    """The name under which a file of weights states its PSNR-Y on a test set."""
    return f"{test_set} PSNR-Y dB"


def save_trained(
    path: Path, network: nn.Module, recipe: Recipe, quality: Mapping[str, float]
) -> None:
    """Write weights in float16, with recipe, licence, data and figures in the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    assert isinstance(network, ESC)
    provenance = Provenance(
        licence=recipe.licence,
        training_data=recipe.training_data,
        date=date.today().isoformat(),
        variant=recipe.model,
        recipe_name=recipe.name,
        recipe=recipe_text(recipe),
        source="trained with escsr",
        quality=dict(quality),
    )
    save_weights(path, network, provenance=provenance, dtype=torch.float16)


REHEARSAL_IMAGES = 2
_STEPS = 2
_PATCH_PIXELS = 16


def rehearsed(recipe: Recipe, *, processes: int = 1) -> Recipe:
    """The recipe with two steps, each logged and judged; smaller are only batch, patch and pool.

    Args:
        recipe: the real one.
        processes: that train together; each gets at least one pair per micro-batch.
    """
    parts = processes * recipe.optimizer.micro_batches
    batch_size = recipe.data.batch_size
    if batch_size % parts == 0:  # else the step says what is wrong, as it would in the real run
        batch_size = min(batch_size, 2 * parts)
    data = {
        "batch_size": batch_size,
        "patch_pixels": min(recipe.data.patch_pixels, _PATCH_PIXELS),
        "share": 1.0,
    }
    watch = {"log_every_steps": 1, "validate_every_steps": 1, "checkpoint_every_seconds": 1e-9}
    return recipe.model_copy(
        update={
            "steps": _STEPS,
            "data": recipe.data.model_copy(update=data),
            "degradation": _rehearsed_degradation(recipe, batch_size // processes),
            "watch": recipe.watch.model_copy(update=watch),
        }
    )


def _rehearsed_degradation(recipe: Recipe, batch_size: int) -> DegradationRecipe:
    """Of what the made photographs have, with a pool that the second step draws from."""
    degradation = recipe.degradation
    if recipe.data.kind != "photographs":
        return degradation
    side = min(degradation.degraded_pixels, 2 * _PATCH_PIXELS * recipe.scale)
    pool_pairs = min(degradation.pool_pairs, batch_size)
    return degradation.model_copy(update={"degraded_pixels": side, "pool_pairs": pool_pairs})


def make_photographs(folder: Path, *, side_pixels: int) -> None:
    """Write a few pictures to rehearse with where no data is given: waves and noise, one grey."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side_pixels, 0:side_pixels]
    for number in range(REHEARSAL_IMAGES):
        wave = 120 + 60 * np.sin(rows / (5 + number)) * np.cos(columns / 7)
        noise = generator.normal(0, 10, (side_pixels, side_pixels, 1 if number == 0 else 3))
        pixels = (wave[..., None] + noise).clip(0, 255).astype(np.uint8)
        write_image(folder / f"{number}.png", pixels)
