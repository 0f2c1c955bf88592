"""How the reference's code calls each tensor, and how we do: one table per part of a network."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from escsr.family.configuration import LargeKernel
from escsr.weights.arrays import Shaped

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
