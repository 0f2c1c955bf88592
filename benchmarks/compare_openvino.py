"""Time the core against OpenVINO on the same folded graph, in turn in one process; prints a line.

    pip install openvino
    python benchmarks/compare_openvino.py esc -s 4 --threads 2 --rounds 7

OpenVINO compiles the graph for one size of image; the core runs any.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import openvino
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.core.network import Network
from escsr.engines import folding
from escsr.model import ESC, variant
from escsr.model.convolutional_attention import convolve_per_image_by_shifts


def main() -> None:
    """Convert, check that both give the same, time them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a variant's name")
    parser.add_argument("-s", "--scale", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = ESC(variant(arguments.model, scale=arguments.scale)).eval()
    core = Network(network.config, {name: v.numpy() for name, v in network.state_dict().items()})
    image = torch.rand(1, 3, round(720 / arguments.scale), round(1280 / arguments.scale))
    compiled = _compiled(network, image, arguments.threads)
    pixels = image.numpy()
    ways: dict[str, Callable[[], object]] = {
        "openvino": lambda: compiled(pixels)[0],
        "core": lambda: core(pixels, num_threads=arguments.threads),
    }
    first, second = (np.asarray(run()) for run in ways.values())
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(taken["openvino"], taken["core"], strict=True)]
    report = {
        "network": f"{arguments.model} x{arguments.scale}",
        "openvino": openvino.__version__,
        "threads": arguments.threads,
        "largest_difference": float(np.abs(first - second).max()),
        **{f"{name}_ms": round(1000 * statistics.median(t)) for name, t in taken.items()},
        "times_faster": round(statistics.median(ratios), 2),
        "from_to": [round(min(ratios), 2), round(max(ratios), 2)],
    }
    print(json.dumps(report))


def _compiled(network: ESC, image: Tensor, threads: int) -> openvino.CompiledModel:
    # OpenVINO knows no diag_embed, by which both kernels become one: it gets two convolutions.
    folding.FoldedConvAttention.convolve = _convolve  # type: ignore[method-assign]
    with torch.no_grad():
        model = openvino.convert_model(
            folding.fold(network), example_input=image, input=list(image.shape)
        )
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings)


def _convolve(self: object, features: Tensor, large: tuple[Tensor, ...], dynamic: Tensor) -> Tensor:
    far = F.conv2d(features, large[0], padding=large[0].shape[-1] // 2)
    return far + convolve_per_image_by_shifts(features, dynamic)


if __name__ == "__main__":
    main()
