"""ESC's parts on another task: remove noise from grey photographs.

    python docs/examples/denoise_grey.py FOLDER_OF_PHOTOGRAPHS

trains for three minutes on a CPU, then says the PSNR of a part of the sample picture before and
after, and writes noisy.png and clean.png into the folder --out (here, unless given).
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.model import ConvAttention, SharedLargeKernel, WindowAttention
from escsr.training.batches import PairBatch
from escsr.training.data import open_training_data
from escsr.training.recipe import DataRecipe, Recipe

NOISE = 25 / 255
SAMPLE = Path(__file__).parents[1] / "sample" / "cat.png"


class GreyDenoiser(nn.Module):
    """One window attention, then convolutions in its place, all with one large kernel."""

    def __init__(self, dim: int = 24, pdim: int = 8, layers: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, dim, 3, padding=1)
        self.large_kernel = SharedLargeKernel(pdim, kernel_size=13)
        self.attention = WindowAttention(dim, window_size=8, num_heads=2, backend="chunked")
        self.layers = nn.ModuleList(ConvAttention(dim, pdim) for _ in range(layers))
        self.leave = nn.Conv2d(dim, 1, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1] with noise -> the same without."""
        features = self.enter(noisy)
        features = features + self.attention(features)
        large_kernel = self.large_kernel()
        for layer in self.layers:
            features = features + layer(F.gelu(features), large_kernel)
        return noisy - self.leave(features)


def train(network: nn.Module, photographs: Path, *, seconds: float) -> int:
    """Train on noisy patches for a time; returns the number of steps."""
    data = DataRecipe(batch_size=8, patch_pixels=64)
    # Of a recipe for a network of the family only what makes patches is used here.
    recipe = Recipe(name="patches", model="esc-tiny", scale=1, steps=1, data=data)
    source = open_training_data(recipe, photographs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    step, start = 0, time.monotonic()
    while (spent := time.monotonic() - start) < seconds:
        batch = source.batch(step)
        assert isinstance(batch, PairBatch)
        clean = batch.target.mean(1, keepdim=True)
        loss = (network(clean + NOISE * torch.randn_like(clean)) - clean).abs().mean()
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - spent / seconds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    return step


def psnr_db(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [0, 1]."""
    return -10 * (image.clamp(0, 1) - truth).square().mean().log10().item()


def main() -> None:
    """Train, denoise the sample, tell and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    torch.manual_seed(0)
    network = GreyDenoiser()
    steps = train(network, options.photographs, seconds=60 * options.minutes)
    pixels = torch.from_numpy(read_image(SAMPLE).pixels[..., :3].copy()).float() / 255
    clean = pixels.mean(-1)[None, None]
    noisy = clean + NOISE * torch.randn_like(clean)
    with torch.no_grad():
        denoised = network(noisy)
    print(f"{steps} steps: {psnr_db(noisy, clean):.2f} dB -> {psnr_db(denoised, clean):.2f} dB")
    for name, image in (("noisy", noisy), ("clean", denoised)):
        grey = (image[0, 0].clamp(0, 1) * 255).round().byte().numpy()[..., None]
        write_image(options.out / f"{name}.png", grey, overwrite=True)


if __name__ == "__main__":
    main()
