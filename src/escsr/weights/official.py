"""Reference checkpoints <-> ours: pure functions from one state dict to another.

"Reference" means the official implementation of ESC and ESC-FP (arXiv:2503.06671). Only names
change on the way, so a round trip is bit-exact; the one exception is the "mobile" form, whose
expanded bias is read back into its table.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor

from escsr.errors import CheckpointError
from escsr.model.config import LargeKernel
from escsr.model.window_attention import expand_bias

StateDict = dict[str, Tensor]

_SHARED_NAMES: tuple[tuple[str, str], ...] = (
    ("proj", "shallow"),
    ("blocks.#.ln_proj", "blocks.#.norm_in"),
    ("blocks.#.proj.proj", "blocks.#.feed_forward.expand"),
    ("blocks.#.proj.dwc", "blocks.#.feed_forward.depthwise"),
    ("blocks.#.proj.aggr", "blocks.#.feed_forward.reduce"),
    ("blocks.#.ln_attn", "blocks.#.norm_attention"),
    ("blocks.#.attn.to_qkv", "blocks.#.attention.query_key_value"),
    ("blocks.#.attn.relative_position_bias", "blocks.#.attention.relative_position_bias"),
    ("blocks.#.attn.to_out", "blocks.#.attention.output_projection"),
    ("blocks.#.lns.#", "blocks.#.conv_layers.#.norm"),
    ("blocks.#.convffns.#.proj", "blocks.#.conv_layers.#.feed_forward.expand"),
    ("blocks.#.convffns.#.dwc", "blocks.#.conv_layers.#.feed_forward.depthwise"),
    ("blocks.#.convffns.#.aggr", "blocks.#.conv_layers.#.feed_forward.reduce"),
    ("blocks.#.pconvs.#.aggr", "blocks.#.conv_layers.#.conv_attention.aggregate"),
    ("blocks.#.ln_out", "blocks.#.norm_out"),
    ("blocks.#.conv_out", "blocks.#.conv_out"),
    ("ln_last", "norm"),
    ("last", "deep"),
    ("to_img", "reconstruction.to_subpixels"),
)
_DYNAMIC_KERNEL = "blocks.#.conv_layers.#.conv_attention.dynamic_kernel"
_NAMES: dict[LargeKernel, tuple[tuple[str, str], ...]] = {
    "dense": (
        *_SHARED_NAMES,
        ("plk_filter", "shared_large_kernel.weights.0"),
        ("blocks.#.pconvs.#.plk.dwc_proj.1", f"{_DYNAMIC_KERNEL}.to_hidden"),
        ("blocks.#.pconvs.#.plk.dwc_proj.3", f"{_DYNAMIC_KERNEL}.to_kernel"),
    ),
    "decomposed": (
        *_SHARED_NAMES,
        ("lk_channel", "shared_large_kernel.weights.0"),
        ("lk_spatial", "shared_large_kernel.weights.1"),
        ("blocks.#.pconvs.#.plk.proj.1", f"{_DYNAMIC_KERNEL}.to_hidden"),
        ("blocks.#.pconvs.#.plk.proj.3", f"{_DYNAMIC_KERNEL}.to_kernel"),
    ),
}
"""(reference's module or tensor, ours), one to one for each kind; ``#`` is an index."""

_EXPANDED_BIAS = ".attn.rpe_bias"
_BIAS_TABLE = ".attn.relative_position_bias"


def to_ours(reference_state: Mapping[str, Tensor]) -> StateDict:
    """Give the weights of a reference checkpoint the names that ``ESC`` uses.

    Args:
        reference_state: tensors by the reference's names, of ESC, ESC-light, ESC-XL or ESC-FP, also
            after its ``convert()`` or in its mobile form.
    Returns:
        The same tensors by our names, not copied.
    Raises:
        CheckpointError: a name is not one of the reference's.
    """
    state = {name: tensor for name, tensor in reference_state.items()}
    for name in [name for name in state if name.endswith(_EXPANDED_BIAS)]:
        table_name = name.removesuffix(_EXPANDED_BIAS) + _BIAS_TABLE
        state[table_name] = _bias_table(name, state.pop(name))
    return _renamed(state, _reference_to_ours(_kind_of_reference(state)))


def to_reference(state: Mapping[str, Tensor]) -> StateDict:
    """Give the weights of an ``ESC`` the reference's names: the inverse of ``to_ours``.

    The result, saved by ``torch.save({"params": …}, path)``, loads in the reference's code.

    Raises:
        CheckpointError: a name is not one of ours.
    """
    return _renamed(state, _ours_to_reference(_kind_of_ours(state)))


def unknown_reference_names(names: Iterable[str]) -> list[str]:
    """Those of the names that the reference's ESC and ESC-FP do not have, in order."""
    names = list(names)
    rules = _reference_to_ours(_kind_of_reference(names))
    return [
        name for name in names if not name.endswith(_EXPANDED_BIAS) and _rename(name, rules) is None
    ]


def unknown_own_names(names: Iterable[str]) -> list[str]:
    """Those of the names that no ``ESC`` of ours has, in order."""
    names = list(names)
    rules = _ours_to_reference(_kind_of_ours(names))
    return [name for name in names if _rename(name, rules) is None]


Rules = tuple[tuple[re.Pattern[str], str], ...]


@cache
def _reference_to_ours(kind: LargeKernel) -> Rules:
    return tuple((_pattern(theirs), ours) for theirs, ours in _NAMES[kind])


@cache
def _ours_to_reference(kind: LargeKernel) -> Rules:
    return tuple((_pattern(ours), theirs) for theirs, ours in _NAMES[kind])


def _pattern(module: str) -> re.Pattern[str]:
    return re.compile(re.escape(module).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias|)")


def _kind_of_reference(names: Iterable[str]) -> LargeKernel:
    return "decomposed" if {"lk_channel", "lk_spatial"} & set(names) else "dense"


def _kind_of_ours(names: Iterable[str]) -> LargeKernel:
    return "decomposed" if "shared_large_kernel.weights.1" in set(names) else "dense"


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> StateDict:
    renamed = {name: _rename(name, rules) for name in state}
    unknown = [name for name, new_name in renamed.items() if new_name is None]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(state)} names are not ESC's, such as "
            f"{', '.join(unknown[:3])}; give the state dict of an ESC, ESC-light, ESC-FP or ESC-XL."
        )
    return {new_name: state[name] for name, new_name in renamed.items() if new_name is not None}


def _rename(name: str, rules: Rules) -> str | None:
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match is not None:
            *indices, parameter = match.groups()
            for index in indices:
                target = target.replace("#", index, 1)
            return target + parameter
    return None


def _bias_table(name: str, expanded: Tensor) -> Tensor:
    """(1, N, w^2, w^2) of the mobile form -> the table (N, (2w-1)^2) it was made from."""
    tokens = expanded.shape[-1]
    w = math.isqrt(tokens)
    if (
        expanded.dim() != 4
        or expanded.shape[0] != 1
        or expanded.shape[2] != tokens
        or w * w != tokens
    ):
        raise CheckpointError(
            f"{name} has the shape {tuple(expanded.shape)}; the mobile form's is "
            "(1, heads, w^2, w^2). The file is not one that the reference's code wrote."
        )
    offset = torch.arange(1 - w, w)
    query = offset.clamp(max=0).neg()  # of each offset along one axis, some pair that has it
    key = query + offset
    queries = (query[:, None] * w + query[None, :]).flatten()
    keys = (key[:, None] * w + key[None, :]).flatten()
    table = expanded[0, :, queries, keys]
    if not torch.equal(expand_bias(table, w), expanded[0]):
        raise CheckpointError(
            f"{name} is not a relative position bias: pairs at the same offset differ. "
            "Give the checkpoint that it was made from, before to_mobile()."
        )
    return table
