"""What an ESC network is made of: every number that shapes its tensors."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args

from escsr.errors import ConfigurationError

ImageSkip = Literal["nearest", "bicubic"]
LargeKernel = Literal["dense", "decomposed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ESCConfig:
    """The hyper-parameters of one ESC network; the defaults are ESC x4 of the paper.

    Raises:
        ConfigurationError: a value is out of range or values do not fit together.
    Source: ESC, arXiv:2503.06671, section 4.1; ESC-FP and ESC-XL from its official code.
    """

    scale: int = 4
    """Upscaling factor per side, >= 1."""
    dim: int = 64
    """Channels of the features (C)."""
    pdim: int = 16
    """Leading channels that ConvAttention convolves (P); the others pass through unchanged."""
    num_blocks: int = 5
    """Blocks; each holds one window attention."""
    num_conv_layers: int = 5
    """ConvAttention layers in each block."""
    window_size: int = 32
    """Side of an attention window, in LR pixels."""
    num_heads: int = 4
    """Attention heads; divides ``dim``."""
    large_kernel_size: int = 13
    """Side of the large kernel shared by the whole network; odd."""
    expansion: float = 1.25
    """Hidden over input channels of the ConvFFN before each ConvAttention."""
    first_expansion: float = 2.0
    """Hidden over input channels of the ConvFFN that opens a block."""
    norm_in_conv_layers: bool = False
    """LayerNorm before each ConvAttention layer (ESC-XL, ESC-FP)."""
    norm_before_last_conv: bool = False
    """LayerNorm before the convolution that closes the body (ESC-FP)."""
    image_skip: ImageSkip = "nearest"
    """How the LR image is enlarged and added to the output; "bicubic" in ESC-FP."""
    large_kernel: LargeKernel = "dense"
    """"dense": P x P x K x K; "decomposed": 1x1 P x P, then depthwise K x K (ESC-FP)."""

    def __post_init__(self) -> None:
        """Check every field, naming the first that cannot be."""
        for name in ("scale", "dim", "pdim", "num_blocks", "window_size", "num_heads"):
            _require_integer(name, getattr(self, name), at_least=1)
        _require_integer("num_conv_layers", self.num_conv_layers, at_least=0)
        _require_integer("large_kernel_size", self.large_kernel_size, at_least=3)
        if self.large_kernel_size % 2 == 0:
            raise ConfigurationError(
                f"large_kernel_size is {self.large_kernel_size}; a kernel needs a centre, "
                "so give an odd number of 3 or more."
            )
        if self.pdim > self.dim:
            raise ConfigurationError(
                f"pdim is {self.pdim} and dim is {self.dim}; at most dim channels can be convolved."
            )
        if self.dim % self.num_heads:
            raise ConfigurationError(
                f"dim is {self.dim} and num_heads is {self.num_heads}; "
                "choose a number of heads that divides dim."
            )
        for name in ("expansion", "first_expansion"):
            _require_expansion(name, getattr(self, name), self.dim)
        for name in ("norm_in_conv_layers", "norm_before_last_conv"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r}; it must be true or false."
                )
        _require_choice("image_skip", self.image_skip, get_args(ImageSkip))
        _require_choice("large_kernel", self.large_kernel, get_args(LargeKernel))

    @property
    def hidden_dynamic_dim(self) -> int:
        """Hidden channels of the network that makes the dynamic kernel; at least 1."""
        return max(1, self.pdim // (2 if self.large_kernel == "dense" else 4))

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ESCConfig":
        """Build from plain values; unknown names are errors.

        Raises:
            ConfigurationError: a name is unknown or a value is not allowed.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigurationError(
                f"Unknown in a network's configuration: {', '.join(unknown)}. "
                f"Known are {', '.join(known)}."
            )
        return cls(**values)


def _require_integer(name: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigurationError(
            f"{name} is {value!r}; it must be an integer of {at_least} or more."
        )


def _require_expansion(name: str, value: object, dim: int) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isfinite(value) and int(value * dim) >= 1:
            return
    raise ConfigurationError(
        f"{name} is {value!r}; it must be a number of 1/{dim} or more, so that at least one hidden "
        "channel is left."
    )


def _require_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
