"""Where the large kernel in the frequency domain overtakes a direct convolution, in PyTorch.

python benchmarks/measure_frequency_domain.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from escsr.engines.folding import convolve_by_spectrum, real_spectrum
from escsr.model.convolutional_attention import (
    average_over_symmetries,
    convolve_large,
    convolve_per_image,
)

KERNELS = ((12, 13), (16, 9), (16, 13), (48, 13))
SIZES = ((32, 32), (64, 64), (96, 96), (128, 128), (180, 320))
_RUNS = 15


@torch.inference_mode()
def main() -> None:
    """Print a row per kernel and size: milliseconds of both, and their ratio."""
    for channels, size in KERNELS:
        kernel = average_over_symmetries(torch.randn(channels, channels, size, size)) / size
        for height, width in SIZES:
            features = torch.randn(1, channels, height, width)
            direct, by_spectrum = _medians(
                features.contiguous(memory_format=torch.channels_last), kernel
            )
            print(
                f"| {channels} channels, {size}x{size} | {width}x{height} | {direct:.2f} | "
                f"{by_spectrum:.2f} | {direct / by_spectrum:.2f} |"
            )


def _medians(features: Tensor, kernel: Tensor) -> list[float]:
    """Of the direct convolution with a merged kernel, and of the spectrum and a dynamic kernel."""
    spectrum, size = real_spectrum(kernel), kernel.shape[-1]
    direct = kernel.contiguous(memory_format=torch.channels_last)
    dynamic = torch.randn(1, kernel.shape[0], 3, 3)

    def both() -> Tensor:
        far = convolve_by_spectrum(features, spectrum, size)
        return far.add_(convolve_per_image(features, dynamic))

    ways: list[Callable[[], Tensor]] = [lambda: convolve_large(features, direct), both]
    times: list[list[float]] = [[], []]
    for _ in range(_RUNS):
        for way, found in zip(ways, times, strict=True):
            started = time.perf_counter()
            way()
            found.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(found[2:]) for found in times]


if __name__ == "__main__":
    main()
