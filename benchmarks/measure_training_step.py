"""How much faster a training step of ours is than the same step as the paper writes it.

Both train the same network on the same batches of real photographs and the same cores: ours with
one process per core, attention in cached pieces, channels_last and the recipe's precision; the
other in one process of as many threads, with stored scores, NCHW and float32.
Rounds alternate, so that a slow moment of the machine hits both.

    python benchmarks/measure_training_step.py --data PHOTOS --out RECORD.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from escsr.model.attention.backends import AttentionBackend
from escsr.model.layer_norm import ChannelLayerNorm
from escsr.model.network import ESC
from escsr.model.window_attention import WindowAttention
from escsr.training.batches import BatchSource, PairBatch
from escsr.training.data import Prefetcher, open_training_data
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import read_recipe
from escsr.training.state import TrainingState
from escsr.training.step import TrainingStep


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    recipe = read_recipe(arguments.recipe)
    as_written = recipe.model_copy(update={"precision": "float32"})
    fabric = launch(recipe, device="cpu", processes=arguments.cores)
    source = open_training_data(recipe, arguments.data, image_limit=arguments.images)
    ours = make_step(recipe, fabric, "chunked", torch.channels_last)
    alone = Fabric(accelerator="cpu", devices=1)
    paper = make_step(as_written, alone, "naive", torch.contiguous_format)
    rounds = []
    for number in range(arguments.rounds + 1):
        row = {"ours_seconds": time_steps(ours, source, arguments.steps, fabric)}
        if fabric.is_global_zero:
            with _threads(arguments.cores):
                row["as_written_seconds"] = time_steps(
                    paper, source, arguments.steps, alone, torch.contiguous_format
                )
        fabric.barrier()
        if number and fabric.is_global_zero:  # the first round warms up
            rounds.append(row)
            print(json.dumps(row), flush=True)
    waiting = waiting_share(ours, source, arguments.steps * arguments.rounds, fabric)
    if fabric.is_global_zero:
        _report(recipe, arguments, rounds, waiting)


def _report(
    recipe: Recipe, arguments: argparse.Namespace, rounds: list[dict[str, float]], waiting: float
) -> None:
    ratios = [row["as_written_seconds"] / row["ours_seconds"] for row in rounds]
    record = {
        "date": date.today().isoformat(),
        "recipe": recipe.name,
        "batch_size": recipe.data.batch_size,
        "patch_pixels": recipe.data.patch_pixels,
        "ours": f"{arguments.cores} processes of one thread, {recipe.precision}, NHWC, chunked",
        "as_written": f"one process of {arguments.cores} threads, float32, NCHW, naive",
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "rounds": rounds,
        "median_ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "waiting_share": waiting,
    }
    print({key: record[key] for key in ("median_ratio", "least_ratio", "waiting_share")})
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def make_step(
    recipe: Recipe, fabric: Fabric, backend: AttentionBackend, layout: torch.memory_format
) -> TrainingStep:
    """A step of a fresh network whose weights and feature maps lie in a memory layout."""
    torch.manual_seed(recipe.seed)
    network = ESC(recipe.network_config(), attention_backend=backend)
    if layout == torch.contiguous_format:
        for part in network.modules():
            if isinstance(part, (ChannelLayerNorm, WindowAttention)):
                # Both work on channels last and hand a view on; the reference copies it to NCHW.
                part.register_forward_hook(_to_nchw)
    state = TrainingState.start(network, recipe, memory_format=layout)
    return TrainingStep(recipe, state, fabric)


def _to_nchw(_part: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.contiguous()


def time_steps(
    step: TrainingStep,
    source: BatchSource,
    count: int,
    fabric: Fabric,
    layout: torch.memory_format = torch.channels_last,
) -> float:
    """Median seconds of a step of all processes, whose batch is ready in a memory layout."""
    seconds = []
    for number in range(count):
        batch = source.batch(number, rank=fabric.global_rank, world_size=fabric.world_size)
        lr_batch, hr_batch, _ = (part.contiguous(memory_format=layout) for part in batch.tensors)
        fabric.barrier()
        started = time.perf_counter()
        step(PairBatch.of_patches(lr_batch, hr_batch))
        fabric.barrier()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def waiting_share(step: TrainingStep, source: BatchSource, count: int, fabric: Fabric) -> float:
    """Share of the time that training as it is done waits for data."""
    with closing(
        Prefetcher(
            source,
            first_step=0,
            last_step=count,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
    ) as batches:
        started = time.perf_counter()
        for batch in batches:
            step(batch)
        return batches.waited_seconds / (time.perf_counter() - started)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/shipped/esc-tiny-x2.toml"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="per round and side")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--images", type=int, help="use only so many photographs")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
