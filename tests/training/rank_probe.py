"""Trains a recipe in float64, then saves the averaged weights of this process.

Started by ``test_many_processes.py``, alone or by torchrun. In float64, so that what differs by no
more than the order of sums is equal to many digits on every processor.
"""

import os
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

from escsr.model.network import ESC
from escsr.training.data.pairs import open_pairs
from escsr.training.loop import LoopHooks, TrainingLoop
from escsr.training.recipe_file import read_recipe
from escsr.training.state import TrainingState


def main(recipe_path: str, photographs: str, out: str, stop: str = "") -> None:
    """Train and save."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    recipe = read_recipe(Path(recipe_path))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        precision="64-true",
    )
    fabric.launch()
    torch.manual_seed(recipe.seed)
    state = TrainingState.start(ESC(recipe.network_config(), attention_backend="chunked"), recipe)
    source = open_pairs(
        photographs,
        scale=recipe.scale,
        patch_pixels=recipe.data.patch_pixels,
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
    )
    last = int(stop.removeprefix("--stop-second-at=") or 0)
    if last:
        recipe = recipe.model_copy(update={"steps": 100_000})
    hooks = LoopHooks(should_stop=lambda: fabric.global_rank == 1 and state.step == last)
    TrainingLoop(recipe, source, Path(out), fabric=fabric, state=state, hooks=hooks).run()
    torch.save(state.averaged_network.state_dict(), Path(out) / f"rank-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
