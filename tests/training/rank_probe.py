"""Trains a recipe as ``escsr train`` does, then saves the averaged weights of this process.

Started by ``test_many_processes.py``, alone or by torchrun.
"""

import sys
from pathlib import Path

import torch

from escsr.model.network import ESC
from escsr.training.data.pairs import open_pairs
from escsr.training.launching import launch
from escsr.training.loop import LoopHooks, TrainingLoop
from escsr.training.recipe_file import read_recipe
from escsr.training.state import TrainingState


def main(recipe_path: str, photographs: str, out: str, stop: str = "") -> None:
    """Train and save."""
    torch.set_num_threads(1)
    recipe = read_recipe(Path(recipe_path))
    fabric = launch(recipe, device="cpu")
    torch.manual_seed(recipe.seed)
    state = TrainingState.start(ESC(recipe.network_config(), attention_backend="chunked"), recipe)
    source = open_pairs(
        photographs,
        scale=recipe.scale,
        patch_pixels=recipe.data.patch_pixels,
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
    )
    last = int(stop.removeprefix("--stop-second-at=") or recipe.steps)
    hooks = LoopHooks(should_stop=lambda: fabric.global_rank == 1 and state.step >= last)
    TrainingLoop(recipe, source, Path(out), fabric=fabric, state=state, hooks=hooks).run()
    torch.save(state.averaged_network.state_dict(), Path(out) / f"rank-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
