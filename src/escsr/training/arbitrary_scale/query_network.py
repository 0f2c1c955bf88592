"""A network for any scale as it is trained: pixels at queries, on the scale of the loss."""

from torch import Tensor, nn

from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.shapes import ImageBatch
from escsr.training.recipe import Recipe


class QueryNetwork(nn.Module):
    """Predicts single pixels with the weights of an ESC+LTE; it has none of its own.

    Args:
        network: whose ``upsampler`` is "lte".
    """

    def __init__(self, network: ESC) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr_image: ImageBatch, coordinates: Tensor, cell: Tensor) -> Tensor:
        """Predict pixels.

        Args:
            lr_image: (B, 3, h, h) in [0, 1].
            coordinates: (B, Q, 2) in [-1, 1].
            cell: (B, 2).
        Returns:
            (B, Q, 3), normalised to [-1, 1].
        """
        head = self.network.reconstruction
        assert isinstance(head, LocalTextureHead)
        pixels = head.query(self.network.features(lr_image), lr_image, coordinates, cell)
        return pixels * 2 - 1


def trained_module(recipe: Recipe, network: nn.Module) -> nn.Module:
    """What a step of training calls: the network, or for any scale, what predicts its pixels."""
    if recipe.data.degradation != "pillow-any-scale":
        return network
    assert isinstance(network, ESC)
    return QueryNetwork(network)
