"""What the guard against colour drift costs, what it gains, and how wide its blur should be.

Measures the shipped weights with and without the guard on test sets, then networks with a drift
put in on purpose, tiles, and time; prints the table of ``docs/fidelity.md`` and writes all as JSON.

    python benchmarks/measure_fidelity.py --data FOLDER_OF_TEST_SETS --out fidelity.json [--quick]
"""

import argparse
import datetime
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engines import run_of
from escsr.evaluation.protocol import find_test_pairs, read_pair
from escsr.images.files import read_image
from escsr.images.metrics import psnr_db, psnr_y_db, round_to_8_bit
from escsr.upscaling import Upscaler
from escsr.upscaling.fidelity import BLUR_SIGMA_PIXELS, keep_colours
from escsr.version import __version__
from escsr.weights import bundled_models, load_model

SCALES = (2, 3, 4)
SIGMAS_PIXELS = (1.5, 2.5, 4.0, 8.0, 16.0)
HARMLESS_DB = 0.005
"""A loss of PSNR beyond this counts as measurable."""
SAMPLE = Path(__file__).parent.parent / "docs" / "sample" / "cat.png"
MODEL = "esc-tiny"

Drift = Callable[[Tensor, int], Tensor]
"""Spoils a result, given the factor."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test image, and what the network makes of it."""

    lr_image: Tensor
    hr_image: Tensor
    sr_image: Tensor
    scale: int

    def quality(self, sr_image: Tensor) -> tuple[float, float]:
        """PSNR on Y and on RGB in dB, by the field's protocol."""
        rounded, hr_image = round_to_8_bit(sr_image.numpy()), self.hr_image.numpy()
        on_luma = psnr_y_db(rounded, hr_image, border_pixels=self.scale)
        return float(on_luma[0]), float(psnr_db(rounded, hr_image, border_pixels=self.scale)[0])

    def guarded(self, sr_image: Tensor, sigma_pixels: float = BLUR_SIGMA_PIXELS) -> Tensor:
        """The result with the guard."""
        return guarded(sr_image, self.lr_image, sigma_pixels)


def guarded(sr_image: Tensor, lr_image: Tensor, sigma_pixels: float = BLUR_SIGMA_PIXELS) -> Tensor:
    """The guard, for tensors."""
    result = keep_colours(sr_image.numpy(), lr_image.numpy(), sigma_pixels=sigma_pixels)
    return torch.from_numpy(result)


def tinted(sr_image: Tensor, scale: int) -> Tensor:
    """A network that darkens to 98 % and adds 0.02 of red."""
    return 0.98 * sr_image + torch.tensor([0.02, 0.0, 0.0]).view(1, 3, 1, 1)


def wavy(sr_image: Tensor, scale: int) -> Tensor:
    """A network whose brightness strays by up to 0.02, with a period of 64 LR pixels."""
    column = torch.arange(sr_image.shape[-1]) / scale
    return sr_image + 0.02 * torch.sin(2 * math.pi * column / 64)


def cases(folder: Path, scale: int) -> Iterator[Case]:
    """Run the network over a test set."""
    run = run_of(load_model(MODEL, scale=scale))
    for pair in find_test_pairs(folder, scale=scale):
        lr_image, hr_image = map(torch.from_numpy, read_pair(pair, scale=scale))
        yield Case(lr_image, hr_image, run(lr_image), scale)


def quality_of_shipped_weights(folder: Path, scale: int) -> dict[str, Any]:
    """PSNR without the guard, and what each width of its blur adds."""
    plain: list[tuple[float, float]] = []
    guarded: dict[float, list[tuple[float, float]]] = {sigma: [] for sigma in SIGMAS_PIXELS}
    for case in cases(folder, scale):
        plain.append(case.quality(case.sr_image))
        for sigma in SIGMAS_PIXELS:
            guarded[sigma].append(case.quality(case.guarded(case.sr_image, sigma)))
    luma, rgb = mean_of(plain)
    gains = {sigma: mean_of(results) for sigma, results in guarded.items()}
    return {
        "test_set": folder.name,
        "scale": scale,
        "images": len(plain),
        "psnr_y_db": round(luma, 4),
        "psnr_rgb_db": round(rgb, 4),
        "gain_y_db": {str(sigma): round(gain[0] - luma, 4) for sigma, gain in gains.items()},
        "gain_rgb_db": {str(sigma): round(gain[1] - rgb, 4) for sigma, gain in gains.items()},
    }


def quality_with_drift(folder: Path, scale: int, drift: Drift) -> dict[str, Any]:
    """PSNR and the error of the low frequencies of a network that drifts."""
    sound, spoilt = [], []
    guarded: dict[float, list[tuple[float, float]]] = {sigma: [] for sigma in SIGMAS_PIXELS}
    errors: list[tuple[float, float]] = []
    for case in cases(folder, scale):
        bad = drift(case.sr_image, scale)
        sound.append(case.quality(case.sr_image))
        spoilt.append(case.quality(bad))
        for sigma in SIGMAS_PIXELS:
            guarded[sigma].append(case.quality(case.guarded(bad, sigma)))
        errors.append((tone_error(case, bad), tone_error(case, case.guarded(bad))))
    before, after = mean_of(errors)
    return {
        "test_set": folder.name,
        "scale": scale,
        "drift": drift.__doc__,
        "psnr_rgb_db_without_drift": round(mean_of(sound)[1], 3),
        "psnr_rgb_db_with_drift": round(mean_of(spoilt)[1], 3),
        "psnr_rgb_db_guarded": {
            str(sigma): round(mean_of(results)[1], 3) for sigma, results in guarded.items()
        },
        "tone_error_with_drift": round(before, 3),
        "tone_error_guarded": round(after, 3),
    }


def tone_error(case: Case, sr_image: Tensor) -> float:
    """Mean difference of 16x16 LR pixels' colour from the source's, in levels of 255."""
    side = 16
    lr_tone = F.avg_pool2d(case.lr_image, side)
    sr_tone = F.avg_pool2d(sr_image.clamp(0, 1), side * case.scale)
    return 255 * float((lr_tone - sr_tone).abs().mean())


def tint_of_a_grey_scan(scale: int) -> dict[str, Any]:
    """Mean colour that a grey picture with a scanner's noise gains, in levels of 255."""
    generator = torch.Generator().manual_seed(0)
    grey = sample().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    noise = torch.randint(-1, 2, grey.shape, generator=generator) / 255
    lr_image = torch.from_numpy(round_to_8_bit((grey + noise).numpy()))
    run = run_of(load_model(MODEL, scale=scale))
    plain = run(lr_image)
    results = {"shipped": plain, "tinted": tinted(plain, scale)}
    figures: dict[str, Any] = {"scale": scale, "source": tint(lr_image)}
    for name, result in results.items():
        figures[name] = tint(result)
        figures[f"{name}_guarded"] = tint(guarded(result, lr_image))
    return figures


def tint(image: Tensor) -> float:
    """The largest difference of two channels' means, in levels of 255."""
    means = 255 * image.clamp(0, 1).mean(dim=(0, 2, 3))
    return round(float(means.max() - means.min()), 3)


def tiles_against_whole(scale: int, *, keep: bool) -> float:
    """PSNR in dB of the sample in tiles of 128 pixels, the whole result being the truth."""
    image = sample()
    whole, tiled = (
        Upscaler(MODEL, device="cpu", tile=tile, keep_colours=keep)(image, scale=scale)
        for tile in ("whole", 128)
    )
    return round(float(psnr_db(whole.numpy(), tiled.numpy())[0]), 2)


def share_of_time(scale: int, height: int = 180, width: int = 320) -> dict[str, Any]:
    """What the guard takes, beside the network; the best of five."""
    run = run_of(load_model(MODEL, scale=scale))
    lr_image = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        sr_image = run(lr_image)
        network_ms = best_ms(lambda: run(lr_image))
        guard_ms = best_ms(lambda: guarded(sr_image, lr_image))
    return {
        "scale": scale,
        "lr_size": [width, height],
        "network_ms": round(network_ms, 1),
        "guard_ms": round(guard_ms, 1),
        "share": round(guard_ms / network_ms, 4),
    }


def best_ms(work: Callable[[], object]) -> float:
    """Milliseconds of the fastest of five runs."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def sample() -> Tensor:
    """The sample picture, (1, 3, H, W) in [0, 1]."""
    pixels = torch.as_tensor(read_image(SAMPLE).pixels[..., :3])
    return pixels.permute(2, 0, 1)[None].float() / 255


def mean_of(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Both means."""
    return sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs)


def table(cells: list[dict[str, Any]]) -> str:
    """The gains as Markdown."""
    head = ["test set", "PSNR-Y / RGB without", *(f"{sigma:g} px" for sigma in SIGMAS_PIXELS)]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for cell in cells:
        gains = zip(cell["gain_y_db"].values(), cell["gain_rgb_db"].values(), strict=True)
        name = f"{cell['test_set']} x{cell['scale']}"
        plain = f"{cell['psnr_y_db']:.3f} / {cell['psnr_rgb_db']:.3f}"
        lines.append(" | ".join([name, plain, *(f"{y:+.4f} / {rgb:+.4f}" for y, rgb in gains)]))
    return "\n".join(f"| {line} |" for line in lines)


def measure(folders: list[Path]) -> dict[str, Any]:
    """Everything, as the record holds it; drifts are measured on the first test set."""
    cells = [quality_of_shipped_weights(folder, scale) for folder in folders for scale in SCALES]
    key = str(BLUR_SIGMA_PIXELS)
    worst = min(min(cell["gain_y_db"][key], cell["gain_rgb_db"][key]) for cell in cells)
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {"escsr": __version__, "torch": torch.__version__},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "model": MODEL,
        "weights_sha256": {
            model.path.name: hashlib.sha256(model.path.read_bytes()).hexdigest()
            for model in bundled_models()
            if model.name == MODEL
        },
        "sigma_pixels": BLUR_SIGMA_PIXELS,
        "worst_gain_db": worst,
        "is_harmless": worst >= -HARMLESS_DB,
        "quality": cells,
        "drift": [quality_with_drift(folders[0], 4, drift) for drift in (tinted, wavy)],
        "grey_scan_tint": [tint_of_a_grey_scan(scale) for scale in SCALES],
        "tiles_against_whole_psnr_db": {
            "guarded": tiles_against_whole(4, keep=True),
            "unguarded": tiles_against_whole(4, keep=False),
        },
        "time": [share_of_time(scale) for scale in SCALES],
    }


def main() -> None:
    """Measure, print the table and the verdict, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds Set5, Set14 and B100")
    parser.add_argument("--out", type=Path, default=None, help="where to write the record")
    parser.add_argument("--quick", action="store_true", help="Set5 only")
    options = parser.parse_args()
    names = ("Set5",) if options.quick else ("Set5", "Set14", "B100")
    record = measure([options.data / name for name in names])
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(table(record["quality"]))
    print(json.dumps({k: v for k, v in record.items() if k != "quality"}, indent=2))


if __name__ == "__main__":
    main()
