"""The Upscaler with what only torch has: batches of tensors, and modules as models."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from escsr.errors import ConfigurationError, ImageSizeError, ImageValueError
from escsr.family.axis_view import AxisView
from escsr.model.local_texture import LocalTextureHead
from escsr.upscaling import Upscaler
from escsr.upscaling.tiles import AxisScale, Span
from escsr.weights import load_model, save_reference_weights
from tests.family_networks import FAMILY, family_file, family_network
from tests.networks import batches, engine_of, smallest


class NearestEnlarger(nn.Module):
    """Repeats pixels: what it makes of a tile does not depend on the rest of the image."""

    scale = 2

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)


class LimitedMemory(NearestEnlarger):
    """The same on a device that holds no more than 150x150 pixels; raises torch's own error."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        if image.shape[2] * image.shape[3] > 150 * 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(image)


class Overflowing(NearestEnlarger):
    """Leaves the range of float16 (65504) on the way."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        return super().forward(image) * 60000 * 60000 / 60000 / 60000


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """A small network with seeded weights, x2, on the CPU."""
    return Upscaler(smallest(2), device="cpu")


def batch_of(count: int, height: int, width: int) -> Tensor:
    """Random images, the same each time."""
    return torch.from_numpy(batches(count, height, width))


def as_pixels(image: Tensor) -> "np.ndarray[Any, Any]":
    """(3, H, W) -> (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_tensor_gives_a_tensor_of_its_kind(upscaler: Upscaler, dtype: torch.dtype) -> None:
    """A batch; same dtype and device, in [0, 1], and usable under autograd."""
    image = batch_of(3, 9, 14).to(dtype)
    result = upscaler(image)
    assert result.shape == (3, 3, 18, 28)
    assert result.dtype == dtype
    assert result.device == image.device
    assert 0 <= result.min() <= result.max() <= 1
    assert not result.is_inference()
    assert upscaler(image.requires_grad_()).shape == (3, 3, 18, 28)


@pytest.mark.parametrize("tile", ["whole", 16])
@pytest.mark.parametrize("scale", [2, 2.7, 4])
def test_tensors_and_arrays_give_the_same(tile: Any, scale: float) -> None:
    """To the last bit: a batch gives what each image gives alone, flat or busy."""
    images = batch_of(2, 20, 24)
    images[1, :, :12] = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    upscaler = Upscaler(smallest(2), device="cpu", tile=tile)
    for image, result in zip(images, upscaler(images, scale=scale), strict=True):
        assert np.array_equal(upscaler(as_pixels(image), scale=scale), as_pixels(result))


def test_two_passes_of_a_tensor_are_two_calls(upscaler: Upscaler) -> None:
    """x4 of an x2 network is the network applied to its own result."""
    image = batch_of(1, 10, 12)
    assert torch.equal(upscaler(image, scale=4), upscaler(upscaler(image)))


def test_a_tensor_is_left_as_it_is(upscaler: Upscaler) -> None:
    """Also where values are clamped."""
    image = batch_of(1, 8, 8)
    image[..., 0, 0] = 1.0005
    copy = image.clone()
    upscaler(image)
    assert torch.equal(image, copy)


def test_a_tensor_that_does_not_fit_whole_is_tiled() -> None:
    """Out of memory in one piece, it goes on in tiles."""
    image = batch_of(1, 200, 200)
    result = Upscaler(LimitedMemory(), device="cpu")(image)
    # The foreign network is cut on a grid of 32: 200 -> 128. Nothing of that shows.
    assert torch.equal(result, NearestEnlarger()(image))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(3, 4, 4), r"allowed is \(B, 3, H, W\)"),
        (torch.zeros(1, 1, 4, 4), r"allowed is \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "torch.uint8; .*Divide"),
        (torch.full((1, 3, 4, 4), 255.0), "from 255 to 255"),
        (torch.full((1, 3, 4, 4), float("nan")), "NaN"),
        (torch.zeros(1, 3, 4, 4, device="meta"), "on the meta device; .* holds its values"),
        (torch.zeros(1, 3, 4, 4).to_sparse(), "laid out as torch.sparse_coo; .*to_dense"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(upscaler: Upscaler, image: Any, said: str) -> None:
    """The message says what came and what is allowed."""
    with pytest.raises(ImageValueError, match=said):
        upscaler(image)


@pytest.mark.parametrize("shape", [(1, 3, 4, 0), (1, 3, 0, 4), (0, 3, 4, 4)])
def test_a_tensor_without_pixels_is_refused(upscaler: Upscaler, shape: tuple[int, ...]) -> None:
    """No side may be empty, and no batch."""
    with pytest.raises(ImageSizeError):
        upscaler(torch.zeros(shape))


def test_a_module_is_a_model() -> None:
    """With its own factor, and under the name of its class; an ESC runs on the core."""
    image = batch_of(1, 9, 14)
    foreign = Upscaler(NearestEnlarger(), device="cpu")
    assert (foreign.scales, foreign.model_name, foreign.backend) == (
        (2,),
        "NearestEnlarger",
        "eager",
    )
    assert torch.equal(foreign(image), NearestEnlarger()(image))
    ours = Upscaler(load_model(smallest(2)), device="cpu")
    assert (ours.scales, ours.model_name, ours.backend) == ((2,), "ESC", "native")
    assert torch.equal(ours(image), Upscaler(smallest(2), device="cpu")(image))


def test_a_module_must_say_its_factor() -> None:
    """A whole number of 1 or more."""
    with pytest.raises(ConfigurationError, match="scale=None"):
        Upscaler(nn.Identity())


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_of_the_family_is_upscaled_in_torch_too(name: str, tmp_path: Any) -> None:
    """From a file of the reference's kind, whole and in tiles, as the module itself answers."""
    network, path = family_network(name), tmp_path / f"{name}.pth"
    save_reference_weights(path, network)
    options = {"device": "cpu", "keep_colours": False, "backend": "eager"}
    source = network if name.startswith("esc-rib") else path  # its file does not tell the window
    image = batch_of(1, 21, 34)
    expected = network(image).clamp(0, 1)
    result = Upscaler(source, **options)(image)  # type: ignore[arg-type]
    # 2e-5: the folded network adds up in another order.
    assert (result - expected).abs().max() < 2e-5
    assert Upscaler(source, tile=16, **options)(image).shape == expected.shape  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["esc-x2", "esc-real-m-lda-x2", "esc-lte-x4"])
def test_tiles_in_torch_are_those_of_the_core(name: str) -> None:
    """Cut alike, placed alike and blended alike: within the rounding of another order of sums."""
    image = batch_of(1, 40, 61)
    options = {"device": "cpu", "tile": 32, "overlap_pixels": 16}
    eager = Upscaler(family_file(name), backend="eager", **options)  # type: ignore[arg-type]
    if name == "esc-real-m-lda-x2":  # whose tiles the core cannot place: it works layer by layer
        expected = Upscaler(family_file(name), device="cpu")(image)
        assert 0 < (eager(image) - expected).abs().mean() < 0.02
        return
    native = Upscaler(family_file(name), backend="native", **options)  # type: ignore[arg-type]
    assert (eager(image) - native(image)).abs().max() < 1e-4


def test_half_precision_goes_on_in_float32_where_it_overflows() -> None:
    """Before the colours are held to the source's, which would hide what is missing."""
    image = batch_of(1, 9, 9)
    result = Upscaler(Overflowing(), device="cpu", precision="float16")(image)
    # 1e-3: where a tile did not overflow, it is float16's rounding.
    assert torch.isfinite(result).all()
    assert (result - NearestEnlarger()(image)).abs().max() < 1e-3


def test_the_core_and_torch_make_the_same_pixels() -> None:
    """Within 1 of 255 levels, alpha and all."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 33, 4), dtype=np.uint8)
    results = [
        Upscaler("esc-tiny", device="cpu", backend=backend)(pixels, scale=2).astype(int)
        for backend in ("native", "eager", "reference")
    ]
    for result in results[1:]:
        assert np.abs(result - results[0]).max() <= 1
    assert engine_of("esc-tiny-x2", backend="reference").name == "reference"


@settings(max_examples=15)
@given(
    height=st.integers(9, 24),
    factor=st.floats(1, 5),
    start=st.integers(0, 6),
    length=st.integers(7, 18),
)
def test_a_part_of_the_head_equals_its_part_of_the_whole(
    height: int, factor: float, start: int, length: int
) -> None:
    """But for the pixels within two of a border that the whole image has not."""
    head = family_network("esc-lte-x4").double().reconstruction
    assert isinstance(head, LocalTextureHead)
    stop, output_length = min(start + length, height), math.floor(height * factor + 0.5)
    generator = torch.Generator().manual_seed(height)
    features = torch.randn(1, 16, height, 5, generator=generator, dtype=torch.float64)
    image = torch.rand(1, 3, height, 5, generator=generator, dtype=torch.float64)
    whole = head(features, image, (output_length, 12))
    scale = AxisScale(length=height, output_length=output_length)
    view = scale.view(Span(start=start, stop=stop))
    columns = AxisView.whole(length=5, output_length=12)
    parts = (features[:, :, start:stop], image[:, :, start:stop])
    part = head.enlarge_part(*parts, view, columns)
    top = scale.at(start + 2) if start > 0 else 0
    bottom = scale.at(stop - 2) if stop < height else output_length
    if bottom > top:
        difference = part[:, :, top - view.first : bottom - view.first] - whole[:, :, top:bottom]
        # 1e-7: a query in the middle between two pixels may take the other one's wave, whose
        # weight is 1e-9 there.
        assert difference.abs().max() < 1e-7
