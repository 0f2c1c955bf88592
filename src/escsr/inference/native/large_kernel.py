"""Spectra of the large and the dynamic kernel, as ``source/spectrum.cpp`` wants them.

A kernel averaged over the square's symmetries has a real spectrum that is the same at up to eight
frequencies: those make a class, and one matrix of channels serves all of them.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.inference.frequency_domain import centred_kernel
from escsr.model.convolutional_attention import DYNAMIC_KERNEL_SIZE, LargeKernelWeights

SIDE = 32
"""Of a tile, in pixels."""
LARGEST_KERNEL = 17
"""Beyond it the inner part of a tile gets too small."""
MOST_VECTORS = 8
"""Of channels that are convolved: so many sums of one frequency are kept at a time."""


class KernelSpectra:
    """A large kernel in the frequency domain, made once.

    Args:
        weights: the kernel; a dense one is averaged already.
        channels: P, padded to whole vectors.
    """

    def __init__(self, weights: LargeKernelWeights, channels: int) -> None:
        places, classes = _classes()
        self.places, self.classes = places, classes
        spatial = weights[-1].double()
        self.kernel_size = int(spatial.shape[-1])
        missing = channels - weights[0].shape[0]
        if spatial.shape[1] > 1 or len(weights) == 1:
            padded = F.pad(spatial, (0, 0, 0, 0, 0, missing, 0, missing))
            of_class = spectra(padded)[..., places[classes[:-1].long()].long()]
            self.dense = of_class.real.permute(2, 1, 0).float().contiguous()
            self.depthwise = None
        else:
            padded = F.pad(spatial[:, 0], (0, 0, 0, 0, 0, missing))
            self.dense = None
            of_place = spectra(padded).t()
            self.depthwise = (
                of_place.real.float().contiguous(),
                of_place.imag.float().contiguous(),
            )
        taps = torch.eye(DYNAMIC_KERNEL_SIZE**2, dtype=torch.float64)
        of_tap = spectra(taps.reshape(-1, DYNAMIC_KERNEL_SIZE, DYNAMIC_KERNEL_SIZE)).t()
        self.tap_real = of_tap.real.float().contiguous()
        self.tap_imag = of_tap.imag.float().contiguous()

    def with_dynamic(self, dynamic_kernel: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The spectrum of all depthwise kernels added up.

        Args:
            dynamic_kernel: (P, 9), of one image; or none.
        Returns:
            Real and imaginary part, (1024, P) each; None where there is no depthwise kernel.
        """
        if dynamic_kernel is None:
            return self.depthwise
        taps = dynamic_kernel.t()
        if self.depthwise is None:
            return self.tap_real @ taps, self.tap_imag @ taps
        real, imag = self.depthwise
        return real + self.tap_real @ taps, imag + self.tap_imag @ taps


def spectra(kernels: Tensor) -> Tensor:
    """What kernels, as convolutions of a network slide them, do to each frequency.

    Args:
        kernels: (…, K, K) float64, K odd.
    Returns:
        (…, 1024) complex, by place: row and column of the transform that the kernels leave.
    """
    centred = centred_kernel(kernels, SIDE)
    frequency = _frequency_of_place()
    transformed = cast(Tensor, torch.fft.fft2(centred))  # pyright: ignore[reportUnknownMemberType]
    return transformed.conj()[..., frequency, :][..., frequency].flatten(-2)


def _frequency_of_place() -> Tensor:
    """(32,): place 8k + m of a transformed row holds frequency 4m + k."""
    place = torch.arange(SIDE)
    return 4 * (place % 8) + place // 8


def _classes() -> tuple[Tensor, Tensor]:
    """Places sorted by class, (1024,), and where each class begins, (classes + 1,); int32."""
    frequency = _frequency_of_place()
    distance = torch.minimum(frequency, SIDE - frequency)
    rows, columns = distance[:, None].expand(SIDE, SIDE), distance.expand(SIDE, SIDE)
    key = SIDE * torch.maximum(rows, columns) + torch.minimum(rows, columns)
    in_order, places = torch.sort(key.flatten(), stable=True)
    is_first = torch.ones(SIDE**2 + 1, dtype=torch.bool)
    is_first[1:-1] = in_order[1:] != in_order[:-1]
    return places.int(), is_first.nonzero()[:, 0].int()
