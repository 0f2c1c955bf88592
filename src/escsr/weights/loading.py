"""From a name or a file to a network, in one call."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escsr.errors import CheckpointError, ConfigurationError, import_torch
from escsr.family.variants import VARIANTS
from escsr.weights.box import find_bundled
from escsr.weights.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from escsr.core.network import Network
    from escsr.model.attention.backends import AttentionBackend
    from escsr.model.network import ESC

_CHECKPOINT_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".ckpt", ".bin"})
_LARGEST_SCALE = 64
_MODULE_CALLABLE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    attention_backend: "AttentionBackend" = "sdpa",
    bundled_folder: Path | None = None,
    **overrides: Any,
) -> "ESC":
    """Load a trained network by its name in the box, or from a file.

    The network takes ``(B, 3, H, W)`` RGB in [0, 1] and returns ``(B, 3, scale*H, scale*W)``, not
    clamped.

    Args:
        name_or_path: a name that ``escsr models`` lists, such as ``esc-tiny`` or ``esc-tiny-x2``
            (case does not matter), or the path of a checkpoint: ours, or the reference's as it is
            (``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``). To load a file that has the name of a
            model, write ``./name``.
        scale: upscaling factor per side. By name, None means x4 where the box has it, else its
            largest; of a file, None means the file's own, and another one is an error (but of
            ESC+LTE, which takes any, and of a file that does not tell its own).
        attention_backend: how attention is computed: ``naive``, ``sdpa``, ``chunked``, ``auto`` or
            ``flex`` (``flashbias`` is for folded copies: by ``Upscaler`` or ``fold``).
        bundled_folder: to look names up in instead of the package's own box.
        overrides: fields of ``ESCConfig`` that a reference checkpoint does not tell, such as
            ``image_skip``.
    Returns:
        The network in evaluation mode, float32, on the CPU; ``.config`` and ``.scale`` describe it.
    Raises:
        UnknownModelError: no such name; the message lists the nearest.
        CheckpointError: no weights of that name in the box, or the file cannot be used.
        ConfigurationError: the scale or an override is not allowed.
        MissingExtraError: torch is not installed; ``open_network`` needs none.
    """
    import_torch("load_model, which gives a torch.nn.Module,")
    checkpoint = open_named_checkpoint(
        name_or_path, scale=scale, bundled_folder=bundled_folder, overrides=overrides
    )
    return checkpoint.build(attention_backend=attention_backend)


def open_named_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    bundled_folder: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read the weights of a name or file; arguments and errors as of ``load_model``."""
    _check_scale(scale)
    path, scale = _find(name_or_path, scale, bundled_folder)
    checkpoint = open_checkpoint(path, **(overrides or {}))
    is_free = "scale" in checkpoint.assumed or checkpoint.config.is_arbitrary_scale
    if scale is not None and is_free:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, scale=scale))
    if scale is not None and scale != checkpoint.config.scale:
        raise CheckpointError(
            f"{path} holds a x{checkpoint.config.scale} network, and x{scale} was asked for. Leave "
            "the scale out, or, to train on from it, convert its last convolution on purpose: "
            f"escsr.weights.convert_scale(load_model(path), scale={scale})."
        )
    return checkpoint


def open_network(
    name_or_path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    bundled_folder: Path | None = None,
    **overrides: Any,
) -> "Network":
    """Open a trained network for running on a CPU, without torch.

    The network is called with a numpy array, ``(B, 3, H, W)`` RGB in [0, 1], any H, W >= 1, and
    returns ``(B, 3, scale*H, scale*W)``, float32, not clamped; ESC+LTE takes
    ``output_size=(H', W')`` beside it::

        network = escsr.open_network("esc-tiny")
        enlarged = network(images).clip(0, 1)

    Args:
        name_or_path: as of ``load_model``: a name in the box, or the path of a checkpoint, ours or
            the reference's.
        scale: as of ``load_model``.
        bundled_folder: to look names up in instead of the package's own box.
        overrides: fields of ``ESCConfig`` that a reference checkpoint does not tell, such as
            ``image_skip``.
    Returns:
        The network; ``.config`` and ``.scale`` describe it.
    Raises:
        UnknownModelError: no such name; the message lists the nearest.
        CheckpointError: no weights of that name in the box, or the file cannot be used.
        ConfigurationError: the scale or an override is not allowed, or the core, which is compiled
            with the package, cannot be loaded here.
    """
    from escsr.core.network import Network

    checkpoint = open_named_checkpoint(
        name_or_path, scale=scale, bundled_folder=bundled_folder, overrides=overrides
    )
    return Network(checkpoint.config, checkpoint.weights())


def find_weights(
    name_or_path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    bundled_folder: Path | None = None,
) -> Path:
    """The file that ``load_model`` loads; arguments and errors as there."""
    return _find(name_or_path, scale, bundled_folder)[0]


def _find(
    name_or_path: str | os.PathLike[str], scale: int | None, bundled_folder: Path | None
) -> tuple[Path, int | None]:
    """The file, and the scale that was asked for, by itself or in the name."""
    if is_path(name_or_path):
        return Path(name_or_path).expanduser(), scale
    name, scale = _split_name(str(name_or_path), scale)
    return find_bundled(name, scale, bundled_folder), scale


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a file is meant, not the name of a network."""
    if not isinstance(name_or_path, str):
        return True
    path = Path(name_or_path)
    if normalised_name(name_or_path) in VARIANTS:
        return False
    is_spelled_as_path = len(path.parts) != 1 or name_or_path.startswith((".", "~"))
    # Path.is_file raises for very long names and below closed folders.
    is_file = os.path.isfile(path)  # noqa: PTH113
    return is_spelled_as_path or path.suffix.lower() in _CHECKPOINT_SUFFIXES or is_file


def is_module_callable(text: str) -> bool:
    """Whether a text is spelled as ``module:callable`` and no file has that name."""
    # Path.is_file raises for very long names.
    return _MODULE_CALLABLE.fullmatch(text) is not None and not os.path.isfile(text)  # noqa: PTH113


def normalised_name(name: str) -> str:
    """The name of a network as the box spells it: ``ESC_tiny`` -> ``esc-tiny``."""
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _split_name(text: str, scale: int | None) -> tuple[str, int | None]:
    """``ESC_tiny-x4`` -> (``esc-tiny``, 4)."""
    name = normalised_name(text)
    match = re.fullmatch(r"(.+?)-?x(\d{1,3})", name)
    if match is None:
        return name, scale
    named_scale = int(match[2])
    if scale is not None and scale != named_scale:
        raise ConfigurationError(
            f"The name {text!r} says x{named_scale} and scale says {scale}; give one of them."
        )
    return match[1], named_scale


def _check_scale(scale: int | None) -> None:
    if scale is None:
        return
    is_integer = isinstance(scale, int) and not isinstance(scale, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_integer or not 1 <= scale <= _LARGEST_SCALE:
        raise ConfigurationError(
            f"The scale is {scale!r}; a network's is an integer from 1 to {_LARGEST_SCALE}. For "
            "other factors use escsr.Upscaler, which resizes the nearest network's result."
        )
