"""What network a bag of tensors is: every hyper-parameter from names and shapes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from escsr.errors import CheckpointError
from escsr.family.configuration import ESCConfig
from escsr.weights.arrays import AnyArray, Shaped
from escsr.weights.official import (
    reference_names,
    to_ours,
    unknown_own_names,
    unknown_reference_names,
)
from escsr.weights.official_names import META_UPSAMPLE
from escsr.weights.upsampler_recognition import recognise_upsampler, side_of_square

_PUBLISHED_EXPANSIONS = (1.25, 2.0, 1.5, 4.0)
"""Of ESC's ConvAttention layers, of its first ConvFFN, of ESC-FP's and of ESC-RIB's."""
_PUBLISHED_RIB_WINDOW = 64
_LARGEST_WINDOW = 128
"""Its biases alone, for every pair of pixels of a window, take a gigabyte per head."""

_RANKS = {
    "shallow.weight": 4,
    "blocks.0.feed_forward.expand.weight": 4,
    "deep.weight": 4,
}
"""Tensors that every network has -> their number of dimensions."""
_MORE_RANKS = {
    "shared_large_kernel.weights.0": 4,
    "blocks.0.attention.position_bias.table": 2,
    "reconstruction.to_subpixels.weight": 4,
    "reconstruction.amplitude.weight": 4,
    "reconstruction.attention.to_query.weight": 4,
}
"""Tensors that some have and that tell something."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """What a file of weights was recognised as."""

    config: ESCConfig
    assumed: tuple[str, ...] = ()
    """Fields of the configuration that no tensor tells: published values were taken."""


def infer_config(state: Mapping[str, Shaped]) -> ESCConfig:
    """Read every hyper-parameter of a network from the names and shapes of its weights.

    As ``recognise``, without telling what was assumed.
    """
    return recognise(state).config


def recognise(state: Mapping[str, Shaped], *, stated: ESCConfig | None = None) -> Recognition:
    """Read every hyper-parameter of a network from the names and shapes of its weights.

    Two hidden widths are told, not the factors they came from: the published factor is taken where
    it gives the width. How the image skip enlarges is told by no tensor; it follows the kind.

    Args:
        state: arrays by the reference's names or by ours.
        stated: what a header says; asked where tensors fit more than one network.
    Raises:
        CheckpointError: not the weights of an ESC; says what was found and what is missing.
    """
    unknown, ours = own_names(state)
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    missing = [name for name in _RANKS if name not in shapes]
    if missing or not any(name.startswith("reconstruction.") for name in shapes):
        raise CheckpointError(_not_an_esc(state, unknown, missing))
    for name, rank in {**_RANKS, **_MORE_RANKS}.items():
        if name in shapes and (len(shapes[name]) != rank or 0 in shapes[name]):
            raise CheckpointError(
                f"{name} has the shape {shapes[name]}; an ESC's has {rank} dimensions, none empty."
            )
    stated_scale = None if stated is None else stated.inner_scale
    return _from_shapes(shapes, state.get(META_UPSAMPLE), stated_scale)


def own_names(state: Mapping[str, AnyArray]) -> tuple[list[str], dict[str, AnyArray]]:
    """Split off what no ESC has, and give the rest our names.

    Returns:
        The names that neither the reference's networks nor ours have; the other tensors by our
        names, without what the reference stores beside weights.
    """
    if is_named_as_ours(state):
        unknown = unknown_own_names(state)
        return unknown, {name: state[name] for name in state if name not in set(unknown)}
    unknown = unknown_reference_names(state)
    return unknown, to_ours({name: state[name] for name in state if name not in set(unknown)})


def is_named_as_ours(state: Mapping[str, Shaped]) -> bool:
    """Whether more of the names are ours than the reference's."""
    return len(unknown_own_names(state)) < len(unknown_reference_names(state))


def _from_shapes(shapes: Shapes, record: Any, stated_scale: int | None) -> Recognition:
    dim, channels = shapes["shallow.weight"][:2]
    if channels % 3:
        raise CheckpointError(
            f"The first convolution takes {channels} channels; an ESC's takes 3 * unshuffle^2."
        )
    unshuffle = side_of_square("the first convolution's input channels / 3", channels // 3)
    layer_width = shapes.get("blocks.0.conv_layers.0.feed_forward.expand.weight", (0,))[0]
    attention, assumed = _attention(shapes)
    convolution, also_assumed = _convolution(shapes)
    assumed = (*assumed, *also_assumed, *(() if layer_width else ("layer_mixer",)))
    upsampler, also_assumed = recognise_upsampler(
        shapes, record, unshuffle=unshuffle, stated_scale=stated_scale
    )
    values = dict(
        dim=dim,
        num_blocks=_count(shapes, r"blocks\.(\d+)\..*"),
        num_conv_layers=_count(shapes, r"blocks\.0\.conv_layers\.(\d+)\..*"),
        expansion=_expansion(layer_width, dim) if layer_width else _PUBLISHED_EXPANSIONS[0],
        first_expansion=_expansion(shapes["blocks.0.feed_forward.expand.weight"][0], dim),
        norm_in_conv_layers="blocks.0.conv_layers.0.norm.weight" in shapes,
        norm_before_last_conv="norm.weight" in shapes,
        feature_skip="feature_skip.expand.weight" in shapes,
        unshuffle=unshuffle,
        **attention,
        **convolution,
        **upsampler,
    )
    try:
        config = ESCConfig.from_dict(values)
    except ValueError as error:
        raise CheckpointError(f"The shapes of the tensors fit no ESC: {error}") from error
    return Recognition(config=config, assumed=(*assumed, *also_assumed))


def _attention(shapes: Shapes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What attention says of itself, wherever in a block it first is."""
    is_first = "blocks.0.attention.query_key_value.weight" in shapes
    is_in_layers = "blocks.0.conv_layers.0.conv_attention.query_key_value.weight" in shapes
    place = "blocks.0.attention" if is_first else "blocks.0.conv_layers.0.conv_attention"
    values: dict[str, Any] = {
        "first_mixer": "window" if is_first else "convolution",
        "layer_mixer": "window" if is_in_layers else "convolution",
        "attention_gate": f"{place}.gate.depthwise.weight" in shapes,
    }
    if not is_first and not is_in_layers:
        # Nothing attends: any window and any number of heads is right.
        num_heads = math.gcd(shapes["shallow.weight"][0], ESCConfig().num_heads)
        unused = ("window_size", "num_heads", "position_bias", "attention_gate")
        return {**values, "num_heads": num_heads}, unused
    if f"{place}.position_bias.table" in shapes:
        num_heads, offsets = shapes[f"{place}.position_bias.table"]
        side = side_of_square("the entries of the position bias per head", offsets)
        if side > 2 * _LARGEST_WINDOW - 1:
            raise CheckpointError(
                f"The position bias is of windows of {(side + 1) // 2} pixels; up to "
                f"{_LARGEST_WINDOW} can be run, and published networks have 16 to 64."
            )
        return {**values, "num_heads": num_heads, "window_size": (side + 1) // 2}, ()
    if f"{place}.position_bias.to_query" not in shapes:
        raise CheckpointError(f"{place} has no position bias, so the file is no whole ESC.")
    num_heads, hidden_dim, rank = shapes[f"{place}.position_bias.to_query"]
    places = shapes[f"{place}.position_bias.to_hidden"][0]
    implicit = {
        "position_bias": "implicit",
        "num_heads": num_heads,
        "window_size": _PUBLISHED_RIB_WINDOW,
        "position_rank": rank,
        "position_hidden_dim": hidden_dim,
        "position_frequencies": (places - 2) // 4,
    }
    return {**values, **implicit}, ("window_size",)


def _convolution(shapes: Shapes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What ConvAttention says of itself."""
    shared = "shared_large_kernel.weights"
    owned = next((name for name in shapes if ".own_kernel.weights.0" in name), None)
    has_convolution = any(".aggregate.weight" in name for name in shapes)
    if f"{shared}.0" not in shapes and owned is None:
        if has_convolution:
            raise CheckpointError("There is no large kernel, so the file is no whole ESC.")
        # Nothing convolves: any kernel is right.
        values = {
            "pdim": min(shapes["shallow.weight"][0], ESCConfig().pdim),
            "share_large_kernel": any("conv_attention.query_key_value" in name for name in shapes),
        }
        return values, (*values, "large_kernel_size", "large_kernel", "dynamic_kernel")
    first = shapes[f"{shared}.0"] if owned is None else shapes[owned]
    second_name = f"{shared}.1" if owned is None else f"{owned[:-1]}1"
    is_decomposed = second_name in shapes
    return {
        "pdim": first[0],
        "large_kernel_size": shapes[second_name][-1] if is_decomposed else first[-1],
        "large_kernel": "decomposed" if is_decomposed else "dense",
        "share_large_kernel": owned is None,
        "dynamic_kernel": not has_convolution
        or any(".dynamic_kernel.to_hidden.weight" in name for name in shapes),
    }, () if has_convolution else ("dynamic_kernel",)


def _count(names: Shapes, pattern: str) -> int:
    """How many different indices there are; gaps show later, as missing names."""
    matches = (re.fullmatch(pattern, name) for name in names)
    return len({match.group(1) for match in matches if match is not None})


def _expansion(hidden: int, dim: int) -> float:
    for published in _PUBLISHED_EXPANSIONS:
        if int(published * dim) == hidden:
            return published
    ratio = hidden / dim
    return ratio if int(ratio * dim) == hidden else math.nextafter(ratio, math.inf)


def _not_an_esc(state: Mapping[str, Shaped], unknown: list[str], missing: list[str]) -> str:
    examples = [
        f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in list(state.items())[:3]
    ]
    if len(state) > len(examples):
        examples.append("…")
    missing = missing or ["reconstruction.to_subpixels.weight"]
    if not is_named_as_ours(state):
        missing = reference_names(dict.fromkeys(missing, np.empty(0)))
    return (
        f"Not an ESC: {len(state)} tensors were found ({', '.join(examples)}), {len(unknown)} of "
        f"them with names that no ESC has; missing are {', '.join(missing)} and "
        "more. Give a checkpoint of ESC or of one of its relatives (escsr models --all); other "
        "networks are only run to compare with them (escsr evaluate)."
    )
