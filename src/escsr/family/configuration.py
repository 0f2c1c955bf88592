"""What an ESC network is made of: every number that shapes its tensors."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args

from escsr.errors import ConfigurationError

ImageSkip = Literal["nearest", "bicubic", "none"]
LargeKernel = Literal["dense", "decomposed"]
PositionBias = Literal["table", "implicit"]
Mixer = Literal["window", "convolution"]
Upsampler = Literal[
    "pixelshuffledirect",
    "pixelshuffle",
    "nearest+conv",
    "conv+nearest",
    "dysample",
    "lte",
    "transpose+conv",
    "lda",
    "pa_up",
]

WITH_OWN_WIDTH: tuple[Upsampler, ...] = ("pixelshuffle", "dysample", "lda", "pa_up")
"""The upsamplers that ``upsampler_dim`` is for."""


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
    """Side of an attention window, in pixels of the features."""
    num_heads: int = 4
    """Attention heads; divides ``dim``."""
    large_kernel_size: int = 13
    """Side of the large kernel shared by the whole network; odd, 1 or more."""
    expansion: float = 1.25
    """Hidden over input channels of the ConvFFN before each ConvAttention."""
    first_expansion: float = 2.0
    """Hidden over input channels of the ConvFFN that opens a block."""
    norm_in_conv_layers: bool = False
    """LayerNorm before each ConvAttention layer (ESC-XL, ESC-FP)."""
    norm_before_last_conv: bool = False
    """LayerNorm before the convolution that closes the body (ESC-FP)."""
    image_skip: ImageSkip = "nearest"
    """How the LR image is enlarged and added to the output; "bicubic" in ESC-FP. Only
    "pixelshuffledirect" has one, and "lte" its own, bilinear."""
    feature_skip: bool = False
    """Features made from the image by 1x1, 7x7 and 1x1 are added after the body (ESC-Real)."""
    large_kernel: LargeKernel = "dense"
    """"dense": P x P x K x K; "decomposed": 1x1 P x P, then depthwise K x K (ESC-FP)."""
    upsampler: Upsampler = "pixelshuffledirect"
    """From features to pixels. "nearest+conv" is ESC-Real's, "conv+nearest" ESC-Real-M's (which
    calls it nearest+conv, too); "lte" enlarges by any factor; "transpose+conv", "lda" and "pa_up"
    are traiNNer-redux's."""
    upsampler_dim: int = 48
    """Channels within "pixelshuffle", "dysample", "lda" and "pa_up". "dysample" and "lda" take the
    features as they are where it equals ``dim``; of "lda" it is a multiple of 8."""
    dysample_groups: int = 4
    """Groups of channels that "dysample" moves together; divides ``upsampler_dim``."""
    unshuffle: int = 1
    """Pixels per side that become channels before the body: ESC-Real-M at x1 has 4, at x2 2."""
    texture_dim: int = 256
    """Channels of the waves that "lte" adds up; even."""
    texture_mlp_dim: int = 256
    """Hidden channels of the MLP of "lte"."""
    texture_mlp_layers: int = 3
    """Hidden layers of that MLP."""
    position_bias: PositionBias = "table"
    """"table": one learned number per offset and head; "implicit": a small network of the position
    makes factors (ESC-RIB)."""
    position_rank: int = 16
    """Numbers per position, head and side that the implicit bias makes."""
    position_hidden_dim: int = 32
    """Hidden channels of the implicit bias's network."""
    position_frequencies: int = 10
    """Frequencies at which the implicit bias sees a position."""
    attention_gate: bool = False
    """Attention's result is weighed by a gate made from its input (ESC-RIB)."""
    first_mixer: Mixer = "window"
    """What the first layer of a block mixes pixels with; "convolution" is an ablation."""
    layer_mixer: Mixer = "convolution"
    """What the other layers mix pixels with; "window" is an ablation."""
    dynamic_kernel: bool = True
    """Whether ConvAttention makes a kernel of each image; without it is an ablation."""
    share_large_kernel: bool = True
    """One large kernel for the whole network, or one per ConvAttention: an ablation."""

    def __post_init__(self) -> None:
        """Check every field, naming the first that cannot be."""
        for name in _COUNTS:
            _require_integer(name, getattr(self, name), at_least=1)
        for name in ("num_conv_layers", "position_frequencies", "texture_mlp_layers"):
            _require_integer(name, getattr(self, name), at_least=0)
        _require_integer("large_kernel_size", self.large_kernel_size, at_least=1)
        if self.large_kernel_size % 2 == 0:
            raise ConfigurationError(
                f"large_kernel_size is {self.large_kernel_size}; a kernel needs a centre, "
                "so give an odd number."
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
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r}; it must be true or false."
                )
        for name, allowed in _CHOICES.items():
            _require_choice(name, getattr(self, name), allowed)
        _require_upsampler(self)

    @property
    def inner_scale(self) -> int:
        """Output pixels per pixel of the features, per side."""
        return self.scale * self.unshuffle

    @property
    def window_pixels(self) -> int:
        """Side of an attention window, in LR pixels, also where these become channels first."""
        return self.window_size * self.unshuffle

    @property
    def is_arbitrary_scale(self) -> bool:
        """Whether the network enlarges to any size; ``scale`` is then its default."""
        return self.upsampler == "lte"

    @property
    def needs_position(self) -> bool:
        """Whether a part of a result is made by its place in the whole image, beside its pixels."""
        return self.upsampler in ("lte", "lda")

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


_COUNTS = (
    "scale",
    "dim",
    "pdim",
    "num_blocks",
    "window_size",
    "num_heads",
    "upsampler_dim",
    "dysample_groups",
    "unshuffle",
    "texture_dim",
    "texture_mlp_dim",
    "position_rank",
    "position_hidden_dim",
)
_SWITCHES = (
    "norm_in_conv_layers",
    "norm_before_last_conv",
    "feature_skip",
    "attention_gate",
    "dynamic_kernel",
    "share_large_kernel",
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "image_skip": get_args(ImageSkip),
    "large_kernel": get_args(LargeKernel),
    "upsampler": get_args(Upsampler),
    "position_bias": get_args(PositionBias),
    "first_mixer": get_args(Mixer),
    "layer_mixer": get_args(Mixer),
}


def _require_upsampler(config: ESCConfig) -> None:
    kind, scale = config.upsampler, config.inner_scale
    if kind != "pixelshuffledirect" and config.image_skip != "none":
        raise ConfigurationError(
            f"image_skip is {config.image_skip!r} and upsampler is {kind!r}; only "
            '"pixelshuffledirect" adds the enlarged image, so set image_skip to "none".'
        )
    if config.unshuffle != 1 and config.image_skip != "none":
        raise ConfigurationError(
            f"image_skip is {config.image_skip!r} and unshuffle is {config.unshuffle}; where "
            'pixels become channels no enlarged image is added, so set image_skip to "none".'
        )
    steps_exist = scale == 3 or (scale > 1 and scale & (scale - 1) == 0)
    stacks = ("pixelshuffle", "nearest+conv", "conv+nearest", "pa_up")
    if kind in stacks and not steps_exist:
        raise ConfigurationError(
            f"upsampler is {kind!r} and enlarges the features by {scale}; it can by 3 and by "
            'powers of 2 (for the same size, take "pixelshuffledirect").'
        )
    if kind == "transpose+conv" and scale not in (2, 3, 4):
        raise ConfigurationError(
            f"upsampler is {kind!r} and enlarges the features by {scale}; it can by 2, 3 and 4 "
            '(for the same size, take "pixelshuffledirect").'
        )
    if kind == "lda":
        _require_local_attention(config)
    if kind == "dysample" and config.upsampler_dim % config.dysample_groups:
        raise ConfigurationError(
            f"dysample_groups is {config.dysample_groups} and upsampler_dim is "
            f"{config.upsampler_dim}; choose a number of groups that divides it."
        )
    if kind == "lte" and (config.texture_dim % 2 or config.unshuffle != 1):
        raise ConfigurationError(
            f'upsampler is "lte" with texture_dim {config.texture_dim} and unshuffle '
            f"{config.unshuffle}; texture_dim must be even and unshuffle 1."
        )


def _require_local_attention(config: ESCConfig) -> None:
    if config.inner_scale < 2:
        raise ConfigurationError(
            'upsampler is "lda" and enlarges the features by 1; it can by 2 and more (for the same '
            'size, take "pixelshuffledirect").'
        )
    if config.upsampler_dim % 8:
        raise ConfigurationError(
            f'upsampler is "lda" and upsampler_dim is {config.upsampler_dim}; a quarter of it is '
            "split into 2 groups, so choose a multiple of 8."
        )


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
