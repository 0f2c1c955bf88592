"""What is measured: a network of ours with a back-end, a rival in a mode, or the floor."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from escsr.engines.core_engine import available_backends, choose_backend
from escsr.engines.engine import BACKENDS
from escsr.errors import ConfigurationError
from escsr.model.attention.backends import FOLDED_BACKENDS
from escsr.rivals.published import is_rival_name, rival_key

ALL_BACKENDS = "all"
"""Behind ``@``: every back-end that can run here."""

RivalMode = Literal["eager", "channels-last", "compiled"]
"""As its authors run it; with its pixels' channels together in memory; by ``torch.compile``."""
RIVAL_MODES: tuple[RivalMode, ...] = get_args(RivalMode)

Kind = Literal["ours", "rival", "floor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One row of the table, run by one process."""

    label: str
    """Its name in tables; no two subjects share one."""
    kind: Kind
    source: str
    """A name, the path of a file, or ``module:callable``."""
    mode: str
    """A back-end of ours, or a ``RivalMode``."""
    attention: str | None = None
    """Replaces the network's own attention back-end."""
    large_kernel_macs: float | None = None
    """Of the floor: what the large kernel needs per pixel and layer where it is not direct."""


def parse_ours(text: str, device: torch.device, *, best: bool = False) -> list[Subject]:
    """Read ``MODEL``, ``MODEL@BACKEND``, ``MODEL@BACKEND+ATTENTION`` or ``MODEL@all``.

    Args:
        text: what the user wrote; without a back-end it is the default one.
        device: where it will run.
        best: without a back-end it is every one that can run.
    Raises:
        ConfigurationError: no such back-end, or one that cannot run here.
    """
    source, backend, attention = _parts(text, [*BACKENDS, "auto", ALL_BACKENDS])
    if attention is not None and attention not in FOLDED_BACKENDS:
        raise ConfigurationError(
            f"{text}: behind + stands an attention back-end; allowed are "
            f"{', '.join(FOLDED_BACKENDS)}."
        )
    if backend == "reference" and attention not in (None, "naive"):
        raise ConfigurationError(
            f"{text}: the reference stores its scores, which is +naive; for {attention} take "
            f"{source}@eager+{attention}."
        )
    if backend == ALL_BACKENDS or (backend is None and best):
        modes = [name for name, reason in available_backends(device).items() if reason is None]
        modes.sort(key=lambda name: name != "reference")  # the first is the baseline
    else:
        # A back-end that cannot run is reported by its own process, and the others go on.
        modes = [backend if backend in BACKENDS else choose_backend("auto", device)]
    return [_ours(source, mode, attention) for mode in modes]


def parse_rival(text: str, *, best: bool = False) -> list[Subject]:
    """Read ``NAME_OR_FILE`` or ``NAME_OR_FILE@MODE``; without a mode it is ``eager``.

    Args:
        text: what the user wrote.
        best: without a mode it is every one.
    Raises:
        ConfigurationError: no such mode, or a rival that had to be left out.
    """
    source, mode, _ = _parts(text, [*RIVAL_MODES])
    if is_rival_name(source):
        source = rival_key(source)
    modes = [mode] if mode else [*RIVAL_MODES] if best else ["eager"]
    return [
        Subject(label=f"{_short(source)}@{one}", kind="rival", source=source, mode=one)
        for one in modes
    ]


def floor_of(source: str, *, large_kernel_macs: float | None = None) -> Subject:
    """The floor of one of our networks, measured in turn with the others."""
    return Subject(
        label=f"floor of {source}",
        kind="floor",
        source=source,
        mode="floor",
        large_kernel_macs=large_kernel_macs,
    )


def told_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """Leave out what was asked for twice, and give what shares a label its whole source."""
    once = list(dict.fromkeys(subjects))
    labels = Counter(subject.label for subject in once)
    return [
        subject
        if labels[subject.label] == 1
        else replace(subject, label=f"{subject.source}@{subject.label.rpartition('@')[2]}")
        for subject in once
    ]


def _ours(source: str, mode: str, attention: str | None) -> Subject:
    ending = mode if attention is None else f"{mode}+{attention}"
    return Subject(
        label=f"{_short(source)}@{ending}",
        kind="ours",
        source=source,
        mode=mode,
        attention=attention,
    )


def _parts(text: str, modes: Sequence[str]) -> tuple[str, str | None, str | None]:
    """Source, mode and attention; a path may hold ``@``, so only the last one is looked at."""
    source, at, ending = text.rpartition("@")
    if not at or "/" in ending or "." in ending:
        return text, None, None
    mode, _, attention = ending.partition("+")
    if mode not in modes:
        raise ConfigurationError(
            f"{text}: behind @ stands {mode!r}; allowed are {', '.join(modes)}."
        )
    return source, mode, attention or None


def _short(source: str) -> str:
    """The stem of a file's name, and any other source as it is."""
    name = source.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    is_file = suffix.lower() in ("pth", "pt", "ckpt", "safetensors", "bin")
    return stem if dot and is_file else source
