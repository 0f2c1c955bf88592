"""What network a bag of tensors is: every hyper-parameter from names and shapes."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from escsr.errors import CheckpointError
from escsr.model.config import ESCConfig, ImageSkip, LargeKernel
from escsr.weights.official import to_ours, to_reference, unknown_own_names, unknown_reference_names

_PUBLISHED_EXPANSIONS = (1.25, 2.0, 1.5)
"""Of ESC's ConvAttention layers, of its first ConvFFN, and of ESC-FP's first ConvFFN."""

_RELATIVES = (
    ("imnet.", "ESC+LTE"),
    ("upsampler.up_conv.", "ESC-RIB"),
    ("to_img.MetaUpsample", "ESC-Real-M"),
    ("skip.", "ESC-Real"),
)
"""A beginning of a name -> the relative of ESC whose checkpoints have it."""

_RANKS = {
    "shallow.weight": 4,
    "shared_large_kernel.weights.0": 4,
    "blocks.0.feed_forward.expand.weight": 4,
    "blocks.0.attention.relative_position_bias": 2,
    "reconstruction.to_subpixels.weight": 4,
}
"""Tensors that tell the configuration -> their number of dimensions."""


def infer_config(state: Mapping[str, Tensor]) -> ESCConfig:
    """Read every hyper-parameter of a network from the names and shapes of its weights.

    Two hidden widths are told, not the factors they came from: the published factor is taken where
    it gives the width. How the image skip enlarges is told by no tensor; it follows the kind.

    Args:
        state: tensors by the reference's names or by ours.
    Raises:
        CheckpointError: not the weights of an ESC; says what was found and what is missing.
    """
    unknown, ours = own_names(state)
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    missing = [name for name in _RANKS if name not in shapes]
    if missing:
        raise CheckpointError(_not_an_esc(state, unknown, missing))
    for name, rank in _RANKS.items():
        if len(shapes[name]) != rank or 0 in shapes[name]:
            raise CheckpointError(
                f"{name} has the shape {shapes[name]}; an ESC's has {rank} dimensions, none empty."
            )
    return _config_from_shapes(shapes)


def own_names(state: Mapping[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
    """Split off what no ESC has, and give the rest our names.

    Returns:
        The names that neither the reference's ESC nor ours has; the other tensors by our names.
    """
    if is_named_as_ours(state):
        unknown = unknown_own_names(state)
        return unknown, {name: state[name] for name in state if name not in set(unknown)}
    unknown = unknown_reference_names(state)
    return unknown, to_ours({name: state[name] for name in state if name not in set(unknown)})


def is_named_as_ours(state: Mapping[str, Tensor]) -> bool:
    """Whether more of the names are ours than the reference's."""
    return len(unknown_own_names(state)) < len(unknown_reference_names(state))


def _config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> ESCConfig:
    dim = shapes["shallow.weight"][0]
    kernel = "decomposed" if "shared_large_kernel.weights.1" in shapes else "dense"
    spatial = "shared_large_kernel.weights.1" if kernel == "decomposed" else None
    num_heads, offsets = shapes["blocks.0.attention.relative_position_bias"]
    layer_width = shapes.get("blocks.0.conv_layers.0.feed_forward.expand.weight", (0,))[0]
    return _checked_config(
        scale=_side("the last convolution's channels / 3", _subpixels(shapes)),
        dim=dim,
        pdim=shapes["shared_large_kernel.weights.0"][0],
        num_blocks=_count(shapes, r"blocks\.(\d+)\..*"),
        num_conv_layers=_count(shapes, r"blocks\.0\.conv_layers\.(\d+)\..*"),
        window_size=(_side("the entries of the position bias per head", offsets) + 1) // 2,
        num_heads=num_heads,
        large_kernel_size=shapes[spatial or "shared_large_kernel.weights.0"][-1],
        expansion=_expansion(layer_width, dim) if layer_width else _PUBLISHED_EXPANSIONS[0],
        first_expansion=_expansion(shapes["blocks.0.feed_forward.expand.weight"][0], dim),
        norm_in_conv_layers="blocks.0.conv_layers.0.norm.weight" in shapes,
        norm_before_last_conv="norm.weight" in shapes,
        large_kernel=kernel,
        image_skip="bicubic" if kernel == "decomposed" else "nearest",
    )


def _checked_config(
    *, large_kernel: LargeKernel, image_skip: ImageSkip, **values: float | bool
) -> ESCConfig:
    try:
        return ESCConfig.from_dict(
            {"large_kernel": large_kernel, "image_skip": image_skip, **values}
        )
    except ValueError as error:
        raise CheckpointError(f"The shapes of the tensors fit no ESC: {error}") from error


def _subpixels(shapes: Mapping[str, tuple[int, ...]]) -> int:
    channels = shapes["reconstruction.to_subpixels.weight"][0]
    if channels % 3:
        raise CheckpointError(
            f"The last convolution makes {channels} channels; an ESC's makes 3 * scale^2."
        )
    return channels // 3


def _side(what: str, area: int) -> int:
    side = math.isqrt(area)
    if side * side != area:
        raise CheckpointError(f"In an ESC, {what} are a square number; here they are {area}.")
    return side


def _count(names: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many different indices there are; gaps show later, as missing names."""
    matches = (re.fullmatch(pattern, name) for name in names)
    return len({match.group(1) for match in matches if match is not None})


def _expansion(hidden: int, dim: int) -> float:
    for published in _PUBLISHED_EXPANSIONS:
        if int(published * dim) == hidden:
            return published
    ratio = hidden / dim
    return ratio if int(ratio * dim) == hidden else math.nextafter(ratio, math.inf)


def _not_an_esc(state: Mapping[str, Tensor], unknown: list[str], missing: list[str]) -> str:
    has_large_kernel = any(name.endswith("plk_filter") for name in state)
    for beginning, relative in _RELATIVES:
        if has_large_kernel and any(name.startswith(beginning) for name in state):
            return (
                f"These are the weights of {relative}, which this version does not run; it runs "
                "ESC, ESC-light, ESC-FP and ESC-XL."
            )
    examples = [
        f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in list(state.items())[:3]
    ]
    if len(state) > len(examples):
        examples.append("…")
    if not is_named_as_ours(state):
        missing = list(to_reference(dict.fromkeys(missing, torch.empty(0))))
    return (
        f"Not an ESC: {len(state)} tensors were found ({', '.join(examples)}), {len(unknown)} of "
        f"them with names that no ESC has; missing are {', '.join(missing)} and "
        "more. Give a checkpoint of ESC, ESC-light, ESC-FP or ESC-XL."
    )
