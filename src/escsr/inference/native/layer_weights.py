"""What the kernel of a layer is given beside its maps."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """Weights of ``run_layer``: matrices of (input, output) channels, padded to whole vectors."""

    expand_weight: Tensor
    """(C, E)."""
    expand_bias: Tensor
    """(E,)."""
    depthwise_weight: Tensor
    """(9, E)."""
    depthwise_bias: Tensor
    """(E,)."""
    reduce_weight: Tensor
    """(E, C)."""
    reduce_bias: Tensor
    """(C,)."""
    side_weight: Tensor
    """(E, S), or (C, S) where the side is made of the result."""
    side_bias: Tensor
    """(S,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerKind:
    """What a layer does beside its products."""

    normalises: bool
    """Whether LayerNorm (its weights folded into ``expand``) comes first."""
    has_residual: bool
    """Whether the completed features are added to the result."""
    side_is_of_result: bool
    """Whether the side is made of the normalised result, not of the hidden map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """What the layer before left to be added: ``values @ weight + bias``."""

    values: Tensor
    """(H*W, A)."""
    weight: Tensor
    """(A, C)."""
    bias: Tensor
    """(C,)."""
