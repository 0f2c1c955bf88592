"""Find the weights of an ESC among all that a checkpoint holds.

One rule for every container: all tensors are named by the whole way to them, such as
``params_ema.module.blocks.0.ln_attn.weight``; what stands before the name of a tensor that only an
ESC has is the *root* of a state dict, whether training code made it of dictionaries or of prefixes;
and of several state dicts the averaged one (EMA, SWA) is taken.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from escsr.weights.arrays import is_floating_point
from escsr.weights.foreign_files import UnusableFileError
from escsr.weights.official_names import every_name
from escsr.weights.pytorch_file import StoredTensor, UnusableTensor, tensor_of

Leaf = StoredTensor | UnusableTensor

MAX_TENSORS = 1 << 15
_MAX_ENTRIES = 1 << 20
_MAX_DEPTH = 12
_MAX_NAME = 500
"""Longer names than any tensor has are left out."""

_AVERAGED = frozenset({"ema", "swa", "avg", "average", "averaged", "shadow", "polyak"})
_NOT_AVERAGED = frozenset({"online", "backup", "raw", "collected", "source", "current"})
"""Beside the average: ``ema.online_model``, ``ema.backup``, ``current_model_state``."""
_NEVER = frozenset({"optimizer", "optimizers", "optimiser", "optimisers", "optim", "grad", "grads"})
"""What an optimiser keeps has the weights' names too."""
_OTHERS = frozenset(
    "d disc discriminator critic loss losses criterion perceptual vgg lpips dists metric metrics "
    "psnr ssim niqe optimizer optimizers optimiser scheduler schedulers teacher".split()
)
"""Networks and figures that training code keeps beside the one that is trained."""
_COUNTERS = frozenset(
    "total_ops total_params num_batches_tracked n_averaged num_updates decay step steps iter "
    "iteration epoch global_step initted".split()
)
"""thop's, BatchNorm's and averages' own figures: no weights."""
_WITHIN = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What wrappers put into names, also of parts of a network."""
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True, slots=True)
class StateDict:
    """The tensors of one network in a file."""

    tensors: Mapping[str, Leaf]
    """By the names that they have in their network."""
    root: str
    """What stands before those names; empty where nothing does."""
    is_averaged: bool = False
    """Whether the root says that it is an average of training steps (EMA, SWA)."""
    others: tuple[str, ...] = ()
    """Roots of other state dicts of an ESC in the file."""
    is_esc: bool = True
    """Whether there are names that only an ESC has."""


def find_state_dict(contents: Any) -> StateDict | None:
    """Find the weights of an ESC, or, where there are none, the state dict of another network.

    Args:
        contents: of a file.
    Returns:
        The one to load; None where the file holds no tensors by name.
    Raises:
        UnusableFileError: more entries than any checkpoint has.
    """
    sections = _sections(contents)
    leaves = {way + name: leaf for way, names in sections.items() for name, leaf in names.items()}
    if not leaves:
        return None
    roots = _roots(leaves)
    if not roots:
        return _of_another_network(sections)
    chosen, *others = sorted(roots, key=_rank)
    found = StateDict(
        tensors=_within(leaves, chosen, others),
        root=_name_of(chosen),
        is_averaged=chosen.is_averaged,
        others=tuple(map(_name_of, others)),
    )
    return found if found.is_averaged else _unnamed_average(sections, found) or found


def _sections(contents: Any) -> dict[str, dict[str, Leaf]]:
    """The tensors by the dictionary (or list) that they stand in: the way to it, with its dot."""
    sections: dict[str, dict[str, Leaf]] = {}
    entries, tensors = 0, 0
    waiting: list[tuple[str, Any, int]] = [("", contents, 0)]
    while waiting:
        way, container, depth = waiting.pop()
        below: list[tuple[str, Any, int]] = []
        for key, child in _children(container):
            entries += 1
            leaf = tensor_of(child)
            if leaf is not None:
                tensors += 1
                sections.setdefault(way, {})[str(key)] = leaf
            elif depth < _MAX_DEPTH:
                below.append((f"{way}{key}.", child, depth + 1))
            if entries > _MAX_ENTRIES or tensors > MAX_TENSORS:
                raise UnusableFileError(
                    f"it holds more than {_MAX_ENTRIES:,} entries or {MAX_TENSORS:,} tensors"
                )
        waiting.extend(reversed(below))
    return sections


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        items = cast("dict[str | int, Any]", value).items()
        return (item for item in items if len(str(item[0])) <= _MAX_NAME)
    return enumerate(cast("list[Any]", value)) if isinstance(value, list | tuple) else iter(())


@dataclass(frozen=True, slots=True)
class _Root:
    """Where a state dict begins."""

    prefix: str
    """With its dot."""
    is_dotless: bool = False
    """Whether the dots were taken out of the names behind it, as LitEma does."""
    position: int = 0
    """In the file."""
    is_averaged: bool = False
    """Whether it says that it is an average of training steps."""


_DOTTED = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<tail>blocks\.\d+\..+)", re.DOTALL)
_DOTLESS = re.compile(r"(?P<prefix>(?:.*\.)?(?:[^.]*?))(?P<tail>blocks\d+[^.]+)", re.DOTALL)


def _roots(leaves: Mapping[str, Leaf]) -> list[_Root]:
    """Where the blocks of an ESC begin; of most of the names that the fullest has, or of none."""
    counts: dict[tuple[str, bool], int] = {}
    candidates = (path for path in leaves if "blocks" in path)
    for path in candidates:
        for pattern, known, dotless in (
            (_DOTTED, every_name(), False),
            (_DOTLESS, _dotless_names().keys(), True),
        ):
            match = pattern.fullmatch(path)
            if match and _template(_cleaned(match["tail"])) in known:
                key = (match["prefix"], dotless)
                if not set(_words(key[0])) & _NEVER:
                    counts[key] = counts.get(key, 0) + 1
    most = max(counts.values(), default=0)
    kept = [key for key, count in counts.items() if 2 * count >= most]
    return [
        _Root(_without_encoder(leaves, prefix), dotless, position, _is_averaged(prefix, leaves))
        for position, (prefix, dotless) in enumerate(kept)
    ]


def _without_encoder(leaves: Mapping[str, Leaf], prefix: str) -> str:
    """ESC+LTE has its blocks in an ``encoder``, and a head beside it."""
    outer = prefix.removesuffix(".").removesuffix("encoder")
    is_lte = len(outer) < len(prefix) - 1 and any(
        path.startswith(f"{outer}imnet") for path in leaves
    )
    return outer if is_lte else prefix


def _rank(root: _Root) -> tuple[object, ...]:
    """The best first: an average, then what lies least deep, then what comes first."""
    words = set(_words(root.prefix))
    is_beside = bool(words & _OTHERS), not root.is_averaged, bool(words & _NOT_AVERAGED)
    return *is_beside, root.prefix.count("."), root.position


def _is_averaged(prefix: str, leaves: Mapping[str, Leaf]) -> bool:
    """By its name, or because ``torch.optim.swa_utils.AveragedModel`` counts beside it."""
    words = set(_words(prefix))
    is_counted = f"{prefix.removesuffix('module.')}n_averaged" in leaves
    return (bool(words & _AVERAGED) or is_counted) and not words & _NOT_AVERAGED


def _unnamed_average(
    sections: Mapping[str, Mapping[str, Leaf]], raw: StateDict
) -> StateDict | None:
    """An average that is kept as a list in the order of the weights, as diffusers does it."""
    shapes = [getattr(leaf, "shape", None) for leaf in raw.tensors.values()]
    for way, leaves in sections.items():
        words = set(_words(way))
        is_average = words & _AVERAGED and not words & (_NOT_AVERAGED | _NEVER)
        if is_average and [getattr(leaf, "shape", None) for leaf in leaves.values()] == shapes:
            tensors = dict(zip(raw.tensors, leaves.values(), strict=True))
            return StateDict(tensors, way.rstrip("."), True, (raw.root, *raw.others))
    return None


def _name_of(root: _Root) -> str:
    return root.prefix.rstrip(".")


def _words(path: str) -> list[str]:
    """``netG_ema.paramsema`` -> net, g, ema, params, ema."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", path)]
    joined = {word: _JOINED.fullmatch(word) for word in words}
    return [part for word in words for part in ("ema",) * bool(joined[word]) + (word,)]


_JOINED = re.compile(r"ema(\w*model|params|net\w?|weights)|(\w*model|params|net\w?|weights|g)ema")


def _within(leaves: Mapping[str, Leaf], root: _Root, others: list[_Root]) -> dict[str, Leaf]:
    """The tensors of one state dict by their own names, without what is no weight."""
    below = [other.prefix for other in others if len(other.prefix) > len(root.prefix)]
    tensors: dict[str, Leaf] = {}
    for path, leaf in leaves.items():
        if path.startswith(root.prefix) and not path.startswith(tuple(below)):
            name = _cleaned(path[len(root.prefix) :])
            name = _dotted(name) if root.is_dotless else name
            is_known = _template(name) in every_name()
            if is_known or not (root.is_dotless or _is_beside(name, leaf)):
                tensors[name] = leaf
    return tensors


def _is_beside(name: str, leaf: Leaf) -> bool:
    """Whether a tensor that no ESC has is no part of any: a counter, or of another network."""
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    is_count = (
        isinstance(leaf, StoredTensor)
        and leaf.num_values == 1
        and not (is_floating_point(leaf.dtype) or leaf.dtype.kind == "c")
    )
    return is_count or last in _COUNTERS or bool(set(_words(first)) & _OTHERS)


def _cleaned(name: str) -> str:
    """A tensor's name without what wrappers of a network's parts put into it."""
    return ".".join(part for part in name.split(".") if part not in _WITHIN)


def _template(name: str) -> str:
    return re.sub(r"\d+", "#", name)


@cache
def _dotless_names() -> dict[str, str]:
    """Templates without dots -> as they are."""
    return {template.replace(".", ""): template for template in every_name()}


def _dotted(name: str) -> str:
    """``blocks0ln_attnweight`` -> ``blocks.0.ln_attn.weight``; other names stay."""
    template = _dotless_names().get(_template(name))
    if template is None:
        return name
    numbers = iter(re.findall(r"\d+", name))
    return re.sub("#", lambda _: next(numbers), template)


def _of_another_network(sections: Mapping[str, Mapping[str, Leaf]]) -> StateDict:
    """The tensors of one dictionary, for whoever can use them: an average, or the fullest."""

    def rank(way: str) -> tuple[object, ...]:
        is_of_optimizer = bool(set(_words(way)) & _NEVER)
        return is_of_optimizer, not _is_averaged(way, {}), -len(sections[way])

    way = min(sections, key=rank)
    tensors = dict(sections[way])
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): leaf for name, leaf in tensors.items()}
    return StateDict(
        tensors=tensors, root=way.rstrip("."), is_averaged=_is_averaged(way, {}), is_esc=False
    )
