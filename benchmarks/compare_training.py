"""Train several networks, or one on several shares of the photographs, with one recipe and budget.

Each run is a process of its own and one curve of a record; a plot shows PSNR against the time the
processor spent on training steps (validation not counted), so that a busy machine does no harm.

    COMMON="--data PHOTOS --test Set5 --test B100 --record R.json"
    python benchmarks/compare_training.py run all $COMMON --seconds 450
    python benchmarks/compare_training.py run tenth $COMMON --share 0.1 --steps STEPS_OF_ALL
    python benchmarks/compare_training.py run safmn $COMMON --network safmn:24 --seconds 450
    python benchmarks/compare_training.py plot R.json --curves all,third,tenth --out scaling.png

A run of ``--seconds`` measures the speed first and makes as many steps as fit, with a cosine of
that length; ``--steps`` gives the same length to another run. Networks: ``esc-tiny``, and from
spandrel ``safmn:DIM`` and ``span:CHANNELS`` (pip install 'escsr[rivals]').
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path

import torch
from torch import nn

from escsr.engines.engine import Floats
from escsr.evaluation.protocol import TestPair, evaluate, mean_quality
from escsr.evaluation.test_sets import find_test_pairs
from escsr.model.network import ESC
from escsr.training.batches import BatchSource
from escsr.training.data import open_training_data
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import parse_change, read_recipe
from escsr.training.state import TrainingState
from escsr.training.step import TrainingStep

_SPEED_STEPS = 24
_POINTS = 10
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")


def run_curve(arguments: argparse.Namespace) -> None:
    """Train, judge ten times, and add the curve to the record after each."""
    torch.set_num_threads(1)
    changes = dict(parse_change(item) for item in arguments.set or ())
    fixed = changes | {"data.share": arguments.share}
    recipe = read_recipe(arguments.recipe, changes=fixed | {"steps": arguments.steps or 10**6})
    source = open_training_data(recipe, arguments.data)
    if arguments.steps is None:
        per_step = _seconds_per_step(make_step(recipe, arguments.network), source)
        steps = max(_POINTS, int(arguments.seconds / per_step))
        recipe = read_recipe(arguments.recipe, changes=fixed | {"steps": steps})
    test_sets = {
        folder.name: find_test_pairs(folder, scale=recipe.scale)[: arguments.images]
        for folder in arguments.test
    }
    step = make_step(recipe, arguments.network)
    curve = {
        "network": arguments.network,
        "changes": changes,
        "parameters": sum(part.numel() for part in step.state.network.parameters()),
        "images": source.image_count,
        "steps": recipe.steps,
        "points": [],
    }
    seconds = 0.0
    for number in range(recipe.steps):
        started = time.process_time()
        step(source.batch(number))
        seconds += time.process_time() - started
        if (number + 1) % (recipe.steps // _POINTS) == 0 or number + 1 == recipe.steps:
            quality = judge(step.state.averaged_network, test_sets, recipe.scale)
            curve["points"].append({"step": number + 1, "seconds": round(seconds, 1)} | quality)
            print(arguments.curve, curve["points"][-1], flush=True)
            _add_to_record(arguments.record, arguments.curve, curve, recipe)


def make_step(recipe: Recipe, network: str) -> TrainingStep:
    """A step of a fresh network."""
    torch.manual_seed(recipe.seed)
    state = TrainingState.start(_network(network, recipe), recipe)
    return TrainingStep(recipe, state, launch(recipe, device="cpu"))


def judge(network: nn.Module, test_sets: dict[str, list[TestPair]], scale: int) -> dict[str, float]:
    """PSNR-Y in dB of each test set, images as they are, without padding."""

    def enlarge(lr_image: Floats) -> Floats:
        with torch.inference_mode():
            return network(torch.from_numpy(lr_image)).numpy()

    return {
        name: round(mean_quality(evaluate(enlarge, pairs, scale=scale))[0], 4)
        for name, pairs in test_sets.items()
    }


def plot_curves(arguments: argparse.Namespace) -> None:
    """Draw PSNR against processor time, one panel per test set."""
    from matplotlib import pyplot

    record = json.loads(arguments.record.read_text(encoding="utf-8"))
    names = arguments.curves.split(",")
    first = record["curves"][names[0]]["points"][0]
    test_sets = [key for key in first if key not in ("step", "seconds")]
    figure, panels = pyplot.subplots(
        1, len(test_sets), figsize=(5.2 * len(test_sets), 3.8), layout="constrained", squeeze=False
    )
    for panel, test_set in zip(panels[0], test_sets, strict=True):
        for name, colour, marker in zip(names, _COLOURS, _MARKERS, strict=False):
            curve = record["curves"][name]
            label = f"{name}: {curve['images']} photographs, {curve['parameters']:,} parameters"
            minutes = [point["seconds"] / 60 for point in curve["points"]]
            psnr_y_db = [point[test_set] for point in curve["points"]]
            panel.plot(minutes, psnr_y_db, color=colour, marker=marker, markersize=4, label=label)
        panel.set(title=f"{test_set} x{record['scale']}", ylabel="PSNR-Y, dB")
        panel.set_xlabel("minutes of one CPU core in training steps")
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(arguments.out, dpi=110)


def _network(name: str, recipe: Recipe) -> nn.Module:
    kind, _, width = name.partition(":")
    if kind == "safmn":
        from spandrel.architectures.SAFMN.__arch.safmn import SAFMN

        return SAFMN(dim=int(width), n_blocks=8, ffn_scale=2.0, upscaling_factor=recipe.scale)
    if kind == "span":
        from spandrel.architectures.SPAN.__arch.span import SPAN

        return SPAN(
            num_in_ch=3, num_out_ch=3, feature_channels=int(width), upscale=recipe.scale, norm=False
        )
    return ESC(recipe.network_config(), attention_backend="chunked")


def _seconds_per_step(step: TrainingStep, source: BatchSource) -> float:
    for number in range(_SPEED_STEPS):
        if number == 4:
            started = time.process_time()
        step(source.batch(number))
    return (time.process_time() - started) / (_SPEED_STEPS - 4)


def _add_to_record(path: Path, name: str, curve: dict[str, object], recipe: Recipe) -> None:
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"curves": {}}
    record |= {"date": date.today().isoformat(), "scale": recipe.scale, "torch": torch.__version__}
    record["curves"][name] = curve
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("curve", help="name of the curve")
    run.add_argument("--network", default="esc-tiny")
    run.add_argument("--share", type=float, default=1.0)
    run.add_argument("--seconds", type=float, default=450, help="of processor time")
    run.add_argument("--steps", type=int)
    run.add_argument("--images", type=int, help="judge with the first so many of a test set")
    run.add_argument("--set", action="append", help="KEY=VALUE of the recipe to change")
    run.add_argument("--recipe", type=Path, default=Path("recipes/shipped/esc-tiny-x2-first.toml"))
    run.add_argument("--data", required=True)
    run.add_argument("--test", type=Path, action="append", required=True)
    run.add_argument("--record", type=Path, required=True)
    run.set_defaults(work=run_curve)
    plot = commands.add_parser("plot")
    plot.add_argument("record", type=Path)
    plot.add_argument("--curves", required=True)
    plot.add_argument("--out", type=Path, required=True)
    plot.set_defaults(work=plot_curves)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = _arguments()
    chosen.work(chosen)
