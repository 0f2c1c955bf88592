"""1x1 convolutions as matrices, multiplied with their neighbours before any image comes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.inference.native.calls import lanes
from escsr.inference.native.layer_weights import Addition
from escsr.model.layer_norm import ChannelLayerNorm


@dataclass(frozen=True, slots=True)
class Matrix:
    """``x @ weight + bias``; in float64, until a kernel needs it."""

    weight: Tensor
    """(channels in, channels out)."""
    bias: Tensor
    """(channels out,)."""

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "Matrix":
        """What a 1x1 convolution does to each pixel."""
        return cls(
            convolution.weight.detach().double()[:, :, 0, 0].t(),
            bias_of(convolution).double(),
        )

    def after(self, norm: nn.Module) -> "Matrix":
        """The weights of a LayerNorm taken in; what is left of it only normalises."""
        if not isinstance(norm, ChannelLayerNorm):
            return self
        gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
        return Matrix(gain[:, None] * self.weight, shift @ self.weight + self.bias)

    def then(self, other: "Matrix") -> "Matrix":
        """Both, one after another."""
        return Matrix(self.weight @ other.weight, self.bias @ other.weight + other.bias)

    def outputs(self, first: int, last: int | None) -> "Matrix":
        """Some of the channels out."""
        return Matrix(self.weight[:, first:last], self.bias[first:last])

    def inputs(self, first: int, last: int | None) -> "Matrix":
        """What some of the channels in contribute, and the bias."""
        return Matrix(self.weight[first:last], self.bias)

    def without_bias(self) -> "Matrix":
        """The product alone."""
        return Matrix(self.weight, torch.zeros_like(self.bias))

    def ready(self, *, num_inputs: int | None = None) -> "Matrix":
        """For a kernel: float32, zeros appended to whole vectors.

        Args:
            num_inputs: rows wanted; as many as there are unless given.
        """
        rows, columns = self.weight.shape
        missing = padded_length(columns) - columns
        more = 0 if num_inputs is None else num_inputs - rows
        weight = F.pad(self.weight, (0, missing, 0, more)).float().contiguous()
        return Matrix(weight, F.pad(self.bias, (0, missing)).float().contiguous())

    def times(self, values: Tensor) -> Addition:
        """The product with a map, still to be computed."""
        return Addition(values=values, weight=self.weight, bias=self.bias)


def padded_length(channels: int) -> int:
    """Channels, with as many more as fill the last vector."""
    return -(-channels // lanes()) * lanes()


def bias_of(convolution: nn.Conv2d) -> Tensor:
    """Its bias; ESC's convolutions all have one."""
    assert convolution.bias is not None
    return convolution.bias.detach()
