"""Where the weights of VGG19 come from: a file, torchvision, or, for tests, chance."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from escsr.errors import CheckpointError, MissingExtraError
from escsr.training.adversarial.perceptual import VGG19Features
from escsr.weights.arrays import as_tensor
from escsr.weights.checkpoint_file import read_checkpoint

PerceptualWeights = Literal["imagenet", "random"]
"""Trained on ImageNet, as torchvision's; or random, which trains nothing well and is for tests."""

_OPTION = "--perceptual-weights FILE"
_PREFIX = "features."


def load_vgg19(weights: PerceptualWeights, file: Path | None = None, *, seed: int) -> VGG19Features:
    """VGG19's convolutions with their weights.

    Args:
        weights: which ones.
        file: torchvision's state dict of vgg19, ``.pth`` or ``.safetensors``, where it shall not be
            downloaded; only for "imagenet".
        seed: of random weights.
    Raises:
        MissingExtraError: no file was given and torchvision is not installed.
        CheckpointError: the file cannot be used, or nothing could be downloaded.
    """
    with torch.device("meta"):  # its own random start would be waste
        network = VGG19Features()
    if weights == "random":
        _fill_at_random(network, seed)
        return network
    tensors = _downloaded() if file is None else _read(file)
    origin = "torchvision's file" if file is None else str(file)
    network.load_state_dict(_fitting(tensors, network, origin), assign=True)
    return network


def _read(file: Path) -> dict[str, Tensor]:
    return {name: as_tensor(array) for name, array in read_checkpoint(file).tensors.items()}


def _fill_at_random(network: VGG19Features, seed: int) -> None:
    """With features that neither fade nor grow from layer to layer (He et al., 1502.01852)."""
    generator = torch.Generator().manual_seed(seed)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)


def _downloaded() -> dict[str, Tensor]:
    """From torchvision; its file stays in torch's cache for the next time."""
    try:
        from torchvision.models import (  # pyright: ignore[reportMissingImports]  # not in [dev]
            VGG19_Weights,
        )
    except ImportError as error:
        raise MissingExtraError(
            f"The perceptual loss needs the weights of VGG19, which torchvision brings ({error}): "
            f"pip install 'escsr[perceptual]'; or give torchvision's file with {_OPTION}."
        ) from error
    try:
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        url = VGG19_Weights.IMAGENET1K_V1.url
        raise CheckpointError(
            f"The weights of VGG19 could not be downloaded ({error}). Fetch {url} on a machine "
            f"that is connected, and give the file with {_OPTION}."
        ) from error


def _fitting(tensors: dict[str, Tensor], network: VGG19Features, origin: str) -> dict[str, Tensor]:
    """Those of the convolutions, in float32; a file may hold them alone, as ``0.weight``."""
    found: dict[str, Tensor] = {}
    for name, needed in network.state_dict().items():
        tensor = tensors.get(name, tensors.get(name.removeprefix(_PREFIX)))
        if tensor is None or tensor.shape != needed.shape:
            came = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
            raise CheckpointError(
                f"{origin} does not hold the weights of VGG19 as torchvision stores them: {name} "
                f"{came}, needed is {tuple(needed.shape)}. Give torchvision's vgg19 state dict "
                f"with {_OPTION}."
            )
        found[name] = tensor.to(torch.float32, copy=True)  # it may be mapped from the file
    return found
