"""Reference checkpoints <-> ours: pure functions from one state dict to another.

"Reference" means the official implementation of ESC and its relatives (arXiv:2503.06671 and
2603.06738), and traiNNer-redux's. Only names change on the way, so a round trip is bit-exact; a
table of "lda" loses dimensions of 1 and gets them back. Exceptions are what holds no weights: the
"mobile" form's expanded bias is read back into its table, and ESC-Real-M's record of its upsampler
and DySample's constant grid are left out and made again.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from escsr.errors import CheckpointError
from escsr.family.configuration import ESCConfig
from escsr.weights.arrays import AnyArray, Array, Shaped, as_given
from escsr.weights.official_names import (
    BIAS_TABLE,
    EXPANDED_BIAS,
    INITIAL_PLACES,
    LOCAL_BIAS,
    META_UPSAMPLE,
    Layout,
    Rules,
    layout_of_ours,
    layout_of_reference,
    ours_to_reference,
    own_patterns,
    reference_to_ours,
    rename,
)

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
