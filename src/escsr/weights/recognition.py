"""Infer the configuration of a network from names and shapes of a state dict."""

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
    META_UPSAMPLE,
    RECORDED_UPSAMPLERS,
    reference_names,
    to_ours,
    unknown_own_names,
    unknown_reference_names,
)

Shapes = Mapping[str, tuple[int, ...]]
Found = tuple[dict[str, Any], tuple[str, ...]]
"""Fields of the configuration; those of them that no tensor tells."""

_REAL_SCALE = 4
"""ESC-Real's one factor."""
_LTE_SCALE = 4
"""ESC+LTE is trained up to this factor."""
_LDA_SCALE = 4
"""The factor that traiNNer-redux takes unless told."""


def recognise_upsampler(
    shapes: Shapes, record: Any, *, unshuffle: int, stated_scale: int | None = None
) -> Found:
    """Read the kind of upsampler and the scale.

    Args:
        shapes: of all tensors, by our names.
        record: ESC-Real-M's ``MetaUpsample``, an array, where there is one.
        unshuffle: pixels per side that become channels.
        stated_scale: from features to pixels, where a header states it.
    Raises:
        CheckpointError: shapes that no upsampler has, a record that contradicts them, or a
            DySample whose factor nothing tells.
    """
    recorded = None if record is None else _from_record(record)
    known_scale = stated_scale if recorded is None else recorded["scale"]
    fields, inner_scale, assumed = _upsampler_from_shapes(shapes, known_scale, unshuffle)
    if recorded is not None:
        inner_scale = _agreed(fields, inner_scale, recorded, assumed)
        kept = ("upsampler_dim", "dysample_groups")
        fields, assumed = {**fields, **{name: recorded[name] for name in kept}}, ()
    if inner_scale % unshuffle:
        raise CheckpointError(
            f"The upsampler enlarges by {inner_scale}, but {unshuffle} pixels per side become "
            "channels first; the first must be a multiple of the second."
        )
    return {**fields, "scale": inner_scale // unshuffle}, assumed


def side_of_square(what: str, area: int) -> int:
    """The side of a square.

    Raises:
        CheckpointError: the area is no square number; says of what.
    """
    side = math.isqrt(area)
    if side * side != area:
        raise CheckpointError(f"In an ESC, {what} are a square number; here they are {area}.")
    return side


def _upsampler_from_shapes(
    shapes: Shapes, known_scale: int | None, unshuffle: int
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Fields, factor from features to pixels, and what of it is assumed."""
    if "reconstruction.amplitude.weight" in shapes:
        return _lte(shapes), _LTE_SCALE, ("scale",)
    is_real = "feature_skip.expand.weight" in shapes or unshuffle > 1
    if "reconstruction.to_subpixels.weight" in shapes:
        skip = "none" if is_real else _image_skip(shapes)
        return {"upsampler": "pixelshuffledirect", "image_skip": skip}, _subpixels(shapes), ()
    if "reconstruction.sampler.offset.weight" in shapes:
        return _dysample(shapes, known_scale or _REAL_SCALE)
    if "reconstruction.attention.to_query.weight" in shapes:
        width = shapes["reconstruction.attention.to_query.weight"][1]
        fields = {"upsampler": "lda", "image_skip": "none", "upsampler_dim": width}
        return fields, known_scale or _LDA_SCALE, ("scale",)
    return _stack(shapes, known_scale, unshuffle)


def _image_skip(shapes: Shapes) -> str:
    is_decomposed = any(name.endswith("_kernel.weights.1") for name in shapes)
    return "bicubic" if is_decomposed else "nearest"


def _subpixels(shapes: Shapes) -> int:
    channels = shapes["reconstruction.to_subpixels.weight"][0]
    if channels % 3:
        raise CheckpointError(
            f"The last convolution makes {channels} channels; an ESC's makes 3 * scale^2."
        )
    return side_of_square("the last convolution's channels / 3", channels // 3)


def _lte(shapes: Shapes) -> dict[str, Any]:
    layers = len(
        [name for name in shapes if re.fullmatch(r"reconstruction\.decoder\.\d+\.weight", name)]
    )
    return {
        "upsampler": "lte",
        "image_skip": "none",
        "texture_dim": shapes["reconstruction.amplitude.weight"][0],
        "texture_mlp_dim": shapes.get("reconstruction.decoder.0.weight", (256,))[0],
        "texture_mlp_layers": layers - 1,
    }


def _dysample(shapes: Shapes, scale: int) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    channels, inner_dim = shapes["reconstruction.sampler.offset.weight"][:2]
    fields = {"upsampler": "dysample", "image_skip": "none", "upsampler_dim": inner_dim}
    groups = channels // (2 * scale**2)
    if groups and channels % (2 * scale**2) == 0 and inner_dim % groups == 0:
        return {**fields, "dysample_groups": groups}, scale, ("scale", "dysample_groups")
    # Only ESC-Real-M has other factors, and its files say which.
    candidates = ", ".join(
        f"x{scale} with {channels // (2 * scale**2)} groups"
        for scale in range(1, 9)
        if channels % (2 * scale**2) == 0
    )
    raise CheckpointError(
        f"A DySample of {channels} offsets enlarges by a factor that its tensors do not tell "
        f"(candidates: {candidates or 'none'}). Give the file as ESC-Real-M's code saved it, with "
        "its to_img.MetaUpsample."
    )


def _stack(
    shapes: Shapes, known_scale: int | None, unshuffle: int
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Which layers are convolutions tells the kind and the number of steps."""
    pattern = r"reconstruction\.layers\.(\d+)\.weight"
    matches = (re.fullmatch(pattern, name) for name in shapes)
    places = sorted(int(match[1]) for match in matches if match is not None)
    kernels = [shapes[f"reconstruction.layers.{place}.weight"] for place in places]
    fields: dict[str, Any] = {"image_skip": "none"}
    for place, kernel in zip(places, kernels, strict=True):
        if len(kernel) != 4 or 0 in kernel:
            raise CheckpointError(
                f"reconstruction.layers.{place}.weight has the shape {kernel}; an ESC's has 4 "
                "dimensions, none empty."
            )
    if places in ([0, 1], [0, 2, 3]):
        # Their kernels have 4x4 pixels where they enlarge by 2, and 3x3 where by 3.
        scale = 4 if len(places) == 3 else 3 if kernels[0][-1] == 3 else 2
        return {**fields, "upsampler": "transpose+conv"}, scale, ()
    steps, scale_of_one_step = len(places) - 2, known_scale or (2 if unshuffle == 2 else 3)
    if "reconstruction.layers.2.gate.weight" in shapes:
        fields |= {"upsampler": "pa_up", "upsampler_dim": kernels[0][0]}
        steps = (len(places) - 1) // 2
        scale_of_one_step = known_scale or 2
    elif places[:2] == [0, 2]:
        widths = [kernel[0] for kernel in kernels]
        areas = (width // widths[0] for width in widths[1:-1])
        scale = math.prod(side_of_square("a step's subpixels", area) for area in areas)
        return {**fields, "upsampler": "pixelshuffle", "upsampler_dim": widths[0]}, scale, ()
    else:
        fields["upsampler"] = "nearest+conv" if places[0] == 1 else "conv+nearest"
    if steps < 1:
        raise CheckpointError("The upsampler has too few convolutions for one of ESC's.")
    # One step enlarges by 3 in all that was published, but 2 has the same tensors. Of "pa_up",
    # whose files have a record, 2 is usual.
    return (fields, scale_of_one_step, ("scale",)) if steps == 1 else (fields, 2**steps, ())


def _from_record(record: Any) -> dict[str, Any]:
    numbers = [int(number) for number in record.reshape(-1).tolist()]
    if len(numbers) != 7 or not 0 <= numbers[1] < len(RECORDED_UPSAMPLERS):
        raise CheckpointError(
            f"to_img.MetaUpsample holds {numbers}; ESC-Real-M's code stores seven numbers, the "
            f"second below {len(RECORDED_UPSAMPLERS)}. Download or copy the file again."
        )
    _, kind, scale, _, _, inner_dim, groups = numbers
    # One convolution without enlarging is pixelshuffledirect by 1.
    name = "pixelshuffledirect" if scale == 1 else RECORDED_UPSAMPLERS[kind]
    return {
        "upsampler": name,
        "scale": scale,
        "upsampler_dim": inner_dim,
        "dysample_groups": groups,
    }


def _agreed(
    fields: Mapping[str, Any],
    inner_scale: int,
    recorded: Mapping[str, Any],
    assumed: tuple[str, ...],
) -> int:
    """The recorded factor, if the record is of these tensors."""
    differs = recorded["upsampler"] != fields["upsampler"]
    if "scale" not in assumed:
        differs |= recorded["scale"] != inner_scale
    inner_dim = fields.get("upsampler_dim", recorded["upsampler_dim"])
    if differs or inner_dim != recorded["upsampler_dim"]:
        raise CheckpointError(
            f"to_img.MetaUpsample says {recorded['upsampler']} by {recorded['scale']} with "
            f"{recorded['upsampler_dim']} channels, the tensors say {fields['upsampler']} by "
            f"{inner_scale} with {inner_dim}. The file was changed; download or copy it again."
        )
    return recorded["scale"]


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
