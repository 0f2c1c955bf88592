"""How alike a network's layers are: their features (linear CKA) and their attention maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escsr.analysis.attention_maps import AttentionMaps, attention_maps_of
from escsr.analysis.layers import look
from escsr.analysis.records import Skipped
from escsr.analysis.sequences import main_layers
from escsr.shapes import FeatureMap, ImageBatch

MOST_POSITIONS = 8192
"""Pixels, of all images together, at which features are compared."""
MOST_WINDOWS = 32
"""Windows, of all images together, whose attention maps are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """How alike the layers of one network are, each with each."""

    labels: list[str]
    """Of the layers, in their order."""
    matrix: Tensor
    """(L, L) in [0, 1], symmetric, 1 on the diagonal; NaN for a layer that is constant."""
    samples: int
    """Pixels (features), or pairs of a window and a head (attention), that it is taken over."""
    note: str = ""
    """What is to be known of it beside the numbers."""

    @property
    def mean_of_neighbours(self) -> float:
        """The mean over all pairs of one layer and the next."""
        return float(self.matrix.diagonal(1).nanmean())

    @property
    def mean_of_pairs(self) -> float:
        """The mean over all pairs of different layers."""
        count = len(self.labels)
        above = torch.ones(count, count).triu(1).bool()
        return float(self.matrix[above].nanmean())


def feature_similarity(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> Similarity | Skipped:
    """Compare the features after every layer with those after every other, by linear CKA.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        on_image: called after each.
    """
    layers = main_layers(network)
    per_image = max(1, MOST_POSITIONS // len(images))
    rows: list[list[Tensor | None]] = []
    for image in images:
        rows.append(look(network, layers, image, lambda found: pixels_of(found, per_image)))
        on_image()
    # A layer whose features are of another size, on whatever image, cannot be compared.
    columns = list(zip(*rows, strict=True))
    present = [place for place, column in enumerate(columns) if all(c is not None for c in column)]
    if len(present) < 2:
        return Skipped(
            "no sequence of blocks was found whose features can be compared: it needs a list of "
            "modules that return (B, C, H, W), (B, H, W, C) or (B, H*W, C)."
        )
    features = [torch.cat([c for c in columns[place] if c is not None]) for place in present]
    if len(features[0]) < 2:
        return Skipped("the images hold one pixel; give one of at least 2.")
    return Similarity(
        labels=[layers[place].label for place in present],
        matrix=cka_matrix(features),
        samples=len(features[0]),
    )


def pixels_of(features: FeatureMap, most: int) -> Tensor:
    """Some pixels, the same of every map of one size: (1, C, H, W) -> (n, C) on the CPU."""
    pixels = features[0].flatten(1).T
    if len(pixels) > most:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(pixels), generator=generator)[:most]
        pixels = pixels[chosen.to(pixels.device)]
    return pixels.float().cpu()


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same samples.

    Args:
        first: (n, C1).
        second: (n, C2).
    Returns:
        In [0, 1]: 1 where one is a rotation and scaling of the other, whatever the channels are
        called; about 0 where they have nothing to do with one another and n is far above C1, C2.
        NaN where one of them is constant.
    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019.
    """
    return float(cka_matrix([first, second])[0, 1])


def cka_matrix(features: Sequence[Tensor]) -> Tensor:
    """``linear_cka`` of each with each: n x C of every layer -> (L, L)."""
    centred = [one.double() - one.double().mean(0) for one in features]
    count = len(centred)
    products = torch.zeros(count, count, dtype=torch.float64)
    for row in range(count):
        for column in range(row, count):
            product = (centred[row].T @ centred[column]).square().sum()
            products[row, column] = products[column, row] = product
    size = products.diagonal().sqrt()
    return (products / (size[:, None] * size[None, :])).clamp(max=1.0)


def attention_similarity(
    network: nn.Module, images: Sequence[ImageBatch], on_image: Callable[[], None]
) -> Similarity | Skipped:
    """Compare the attention maps of every attention layer with those of every other.

    The cosine of the maps (probabilities of every query and key) of the same window and head,
    averaged over windows and heads. Only windows that lie inside an image as a whole count.

    Args:
        network: on the images' device.
        images: (1, 3, H, W) each.
        on_image: called after each.
    """
    found: AttentionMaps | Skipped | None = None
    total: Tensor | None = None
    samples = 0
    for image in images:
        one = attention_maps_of(network, image, most_windows=max(1, MOST_WINDOWS // len(images)))
        on_image()
        if isinstance(one, Skipped):
            found = found or one
            continue
        summed, count = summed_cosines(one)
        total = summed if total is None else total + summed
        found, samples = one, samples + count
    if total is None or not isinstance(found, AttentionMaps):
        return found if isinstance(found, Skipped) else Skipped("there is no image.")
    return Similarity(labels=found.labels, matrix=total / samples, samples=samples, note=found.note)


def summed_cosines(maps: AttentionMaps) -> tuple[Tensor, int]:
    """The cosines of every two layers, summed over windows and heads; and how many those are."""
    total = torch.zeros(len(maps.labels), len(maps.labels), dtype=torch.float64)
    for window in range(maps.num_windows):
        for head in range(maps.num_heads):
            flat = torch.stack([layer(window, head).flatten() for layer in maps.layers])
            flat = flat / flat.norm(dim=1, keepdim=True)
            total += (flat @ flat.T).cpu().double()
    return total, maps.num_windows * maps.num_heads
