"""The scripts in ``docs/examples`` run with this version of the package."""

import importlib.util
from pathlib import Path

import torch

from escsr.images.writer import write_image
from tests.training.pictures import picture

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_the_denoiser_trains_on_photographs_of_ones_own(tmp_path: Path) -> None:
    """Real steps on three pictures: every part learns, and nothing becomes NaN."""
    spec = importlib.util.spec_from_file_location("denoise_grey", EXAMPLES / "denoise_grey.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for number in range(3):
        write_image(tmp_path / f"{number}.png", picture(number, height=96, width=96))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = example.GreyDenoiser()
        before = {name: value.clone() for name, value in network.named_parameters()}
        assert example.train(network, tmp_path, seconds=1) >= 1
    for name, value in network.named_parameters():
        assert value.isfinite().all(), name
        assert not torch.equal(value, before[name]), name
    noisy = torch.rand(1, 1, 20, 30)
    with torch.no_grad():
        assert network(noisy).shape == noisy.shape
    # Mean square 0.01 is 20 dB.
    assert (
        abs(example.psnr_db(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)) - 20)
        < 1e-3
    )
