"""The head for any scale: equal to the reference, whatever the size and however cut into pieces."""

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from escsr.errors import ImageSizeError, ImageValueError
from escsr.family.variants import variant
from escsr.model import ESC, ESCConfig, local_texture
from escsr.model.local_texture import LocalTextureHead, find_neighbours
from escsr.weights.official import to_ours
from tests.golden_files import golden_path, read_golden, relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles import local_texture as oracle

GOLDEN = "esc_lte_tiny_x2.5"
GOLDEN_TOLERANCE = 5e-5
"""Of the largest value: the recording itself carries 1.2e-5 of rounding."""
CHUNK_TOLERANCE = 1e-6
"""Of the range: matrix products of another height are added up in another order."""
SMALL: dict[str, Any] = {
    "dim": 8,
    "upsampler": "lte",
    "image_skip": "none",
    "texture_dim": 12,
    "texture_mlp_dim": 10,
    "texture_mlp_layers": 2,
}


def pixel_centres(length: int) -> Tensor:
    """The centres of an axis's pixels, from front to back: (length,), float64, in (-1, 1)."""
    return (2 * torch.arange(length, dtype=torch.float64) + 1) / length - 1


def small_head(*, seed: int = 0, **changes: Any) -> LocalTextureHead:
    """A head with random weights, float32."""
    head = LocalTextureHead(ESCConfig(**{**SMALL, "num_heads": 2, "pdim": 4, **changes})).eval()
    randomise(head, seed=seed)
    return head


def inputs(height: int, width: int, *, batch: int = 1, dim: int = 8) -> tuple[Tensor, Tensor]:
    """Features and an image."""
    features = random_image(batch, dim, height, width, seed=2) * 2 - 1
    return features, random_image(batch, 3, height, width, seed=3)


def golden_tensors() -> Mapping[str, Tensor]:
    """Everything that the reference's recording holds."""
    path = golden_path(GOLDEN)
    if path is None:
        pytest.skip(f"{GOLDEN}.safetensors is not here; name its folder in ESCSR_GOLDEN.")
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def golden_network() -> ESC:
    """With the recording's weights."""
    golden = read_golden(GOLDEN)
    network = ESC(golden.config).eval()
    network.load_state_dict(to_ours(golden.reference_state))
    return network


def test_the_network_with_its_head_answers_as_the_reference_did() -> None:
    """From an image in [0, 1] to an image, at x2.5; the recording is of normalised values."""
    tensors, network = golden_tensors(), golden_network()
    with torch.no_grad():
        ours = network(tensors["input"] * 0.5 + 0.5, (60, 70))
    assert relative_error((ours - 0.5) / 0.5, tensors["output"]) < GOLDEN_TOLERANCE


def test_queries_answer_as_the_reference_did() -> None:
    """At the reference's own float32 coordinates and cell."""
    tensors, network = golden_tensors(), golden_network()
    lr_image = tensors["input"] * 0.5 + 0.5
    with torch.no_grad():
        head = network.reconstruction
        assert isinstance(head, LocalTextureHead)
        features = network.features(lr_image)
        pixels = head.query(features, lr_image, tensors["coord"], tensors["cell"][:, 0])
    ours = (pixels.transpose(1, 2).reshape(1, 3, 60, 70) - 0.5) / 0.5
    assert relative_error(ours, tensors["output"]) < GOLDEN_TOLERANCE


def test_esc_lte_has_the_published_number_of_parameters() -> None:
    """1,433,631, of the body and the head together."""
    with torch.device("meta"):
        network = ESC(variant("esc-lte", scale=2))
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_433_631


@pytest.mark.parametrize(
    "output_size",
    [(8, 10), (10, 13), (12, 15), (13, 17), (16, 20), (24, 30), (4, 5), (3, 20), (1, 1), (25, 2)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_pixels_are_those_of_the_formula(output_size: tuple[int, int]) -> None:
    """From 4x5 pixels by 2, 2.5, 3, 3.3, 4, 6, 1, different factors, and to fewer pixels.

    At whole factors many queries lie halfway between pixels, where 1e-6 decides.
    """
    head = small_head().double()
    features, lr_image = (part.double() for part in inputs(4, 5))
    with torch.no_grad():
        ours = head(features, lr_image, output_size)[0].numpy()
    truth = oracle.enlarge(
        weights_as_arrays(head), features[0].numpy(), lr_image[0].numpy(), output_size
    )
    assert np.abs(ours - truth).max() / np.abs(truth).max() < ROUNDING_FLOAT64


def test_float32_stays_near_the_formula() -> None:
    """Rounding of coordinates decides no pixel: one wrong pixel would be off by 1e-2."""
    head = small_head()
    features, lr_image = inputs(9, 7)
    with torch.no_grad():
        ours = head(features, lr_image, (27, 21))[0].numpy()
    truth = oracle.enlarge(
        weights_as_arrays(head),
        features[0].double().numpy(),
        lr_image[0].double().numpy(),
        (27, 21),
    )
    assert np.abs(ours - truth).max() / np.abs(truth).max() < 2e-6  # float32, a few sums


@given(
    length=st.integers(1, 400),
    factor=st.sampled_from([2, 2.5, 3, 3.3, 4, 6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(deadline=None)
def test_the_nearest_pixels_are_those_of_exact_arithmetic(
    length: int, factor: float, dtype: torch.dtype
) -> None:
    """In whole numbers: also where coordinates came in float32, as in training."""
    output_length = round(length * factor)
    found = find_neighbours(pixel_centres(output_length).to(dtype), length, torch.float32)
    # In units of 1 / (length * output_length * 10^6), counted from the front edge.
    query = (2 * np.arange(output_length, dtype=object) + 1) * length * 10**6
    unit = length * output_length * 10**6
    for direction, pixels in zip((-1, 1), found.nearest, strict=True):
        shifted = query + direction * output_length * 10**6 + length * output_length
        clamped = np.clip(shifted, length * output_length, 2 * unit - length * output_length)
        exact = clamped * length // (2 * unit)
        # A float32 coordinate is off by up to 6e-8: beyond that distance from a border all agree.
        distance = np.array([value % 1 for value in (clamped * length / (2 * unit)).astype(float)])
        is_clear = np.minimum(distance, 1 - distance) > length * 1e-7
        assert is_clear.any()
        chosen = is_clear if dtype == torch.float32 else np.full_like(is_clear, True)
        assert (pixels.numpy()[chosen] == exact.astype(int)[chosen]).all()


def test_queries_of_all_pixels_are_the_enlarged_image() -> None:
    """Both ways through the head, for a batch of which each image has its own places."""
    head = small_head()
    features, lr_image = inputs(6, 5, batch=2)
    sizes = [(15, 11), (9, 20)]
    grids = [
        torch.cartesian_prod(pixel_centres(height), pixel_centres(width)) for height, width in sizes
    ]
    count = min(len(grid) for grid in grids)
    coordinates = torch.stack([grid[:count] for grid in grids]).float()
    cell = torch.tensor([(2 / height, 2 / width) for height, width in sizes])
    with torch.no_grad():
        pixels = head.query(features, lr_image, coordinates, cell)
        for image, size in enumerate(sizes):
            whole = head(features[image, None], lr_image[image, None], size)[0].flatten(1)
            # float32 coordinates move a query by 6e-8, frequencies make a little more of it.
            assert relative_error(pixels[image].T, whole[:, :count]) < 5e-6


@given(
    queries_at_once=st.integers(1, 20) | st.integers(20, 5000),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    batch=st.integers(1, 2),
)
@settings(deadline=None, max_examples=15)
def test_the_number_of_queries_at_a_time_changes_nothing(
    queries_at_once: int, size: tuple[int, int], batch: int
) -> None:
    """One query at a time, parts of rows, several rows, or all."""
    head = small_head()
    features, lr_image = inputs(7, 9, batch=batch)
    with torch.no_grad():
        whole = head(features, lr_image, size)
        head.queries_at_once = queries_at_once
        assert relative_error(head(features, lr_image, size), whole) < CHUNK_TOLERANCE


@given(window=st.integers(4, 24), longest=st.integers(8, 60))
@settings(deadline=None, max_examples=12)
def test_pieces_of_the_image_have_the_margins_they_need(window: int, longest: int) -> None:
    """In float64, where another shape of a convolution rounds too little to be seen."""
    head = small_head().double()
    features, lr_image = (part.double() for part in inputs(14, 17))
    sizes = [(28, 40), (9, 60)]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        whole = [head(features, lr_image, size) for size in sizes]
        patch.setattr(local_texture, "_WINDOW_PIXELS", window)
        patch.setattr(local_texture, "_OUTPUT_PIXELS", longest)
        for expected, size in zip(whole, sizes, strict=True):
            assert relative_error(head(features, lr_image, size), expected) < ROUNDING_FLOAT64


def test_a_batch_is_its_images_alone() -> None:
    """Bit for bit: images go through one by one."""
    head = small_head()
    features, lr_image = inputs(8, 6, batch=3)
    with torch.no_grad():
        together = head(features, lr_image, (21, 19))
        alone = [head(features[n, None], lr_image[n, None], (21, 19)) for n in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_beyond_the_trained_scale_the_cell_stays() -> None:
    """At x4 and x8 the pixel at the same place is told the same cell: only its place counts."""
    head = small_head()
    features, lr_image = inputs(5, 5)
    centre = torch.tensor([[[1 / 40, 1 / 40]]])  # of a pixel of 40, which x8 makes
    with torch.no_grad():
        enlarged = head(features, lr_image, (40, 40))[0, :, 20, 20]
        as_trained = head.query(features, lr_image, centre, torch.full((1, 2), 2 / 20))
        as_it_is = head.query(features, lr_image, centre, torch.full((1, 2), 2 / 40))
    assert relative_error(enlarged, as_trained[0, 0]) < CHUNK_TOLERANCE
    assert relative_error(enlarged, as_it_is[0, 0]) > 1e-3


class LargestMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the memory of what it makes, if it is new."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.most = max(self.most, sum(self.alive.values()))
        return result


@pytest.mark.parametrize(
    ("batch", "size", "output_size"),
    [
        (1, (150, 130), (300, 260)),
        (2, (130, 70), (140, 80)),
        (1, (1000, 500), (12, 4)),
        (1, (3, 3000), (4, 3200)),
        (1, (2, 2), (40, 5000)),
    ],
)
def test_the_head_needs_less_than_half_a_gigabyte(
    batch: int, size: tuple[int, int], output_size: tuple[int, int]
) -> None:
    """The paper's, counted on tensors without content; features and output do not count."""
    with torch.device("meta"):
        head = LocalTextureHead(variant("esc-lte", scale=4)).eval()
        features, lr_image = torch.empty(batch, 64, *size), torch.empty(batch, 3, *size)
    with torch.inference_mode(), LargestMemory() as memory:
        head.queries_at_once = local_texture.QUERIES_AT_ONCE_ELSEWHERE
        output = head(features, lr_image, output_size)
    assert output.shape == (batch, 3, *output_size)
    assert memory.most - output.untyped_storage().nbytes() < 0.4e9


def test_everything_takes_a_gradient() -> None:
    """Features, image and each weight, through queries and through a whole image."""
    head = small_head()
    features, lr_image = (part.requires_grad_() for part in inputs(5, 4, batch=2))
    coordinates = random_image(2, 30, 2, seed=4) * 2 - 1
    pixels = head.query(features, lr_image, coordinates, torch.full((2, 2), 0.2))
    for result in (pixels, head(features, lr_image, (11, 9))):
        sources = [features, lr_image, *head.parameters()]
        gradients = torch.autograd.grad(result.square().sum(), sources)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_the_gradient_of_an_image_is_that_of_its_queries() -> None:
    """Pieces written into the output lead back as a gather does."""
    head = small_head(seed=5).double()
    features, lr_image = (part.double() for part in inputs(5, 4))
    grid = torch.cartesian_prod(pixel_centres(10), pixel_centres(8))[None]
    head.queries_at_once = 13
    features.requires_grad_()
    image = head(features, lr_image, (10, 8))
    pixels = head.query(features, lr_image, grid, torch.tensor([[2 / 10, 2 / 8]]))
    of_image, of_pixels = (
        torch.autograd.grad(result.square().sum(), features)[0] for result in (image, pixels)
    )
    assert relative_error(of_image, of_pixels) < 1e-6  # the cell came in float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    """Places and waves are computed in float32: bfloat16 alone would turn waves about."""
    head = small_head()
    features, lr_image = inputs(9, 8)
    features = features.to(dtype).float()
    with torch.no_grad():
        exact = head(features, lr_image, (31, 29))
        result = head.to(dtype)(features.to(dtype), lr_image.to(dtype), (31, 29))
    assert result.dtype == dtype
    # bfloat16 has 8 bits; the MLP's few layers make a little more of it.
    assert relative_error(result.float(), exact) < (0.02 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("output_size", [(0, 5), (5, 0), (-1, 3)])
def test_an_empty_output_is_refused(output_size: tuple[int, int]) -> None:
    """With what was asked for."""
    with pytest.raises(ImageSizeError, match="must be at least 1"):
        small_head()(*inputs(4, 4), output_size)


def test_queries_of_another_shape_are_refused() -> None:
    """Places without a batch, or a cell per query."""
    head, (features, lr_image) = small_head(), inputs(4, 4)
    with pytest.raises(ImageValueError, match=r"\(B, Q, 2\) with B = 1"):
        head.query(features, lr_image, torch.zeros(5, 2), torch.ones(1, 2))
    with pytest.raises(ImageValueError, match=r"must be \(1, 2\)"):
        head.query(features, lr_image, torch.zeros(1, 5, 2), torch.ones(1, 5, 2))
