"""The distance of a result from the truth as a network trained on photographs sees it."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.model.autocast import at_least_float32
from escsr.shapes import ImageBatch

_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each stage of VGG19; a pooling by 2 follows each."""

VGG19_CONVOLUTIONS = tuple(
    f"conv{stage}_{number}"
    for stage, (count, _) in enumerate(_STAGES, start=1)
    for number in range(1, count + 1)
)
"""Their names, the first to the last."""

LEAST_PERCEPTUAL_PIXELS = 16
"""Side of an image of which the last stage, behind four poolings, sees a pixel."""

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
        for stage, (count, channels) in enumerate(_STAGES, start=1):
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
