"""Trains recipes in float64, then saves what each process has.

Started by ``test_many_processes.py``, alone or by torchrun. In float64, so that what differs by no
more than the order of sums is equal to many digits on every processor.
"""

import os
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

from escsr.model.network import ESC
from escsr.training.data import open_training_data
from escsr.training.loop import LoopHooks, TrainingLoop
from escsr.training.perceptual import open_perceptual
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import read_recipe
from escsr.training.state import TrainingState


def main(folder: str, out: str) -> None:
    """Train the classic recipe and the GAN; of several processes, one more until it is stopped."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        precision="64-true",
    )
    fabric.launch()
    for name in ("classic", "gan"):
        train(read_recipe(Path(folder, f"{name}.toml")), Path(folder), Path(out, name), fabric)
    if world_size > 1:
        long = read_recipe(Path(folder, "classic.toml"), changes={"steps": 100_000})
        train(long, Path(folder), Path(out, "stopped"), fabric, second_stops_after=3)


def train(
    recipe: Recipe, folder: Path, out: Path, fabric: Fabric, *, second_stops_after: int = 0
) -> None:
    """Train and save the averaged weights, and those of a discriminator."""
    torch.manual_seed(recipe.seed)
    state = TrainingState.start(ESC(recipe.network_config(), attention_backend="chunked"), recipe)
    perceptual = open_perceptual(recipe, None, fabric, is_rehearsal=False)
    source = open_training_data(recipe, folder / "photographs")
    # For one step alone: it must not be forgotten until the processes agree again.
    hooks = LoopHooks(
        should_stop=lambda: fabric.global_rank == 1 and state.step == second_stops_after
    )
    TrainingLoop(
        recipe,
        source,
        out,
        fabric=fabric,
        state=state,
        hooks=hooks,
        perceptual=perceptual and perceptual.double(),
    ).run()
    weights = {
        f"network.{key}": value for key, value in state.averaged_network.state_dict().items()
    }
    if state.adversary is not None:
        weights |= state.adversary.discriminator.state_dict()
    torch.save(weights, out / f"rank-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
