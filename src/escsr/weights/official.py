"""Reference checkpoints and ours: the names of both, and conversions of state dicts."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from escsr.errors import CheckpointError
from escsr.family.configuration import ESCConfig, LargeKernel
from escsr.weights.arrays import AnyArray, Array, Shaped, as_given

Family = Literal["esc", "real", "real-m", "lte", "rib"]
Ending = Literal[
    "subpixels", "layers", "dysample", "narrowed dysample", "lte", "lda", "narrowed lda"
]
Pairs = tuple[tuple[str, str], ...]
Rules = tuple[tuple[re.Pattern[str], str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What decides how the reference names the tensors of a network."""

    family: Family = "esc"
    large_kernel: LargeKernel = "dense"
    ending: Ending = "subpixels"
    is_unshuffled: bool = False


META_UPSAMPLE = "to_img.MetaUpsample"
"""ESC-Real-M's record of its upsampler: seven bytes, no weights."""
INITIAL_PLACES = ".init_pos"
"""End of the name of DySample's constant grid."""
EXPANDED_BIAS = ".attn.rpe_bias"
BIAS_TABLE = ".attn.relative_position_bias"
LOCAL_BIAS = "reconstruction.attention.position_bias"
"""Of "lda": (9, channels of keys), of which the reference's has three more dimensions, of 1."""

_BODY: Pairs = (
    ("blocks.#.ln_proj", "blocks.#.norm_in"),
    ("blocks.#.proj.proj", "blocks.#.feed_forward.expand"),
    ("blocks.#.proj.dwc", "blocks.#.feed_forward.depthwise"),
    ("blocks.#.proj.aggr", "blocks.#.feed_forward.reduce"),
    ("blocks.#.ln_attn", "blocks.#.norm_attention"),
    ("blocks.#.attn.to_qkv", "blocks.#.attention.query_key_value"),
    ("blocks.#.attn.relative_position_bias", "blocks.#.attention.position_bias.table"),
    ("blocks.#.attn.to_out", "blocks.#.attention.output_projection"),
    ("blocks.#.lns.#", "blocks.#.conv_layers.#.norm"),
    ("blocks.#.convffns.#.proj", "blocks.#.conv_layers.#.feed_forward.expand"),
    ("blocks.#.convffns.#.dwc", "blocks.#.conv_layers.#.feed_forward.depthwise"),
    ("blocks.#.convffns.#.aggr", "blocks.#.conv_layers.#.feed_forward.reduce"),
    ("blocks.#.pconvs.#.aggr", "blocks.#.conv_layers.#.conv_attention.aggregate"),
    ("blocks.#.ln_out", "blocks.#.norm_out"),
    ("blocks.#.conv_out", "blocks.#.conv_out"),
)
_DYNAMIC_KERNEL = "blocks.#.conv_layers.#.conv_attention.dynamic_kernel"
_KERNELS: dict[LargeKernel, Pairs] = {
    "dense": (
        ("plk_filter", "shared_large_kernel.weights.0"),
        ("blocks.#.pconvs.#.plk.dwc_proj.1", f"{_DYNAMIC_KERNEL}.to_hidden"),
        ("blocks.#.pconvs.#.plk.dwc_proj.3", f"{_DYNAMIC_KERNEL}.to_kernel"),
    ),
    "decomposed": (
        ("lk_channel", "shared_large_kernel.weights.0"),
        ("lk_spatial", "shared_large_kernel.weights.1"),
        ("blocks.#.pconvs.#.plk.proj.1", f"{_DYNAMIC_KERNEL}.to_hidden"),
        ("blocks.#.pconvs.#.plk.proj.3", f"{_DYNAMIC_KERNEL}.to_kernel"),
    ),
}
_BODY_END: Pairs = (("ln_last", "norm"), ("last", "deep"))
_RIB: Pairs = (
    ("blocks.#.attn.hidden_b", "blocks.#.attention.position_bias.hidden_bias"),
    ("blocks.#.attn.to_hidden", "blocks.#.attention.position_bias.to_hidden"),
    ("blocks.#.attn.to_q", "blocks.#.attention.position_bias.to_query"),
    ("blocks.#.attn.to_k", "blocks.#.attention.position_bias.to_key"),
    ("blocks.#.attn.gate.0", "blocks.#.attention.gate.depthwise"),
    ("blocks.#.attn.gate.1", "blocks.#.attention.gate.pointwise"),
    ("last.0", "norm"),
    ("last.1", "deep"),
    ("upsampler.up_conv", "reconstruction.to_subpixels"),
)
_LTE: Pairs = (
    ("coef", "reconstruction.amplitude"),
    ("freq", "reconstruction.frequency"),
    ("phase", "reconstruction.phase"),
    ("imnet.layers.#", "reconstruction.decoder.#"),
)
_OURS_ALONE: tuple[str, ...] = (
    "blocks.#.attention.aggregate",
    "blocks.#.attention.dynamic_kernel.to_hidden",
    "blocks.#.attention.dynamic_kernel.to_kernel",
    "blocks.#.attention.own_kernel.weights.#",
    "blocks.#.conv_layers.#.conv_attention.own_kernel.weights.#",
    "blocks.#.conv_layers.#.conv_attention.query_key_value",
    "blocks.#.conv_layers.#.conv_attention.output_projection",
    "blocks.#.conv_layers.#.conv_attention.position_bias.table",
    "blocks.#.conv_layers.#.conv_attention.position_bias.hidden_bias",
    "blocks.#.conv_layers.#.conv_attention.position_bias.to_hidden",
    "blocks.#.conv_layers.#.conv_attention.position_bias.to_query",
    "blocks.#.conv_layers.#.conv_attention.position_bias.to_key",
    "blocks.#.conv_layers.#.conv_attention.gate.depthwise",
    "blocks.#.conv_layers.#.conv_attention.gate.pointwise",
)
"""Of the paper's ablations, whose code is not published."""


def layout_of_reference(names: Iterable[str]) -> Layout:
    """How a state dict with the reference's names is laid out."""
    names = set(names)
    kernel = "decomposed" if {"lk_channel", "lk_spatial"} & names else "dense"
    if any(name.startswith(("imnet.", "encoder.")) for name in names):
        return Layout(family="lte", large_kernel=kernel, ending="lte")
    if any(name.startswith("upsampler.up_conv") for name in names):
        return Layout(family="rib", large_kernel=kernel)
    if not any(name.startswith("skip.") for name in names) and META_UPSAMPLE not in names:
        return Layout(large_kernel=kernel)
    family = "real-m" if META_UPSAMPLE in names or "to_img.0.weight" in names else "real"
    return Layout(
        family=family,
        large_kernel=kernel,
        ending=_ending_of_reference(names),
        is_unshuffled="proj.1.weight" in names,
    )


def _ending_of_reference(names: set[str]) -> Ending:
    if any(name.startswith("to_img.2.proj_q") for name in names):
        return "narrowed lda"
    if any(name.startswith("to_img.0.proj_q") for name in names):
        return "lda"
    if any(name.startswith("to_img.2.offset") for name in names):
        return "narrowed dysample"
    if any(re.fullmatch(r"to_img\.(0\.)?offset\..*", name) for name in names):
        return "dysample"
    convolutions = {name for name in names if re.fullmatch(r"to_img\.\d+\.weight", name)}
    return "subpixels" if convolutions == {"to_img.0.weight"} else "layers"


def layout_of_ours(state: Mapping[str, Shaped]) -> Layout:
    """How the reference would lay out a state dict with our names."""
    kernel = "decomposed" if "shared_large_kernel.weights.1" in state else "dense"
    if any(".position_bias.to_hidden" in name for name in state):
        return Layout(family="rib", large_kernel=kernel)
    if "reconstruction.amplitude.weight" in state:
        return Layout(family="lte", large_kernel=kernel, ending="lte")
    if "feature_skip.expand.weight" not in state:
        return Layout(large_kernel=kernel)
    entering = state.get("shallow.weight")
    is_unshuffled = entering is not None and len(entering.shape) == 4 and entering.shape[1] != 3
    ending = _ending_of_ours(state)
    of_real = ending == "dysample" or (ending == "layers" and _is_nearest_first(state))
    return Layout(
        family="real" if of_real and not is_unshuffled else "real-m",
        large_kernel=kernel,
        ending=ending,
        is_unshuffled=is_unshuffled,
    )


def _is_nearest_first(names: Mapping[str, Shaped]) -> bool:
    """Whether a stack is ESC-Real's: no transposed convolution comes first, and it has no gates."""
    others = ("reconstruction.layers.0.weight", "reconstruction.layers.2.gate.weight")
    return "reconstruction.layers.1.weight" in names and not any(name in names for name in others)


def _ending_of_ours(names: Mapping[str, Shaped]) -> Ending:
    if "reconstruction.attention.to_query.weight" in names:
        return "narrowed lda" if "reconstruction.narrow.weight" in names else "lda"
    if "reconstruction.sampler.offset.weight" in names:
        narrowed = "reconstruction.narrow.weight" in names
        return "narrowed dysample" if narrowed else "dysample"
    return "subpixels" if "reconstruction.to_subpixels.weight" in names else "layers"


@cache
def reference_to_ours(layout: Layout) -> Rules:
    """(pattern of the reference's name, ours); the first that matches holds."""
    return tuple((_pattern(theirs), ours) for theirs, ours in _pairs(layout))


@cache
def ours_to_reference(layout: Layout) -> Rules:
    """(pattern of our name, the reference's)."""
    return tuple((_pattern(ours), theirs) for theirs, ours in _pairs(layout))


@cache
def own_patterns() -> tuple[re.Pattern[str], ...]:
    """Of every name that a network of ours may have, also between the reference's networks."""
    layouts = (
        Layout(),
        Layout(family="rib", large_kernel="decomposed"),
        Layout(family="lte", ending="lte"),
        Layout(family="real-m", ending="layers"),
        Layout(family="real-m", ending="narrowed dysample"),
        Layout(family="real-m", ending="narrowed lda"),
    )
    names = dict.fromkeys(ours for layout in layouts for _, ours in _pairs(layout))
    return tuple(_pattern(name) for name in (*names, *_OURS_ALONE))


_EVERY_LAYOUT = tuple(
    Layout(family=family, large_kernel=kernel, ending=ending, is_unshuffled=unshuffled)
    for family in ("esc", "real", "real-m", "lte", "rib")
    for kernel in ("dense", "decomposed")
    for ending in get_args(Ending)
    for unshuffled in (False, True)
)


@cache
def every_name() -> frozenset[str]:
    """Every tensor's name in the reference's networks and ours, with ``#`` for each number."""
    modules = {name for layout in _EVERY_LAYOUT for pair in _pairs(layout) for name in pair}
    modules |= {*_OURS_ALONE, META_UPSAMPLE}
    names = {name + ending for name in modules for ending in ("", ".weight", ".bias")}
    names |= {f"blocks.#{EXPANDED_BIAS}"}
    names |= {f"{place}{INITIAL_PLACES}" for place in ("to_img", "to_img.0", "to_img.2")}
    return frozenset(re.sub(r"\d+", "#", name) for name in names)


def _pairs(layout: Layout) -> Pairs:
    prefix = "encoder." if layout.family == "lte" else ""
    body = (*_BODY, *_KERNELS[layout.large_kernel], *_entrance(layout))
    if layout.family == "rib":
        return (*body, *_RIB)
    body = (*body, *_BODY_END)
    return (*((prefix + theirs, ours) for theirs, ours in body), *_ending(layout))


def _entrance(layout: Layout) -> Pairs:
    if layout.family not in ("real", "real-m"):
        return (("proj", "shallow"),)
    first = 1 if layout.is_unshuffled else 0
    return (
        ("proj.1" if layout.is_unshuffled else "proj", "shallow"),
        (f"skip.{first}", "feature_skip.expand"),
        (f"skip.{first + 1}", "feature_skip.depthwise"),
        (f"skip.{first + 3}", "feature_skip.reduce"),
    )


def _ending(layout: Layout) -> Pairs:
    match layout.ending:
        case "lte":
            return _LTE
        case "layers":
            return (
                ("to_img.#", "reconstruction.layers.#"),
                ("to_img.#.conv.0", "reconstruction.layers.#.gate"),
            )
        case "narrowed lda":
            return (("to_img.0", "reconstruction.narrow"), *_local_attention(2))
        case "lda":
            return _local_attention(0)
        case "narrowed dysample":
            return (("to_img.0", "reconstruction.narrow"), *_dysample("to_img.2"))
        case "dysample":
            return _dysample("to_img" if layout.family == "real" else "to_img.0")
        case "subpixels":
            name = "to_img" if layout.family == "esc" else "to_img.0"
            return ((name, "reconstruction.to_subpixels"),)


def _dysample(place: str) -> Pairs:
    return (
        (f"{place}.offset", "reconstruction.sampler.offset"),
        (f"{place}.scope", "reconstruction.sampler.scope"),
        (f"{place}.end_conv", "reconstruction.sampler.mix"),
    )


def _local_attention(place: int) -> Pairs:
    theirs, ours = f"to_img.{place}", "reconstruction.attention"
    return (
        (f"{theirs}.layer_norm", f"{ours}.norm"),
        (f"{theirs}.proj_q", f"{ours}.to_query"),
        (f"{theirs}.proj_k", f"{ours}.to_key"),
        (f"{theirs}.conv_offset.0", f"{ours}.offset_depthwise"),
        (f"{theirs}.conv_offset.1", f"{ours}.offset_norm"),
        (f"{theirs}.conv_offset.3", f"{ours}.to_offset"),
        (f"{theirs}.relative_position_bias_table", LOCAL_BIAS),
        (f"to_img.{place + 1}", "reconstruction.to_image"),
    )


def _pattern(module: str) -> re.Pattern[str]:
    return re.compile(re.escape(module).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias|)")


def rename(name: str, rules: Rules) -> str | None:
    """A name by the first rule that fits; None where none does."""
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match is not None:
            *indices, parameter = match.groups()
            for index in indices:
                target = target.replace("#", index, 1)
            return target + parameter
    return None


RECORDED_UPSAMPLERS = (
    "no enlarging",
    "pixelshuffledirect",
    "pixelshuffle",
    "conv+nearest",
    "dysample",
    "transpose+conv",
    "lda",
    "pa_up",
)
"""Our names of the kinds in the order of ESC-Real-M's record."""
_KINDS_OF_OFFICIAL_CODE = 5
"""So many of them are in records of version 2; traiNNer-redux's, of version 3, know all."""


def to_ours(reference_state: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Give the weights of a reference checkpoint the names that ``ESC`` uses.

    Args:
        reference_state: arrays or tensors by the reference's names, of any network of the family,
            also after its ``convert()`` or in its mobile form.
    Returns:
        The same by our names, not copied.
    Raises:
        CheckpointError: a name is not one of the reference's.
    """
    layout = layout_of_reference(reference_state)
    state = {name: reference_state[name] for name in reference_state if not _is_constant(name)}
    for name in [name for name in state if name.endswith(EXPANDED_BIAS)]:
        table_name = name.removesuffix(EXPANDED_BIAS) + BIAS_TABLE
        state[table_name] = _bias_table(name, state.pop(name))
    renamed = _renamed(state, reference_to_ours(layout))
    table: Any = renamed.get(LOCAL_BIAS)
    if table is not None and tuple(table.shape[:-2]) == (1, 1, 1):
        renamed[LOCAL_BIAS] = table.reshape(-1, table.shape[-1])
    return renamed


def to_reference(
    state: Mapping[str, AnyArray], config: ESCConfig | None = None
) -> dict[str, AnyArray]:
    """Give the weights of an ``ESC`` the reference's names: the inverse of ``to_ours``.

    The result, saved by ``torch.save({"params": …}, path)``, loads in the reference's code.

    Args:
        state: arrays or tensors by our names.
        config: of the network; with it, what the reference stores beside weights is added.
    Raises:
        CheckpointError: a name is not one of ours, or the reference's code has no such network.
    """
    layout = layout_of_ours(state)
    table: Any = state.get(LOCAL_BIAS)
    if table is not None:
        with_stored: dict[str, AnyArray] = {LOCAL_BIAS: table[None, None, None]}
        state = {**state, **with_stored}
    renamed = _renamed(state, ours_to_reference(layout))
    if config is None:
        return renamed
    example = next(iter(state.values()), None)
    constants = _constants(layout, config).items()
    return {**renamed, **{name: as_given(example, array) for name, array in constants}}


def reference_names(state: Mapping[str, Shaped]) -> list[str]:
    """The names that ``to_reference`` gives, in order, whatever is known of the values."""
    return list(_renamed(state, ours_to_reference(layout_of_ours(state))))


def unknown_reference_names(names: Iterable[str]) -> list[str]:
    """Those of the names that no network of the reference's has, in order."""
    names = list(names)
    rules = reference_to_ours(layout_of_reference(names))
    return [
        name
        for name in names
        if not name.endswith(EXPANDED_BIAS)
        and not _is_constant(name)
        and rename(name, rules) is None
    ]


def unknown_own_names(state: Mapping[str, Shaped]) -> list[str]:
    """Those of the names that no ``ESC`` of ours has, in order."""
    patterns = own_patterns()
    return [name for name in state if not any(p.fullmatch(name) for p in patterns)]


def _is_constant(name: str) -> bool:
    return name == META_UPSAMPLE or name.endswith(INITIAL_PLACES)


def _constants(layout: Layout, config: ESCConfig) -> dict[str, Array]:
    """What the reference stores beside the weights."""
    scale, groups = config.inner_scale, config.dysample_groups
    constants: dict[str, Array] = {}
    if layout.family == "real-m":
        kind = 0 if scale == 1 else RECORDED_UPSAMPLERS.index(config.upsampler)
        version = 2 if kind < _KINDS_OF_OFFICIAL_CODE else 3
        # What the last stage was given: of "pa_up", what the one before made.
        width = config.upsampler_dim if config.upsampler == "pa_up" else config.dim
        numbers = (version, kind, scale, width, 3, config.upsampler_dim, groups)
        constants[META_UPSAMPLE] = np.array(numbers, np.uint8)
    if config.upsampler == "dysample":
        place = next(t for p, t in ours_to_reference(layout) if p.fullmatch(_OFFSET_NAME))
        name = place.removesuffix(".offset") + INITIAL_PLACES
        constants[name] = initial_places(scale, groups)
    return constants


_OFFSET_NAME = "reconstruction.sampler.offset"


def initial_places(scale: int, groups: int) -> Array:
    """What the reference stores as ``init_pos``: sub-pixels' distances from their pixel's centre.

    Returns:
        (1, 2 * groups * scale^2, 1, 1), in LR pixels, ordered (xy, group, sub-row, sub-column).
    """
    sub = (np.arange(scale, dtype=np.float32) - np.float32((scale - 1) / 2)) / np.float32(scale)
    x, y = np.meshgrid(sub, sub)
    return np.repeat(np.stack((x, y))[:, None], groups, axis=1).reshape(1, -1, 1, 1)


def _renamed(state: Mapping[str, AnyArray], rules: Rules) -> dict[str, AnyArray]:
    renamed = {name: rename(name, rules) for name in state}
    unknown = [name for name, new_name in renamed.items() if new_name is None]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} names are not ESC's, such as "
            f"{', '.join(unknown[:3])}; give the state dict of a network of ESC's family."
        )
    return {new_name: state[name] for name, new_name in renamed.items() if new_name is not None}


def _bias_table(name: str, expanded: Any) -> Any:
    """(1, N, w^2, w^2) of the mobile form -> the table (N, (2w-1)^2) it was made from."""
    tokens = expanded.shape[-1] if len(expanded.shape) == 4 else 0
    w = math.isqrt(tokens)
    if tokens == 0 or tuple(expanded.shape[::2]) != (1, tokens) or w * w != tokens:
        raise CheckpointError(
            f"{name} has the shape {tuple(expanded.shape)}; the mobile form's is "
            "(1, heads, w^2, w^2). The file is not one that the reference's code wrote."
        )
    offset = np.arange(1 - w, w)
    query = -offset.clip(max=0)  # of each offset along one axis, some pair that has it
    key = query + offset
    queries = (query[:, None] * w + query[None, :]).reshape(-1)
    keys = (key[:, None] * w + key[None, :]).reshape(-1)
    table = expanded[0][:, queries, keys]
    if not bool((table[:, _offsets(w)] == expanded[0]).all()):
        raise CheckpointError(
            f"{name} is not a relative position bias: pairs at the same offset differ. "
            "Give the checkpoint that it was made from, before to_mobile()."
        )
    return table


def _offsets(window_size: int) -> Array:
    """Where the bias of each (query, key) pair stands in the table: (w^2, w^2)."""
    w = window_size
    offset = np.arange(w)[None, :] - np.arange(w)[:, None] + (w - 1)  # (query, key) along one axis
    index = offset[:, None, :, None] * (2 * w - 1) + offset[None, :, None, :]
    return index.reshape(w * w, w * w)
