"""One run of a recipe, from a folder of images to a file of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from escsr.evaluation.protocol import evaluate_officially, find_test_pairs, mean_quality
from escsr.model.network import ESC
from escsr.training.loop import Progress, train
from escsr.training.pairs import PatchSampler, load_pairs
from escsr.training.recipe import Recipe, read_recipe
from escsr.weights.loading import load_model
from escsr.weights.rescaling import convert_scale
from escsr.weights.store import Provenance, save_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Where a run reads from and writes to."""

    recipe_path: Path
    data: Path
    """Folder of training images, searched with its sub-folders."""
    out: Path
    """Folder for the state, the log and the weights."""
    test_sets: Sequence[Path] = ()
    """Judged at the end; the first one while training, too."""
    initial_weights: Path | None = None
    """A network to start from; one for another scale gets its last convolution converted."""
    resume: bool = False


def train_recipe(
    run: Run,
    *,
    overrides: dict[str, object] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Train as a recipe says and write ``<out>/<recipe name>.safetensors``.

    Args:
        run: where everything is.
        overrides: recipe keys to replace.
        on_progress: called after each logged step.
        should_stop: asked after each step.
    Returns:
        The file of weights; None if the run was stopped before its end (its state is saved).
    Raises:
        RecipeError: the recipe cannot be used.
        TrainingError: there are no images, or training cannot go on.
        CheckpointError: ``initial_weights`` cannot be used.
    """
    recipe = read_recipe(run.recipe_path, overrides=overrides)
    test_sets = {path.name: find_test_pairs(path, scale=recipe.scale) for path in run.test_sets}
    initial_weights = _initial_weights(run, recipe)
    pairs = load_pairs(run.data, scale=recipe.scale, smallest_lr_pixels=recipe.patch_pixels)
    stopped = False

    def stop_asked() -> bool:
        nonlocal stopped
        stopped = stopped or should_stop()
        return stopped

    network = train(
        recipe,
        PatchSampler(
            pairs,
            scale=recipe.scale,
            patch_pixels=recipe.patch_pixels,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
        ),
        run.out,
        validation_pairs=next(iter(test_sets.values()), ()),
        initial_weights=initial_weights,
        resume=run.resume,
        on_progress=on_progress,
        should_stop=stop_asked,
    )
    if stopped:
        return None
    quality: dict[str, float] = {}
    for name, test_pairs in test_sets.items():
        psnr_y_db, ssim_y = mean_quality(evaluate_officially(network, test_pairs))
        quality |= {f"{name} PSNR-Y dB": round(psnr_y_db, 3), f"{name} SSIM-Y": round(ssim_y, 4)}
    path = run.out / f"{recipe.name}.safetensors"
    save_weights(path, network, provenance=_provenance(run, recipe, quality), dtype=torch.float16)
    return path


def _initial_weights(run: Run, recipe: Recipe) -> dict[str, Tensor] | None:
    if run.initial_weights is None or run.resume:
        return None
    network: ESC = load_model(run.initial_weights)
    if network.scale != recipe.scale:
        network = convert_scale(network, scale=recipe.scale)
    return network.state_dict()


def _provenance(run: Run, recipe: Recipe, quality: dict[str, float]) -> Provenance:
    return Provenance(
        licence=recipe.licence,
        training_data=recipe.training_data,
        date=date.today().isoformat(),
        variant=recipe.model,
        recipe_name=recipe.name,
        recipe=run.recipe_path.read_text(encoding="utf-8"),
        source="trained with escsr",
        quality=quality,
    )
