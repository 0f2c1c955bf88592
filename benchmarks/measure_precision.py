"""How fast a recipe trains in each precision, and how exact attention's gradients in bfloat16 are.

On this processor as it is and as one of AVX2 alone, in one thread. Processes take turns by rounds;
seconds are those of the processor, so that what else runs on the machine counts little. Another
source tree (``--before src``) takes part with what it knows.

    python benchmarks/measure_precision.py --out RECORD.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic_uint8
from escsr.model.network import ESC
from escsr.model.window_attention import WindowAttention
from escsr.training.batches import PairBatch
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import read_recipe
from escsr.training.state import TrainingState
from escsr.training.step import TrainingStep
from escsr.weights import load_model

ROOT = Path(__file__).parents[1]
LEVELS = {
    "own": {},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}


def main() -> None:
    """Let a process of each tree and level measure, round after round, and write the medians."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.worker:
        print(json.dumps(measure(arguments)))
        return
    trees = {"after": ROOT / "src"} | ({"before": arguments.before} if arguments.before else {})
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(arguments.rounds):
        for level, limits in LEVELS.items():
            for tree, source in trees.items():
                command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
                command += ["--gradients"] if number == 0 else []
                environment = {**os.environ, **limits, "PYTHONPATH": str(source.resolve())}
                output = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                ).stdout
                rounds.setdefault(f"{level}, {tree}", []).append(json.loads(output))
                print(level, tree, output, flush=True)
    record = {
        "date": date.today().isoformat(),
        "recipe": arguments.recipe.name,
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "images_per_second_of_one_core": {
            key: {
                precision: round(
                    statistics.median(row["images_per_second"][precision] for row in rows), 2
                )
                for precision in rows[0]["images_per_second"]
            }
            for key, rows in rounds.items()
        },
        "gradient_errors": {key: rows[0]["gradient_errors"] for key, rows in rounds.items()},
        "rounds": rounds,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """What one process finds out: images per second of each precision, and gradient errors."""
    recipe = read_recipe(arguments.recipe)
    allowed = str(Recipe.model_fields["precision"].annotation)
    precisions = [name for name in ("float32", "bfloat16", "auto") if name in allowed]
    speeds = {name: images_per_second(recipe, name, arguments.seconds) for name in precisions}
    errors = gradient_errors() if arguments.gradients else {}
    return {"images_per_second": speeds, "gradient_errors": errors}


def images_per_second(recipe: Recipe, precision: str, seconds: float) -> float:
    """From the median step of at least two, after one that warms up."""
    recipe = recipe.model_copy(update={"precision": precision})
    torch.manual_seed(0)
    state = TrainingState.start(ESC(recipe.network_config(), attention_backend="chunked"), recipe)
    step = TrainingStep(recipe, state, launch(recipe, device="cpu"))
    side, count = recipe.data.patch_pixels, recipe.data.batch_size
    lr_batch, hr_batch = (
        torch.rand(count, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
        for pixels in (side, recipe.scale * side)
    )
    laps: list[float] = []
    while len(laps) < 3 or sum(laps) < seconds:
        started = time.process_time()
        step(PairBatch.of_patches(lr_batch, hr_batch))
        laps.append(time.process_time() - started)
    return count / statistics.median(laps[1:])


def gradient_errors() -> dict[str, dict[str, float]]:
    """How far bfloat16 training moves the gradients of attention itself, as a share of their size.

    Of q, k, v, the bias, and what goes back to the layers before ("input"); of both attentions of
    the shipped x2 together, with features and gradients of a step in float64 on a photograph
    whose target is mirrored. "rounded_inputs" is what rounding the features alone does.
    """
    pixels = read_image(ROOT / "docs" / "sample" / "cat.png").pixels[:144, :192]
    small = resize_bicubic_uint8(pixels, scale=0.5)
    lr_batch, hr_batch = (
        torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255 for image in (small, pixels)
    )
    network = load_model("esc-tiny", scale=2, attention_backend="chunked").double()
    met: list[tuple[WindowAttention, Tensor, Tensor]] = []

    def keep(part: WindowAttention, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        result.retain_grad()
        met.append((part, inputs[0].detach(), result))

    attentions = [part for part in network.modules() if isinstance(part, WindowAttention)]
    hooks = [part.register_forward_hook(keep) for part in attentions]
    F.l1_loss(network(lr_batch), hr_batch.flip(-1)).backward()
    for hook in hooks:
        hook.remove()
    exact = _gradients(met, given=torch.float64, computed=torch.float64)
    cases = {"rounded_inputs": torch.float64, "training": torch.bfloat16}
    found = {
        name: _gradients(met, given=torch.bfloat16, computed=dtype) for name, dtype in cases.items()
    }
    return {
        case: {
            name: float(f"{(rows[name] - exact[name]).norm() / exact[name].norm():.3g}")
            for name in exact
        }
        for case, rows in found.items()
    }


def _gradients(
    met: list[tuple[WindowAttention, Tensor, Tensor]], *, given: torch.dtype, computed: torch.dtype
) -> dict[str, Tensor]:
    is_mixed = computed == torch.bfloat16
    rows: dict[str, list[Tensor]] = {name: [] for name in ("q", "k", "v", "bias", "input")}

    def keep(_part: object, _inputs: object, outputs: tuple[Tensor, ...] | Tensor) -> None:
        for name, part in zip("qkv", outputs[0].double().chunk(3, 1), strict=True):
            rows[name].append(part.flatten())

    for attention, features, result in met:
        attention.to(torch.float32 if is_mixed else computed).zero_grad()
        features = features.detach().to(given).clone().requires_grad_()
        with attention.query_key_value.register_full_backward_hook(keep):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                attended = attention(features if is_mixed else features.to(computed))
            assert result.grad is not None
            attended.backward(result.grad.to(attended.dtype))
        table = next(attention.position_bias.parameters())
        assert table.grad is not None
        assert features.grad is not None
        rows["bias"].append(table.grad.double().flatten())
        rows["input"].append(features.grad.double().flatten())
    return {name: torch.cat(parts) for name, parts in rows.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes/shipped/esc-tiny-x4.toml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per round and precision")
    parser.add_argument("--before", type=Path, help="src/ of another checkout")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--gradients", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
