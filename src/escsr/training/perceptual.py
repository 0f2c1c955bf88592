"""The perceptual loss: how far a result is from the target in the features of VGG19."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from escsr.errors import CheckpointError, ConfigurationError, MissingExtraError
from escsr.model.autocast import at_least_float32
from escsr.shapes import ImageBatch
from escsr.training.recipe import VGG19_STAGES, PerceptualWeights, Recipe
from escsr.weights.arrays import as_tensor
from escsr.weights.checkpoint_file import read_checkpoint

_log = logging.getLogger("escsr")


def open_perceptual(
    recipe: Recipe, file: Path | None, fabric: Fabric, *, is_rehearsal: bool
) -> "PerceptualLoss | None":
    """What ``loss.perceptual`` of a recipe looks with; None where it has no weight.

    Args:
        recipe: says which weights.
        file: VGG19's; None lets torchvision bring them, once per machine.
        fabric: launched.
        is_rehearsal: do with random weights where no file is given: nothing is downloaded.
    Raises:
        ConfigurationError: a file was given and the recipe asks for random weights.
        MissingExtraError, CheckpointError: there are no weights; see ``load_vgg19``.
    """
    weights = recipe.perceptual.weights
    if not recipe.loss.perceptual:
        if file is not None:
            _log.warning("%s is left aside: loss.perceptual has no weight.", file)
        return None
    if weights == "random" and file is not None:
        raise ConfigurationError(
            f'{file} was given, but the recipe says perceptual.weights = "random"; leave out '
            '--perceptual-weights, or set perceptual.weights to "imagenet".'
        )
    if weights == "imagenet" and file is None and is_rehearsal:
        _log.warning(
            "a real run needs the weights of VGG19, which torchvision brings, or "
            "--perceptual-weights FILE; this one does with random ones"
        )
        weights = "random"
    with fabric.rank_zero_first(local=True):
        features = load_vgg19(weights, file, seed=recipe.seed)
    loss = PerceptualLoss(features, recipe.perceptual.layers)
    return loss.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_DEVIATION = (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module):
    """Weighted mean absolute differences of features of VGG19, before ReLU.

    Its weights are fixed: gradients reach the result and nothing else.

    Args:
        features: gives the features; its parameters are taken out of training.
        layer_weights: of each convolution by its name, such as {"conv5_4": 1.0}.
    Source: Johnson et al., arXiv:1603.08155; before ReLU: ESRGAN, arXiv:1809.00219, section 3.2.
    """

    _mean: Tensor
    _deviation: Tensor

    def __init__(self, features: "VGG19Features", layer_weights: Mapping[str, float]) -> None:
        super().__init__()
        self._features = features.eval().requires_grad_(False)
        self._layer_weights = {name: weight for name, weight in layer_weights.items() if weight}
        mean, deviation = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (_IMAGE_MEAN, _IMAGE_DEVIATION)
        )
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_deviation", deviation, persistent=False)

    def forward(self, sr_batch: ImageBatch, target_batch: ImageBatch) -> Tensor:
        """Compare.

        Args:
            sr_batch: (B, 3, H, W) in [0, 1] but for errors, at least 16 pixels a side where conv5_*
                has a weight.
            target_batch: the same shape; takes no gradient.
        Returns:
            A scalar, float32 at least.
        """
        with torch.no_grad():
            targets = self._see(target_batch)
        results = self._see(sr_batch)
        distances = [
            weight * F.l1_loss(at_least_float32(results[name]), at_least_float32(targets[name]))
            for name, weight in self._layer_weights.items()
        ]
        return torch.stack(distances).sum()

    def _see(self, image: ImageBatch) -> dict[str, Tensor]:
        return self._features((image - self._mean) / self._deviation, self._layer_weights)


class VGG19Features(nn.Module):
    """The convolutions of VGG19, laid out as in torchvision, whose weights fit.

    Random until ``load_state_dict``.

    Source: Simonyan and Zisserman, arXiv:1409.1556, configuration E.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        """Numbered as in torchvision: convolution, ReLU, ..., pooling."""
        self._names: list[str | None] = []
        inputs = 3
        for stage, (count, channels) in enumerate(VGG19_STAGES, start=1):
            for number in range(1, count + 1):
                self.features.extend([nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()])
                self._names += [f"conv{stage}_{number}", None]
                inputs = channels
            self.features.append(nn.MaxPool2d(2))
            self._names.append(None)

    def forward(self, image: ImageBatch, wanted: Mapping[str, float]) -> dict[str, Tensor]:
        """The output of convolutions before their ReLU.

        Args:
            image: (B, 3, H, W), normalised.
            wanted: whose keys name convolutions; those behind the last are not computed.
        Returns:
            By name; (B, C, H / 2**i, W / 2**i) in stage i, from 0.
        """
        outputs: dict[str, Tensor] = {}
        for name, layer in zip(self._names, self.features, strict=True):
            image = layer(image)
            if name is not None and name in wanted:
                outputs[name] = image
            if len(outputs) == len(wanted):
                break
        return outputs


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
