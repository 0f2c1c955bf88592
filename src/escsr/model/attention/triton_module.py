"""Window attention for inference by the Triton kernel, as a module."""

import torch
from torch import Tensor, nn

from escsr.model.attention.triton_attention import DotPrecision, Launch, attend_in_windows
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap


class TritonWindowAttention(WindowAttention):
    """What ``WindowAttention`` computes, from the features' own memory to the result's.

    Float32 is multiplied as PyTorch's switch for TF32 in matrix products says.
    """

    def __init__(self, source: WindowAttention, position_bias: nn.Module) -> None:
        """Take over the parts of an attention.

        Args:
            source: a copy already.
            position_bias: gives the table of a bias, or factors.
        """
        nn.Module.__init__(self)
        self.window_size, self.num_heads = source.window_size, source.num_heads
        self.backend = "auto"
        self.query_key_value = source.query_key_value
        self.output_projection = source.output_projection
        self.gate = source.gate
        self.position_bias = position_bias
        self.precision: DotPrecision | None = None
        """How float32 is multiplied, instead of as PyTorch's switch says."""
        self.launch: Launch | None = None
        """How the kernel is cut, unless it chooses itself."""

    def forward(self, features: FeatureMap, gate: FeatureMap | None = None) -> FeatureMap:
        """Attend within windows: (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

        ``gate`` as in ``WindowAttention``.
        """
        attended = self.attended(self.query_key_value(features))
        if self.gate is not None:
            attended = attended * (self.gate(features) if gate is None else gate)
        return self.output_projection(attended)

    def attended(self, qkv: FeatureMap) -> FeatureMap:
        """The kernel alone: (B, 3C, H, W) -> (B, C, H, W)."""
        return attend_in_windows(
            qkv,
            self.position_bias(),
            num_heads=self.num_heads,
            window_size=self.window_size,
            precision=self.precision or _precision_of_switch(),
            launch=self.launch,
        )


class FoldedBiasTable(nn.Module):
    """The table of a position bias, float32 whatever the network's precision.

    Held as bits, so that ``module.to(dtype)``, which converts floating point only, leaves it.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.bits = nn.Buffer(table.detach().float().contiguous().view(torch.int32).clone())

    def forward(self) -> Tensor:
        """(N, (2w-1)^2) float32."""
        return self.bits.view(torch.float32)


def _precision_of_switch() -> DotPrecision:
    switches = torch.backends.cuda.matmul
    # The old name raises where somebody has used the new one, which 2.6 does not know.
    if hasattr(switches, "fp32_precision"):
        return "tf32" if switches.fp32_precision == "tf32" else "ieee"
    return "tf32" if switches.allow_tf32 else "ieee"
