"""Write a card and a picture for each trained network in the box, from what its file says.

    python docs/models/make_cards.py

Run it again whenever weights change; a test compares the cards with the files.
"""

import csv
import json
import tempfile
from pathlib import Path

import numpy as np

from escsr.evaluation.protocol import to_batch, to_pixels
from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic, resize_bicubic_uint8
from escsr.images.writer import write_image
from escsr.weights import bundled_models, open_network
from escsr.weights.box import BundledModel
from escsr.weights.inspection import config_parameters, output_macs

FOLDER = Path(__file__).parent
SAMPLE = FOLDER.parent / "sample" / "cat.png"
TOP, LEFT, SIDE = 60, 96, 216
"""Around the cat's eye, in pixels."""
BICUBIC = {
    "Set5": (33.67, 30.40, 28.43),
    "Set14": (30.32, 27.63, 26.09),
    "B100": (29.56, 27.21, 25.96),
}
"""PSNR-Y in dB at x2, x3, x4, as ``escsr evaluate bicubic`` measures it."""


NIQE_KEY = "RealSRSet NIQE"
REAL_WORLD_RECORD = FOLDER.parents[1] / "benchmarks" / "2026-11-21-real-world.json"


def main() -> None:
    """Write all cards."""
    for model in bundled_models():
        stem = f"{model.name}-x{model.scale}"
        (FOLDER / f"{stem}.md").write_text(card(model), encoding="utf-8")
        write_image(FOLDER / f"{stem}.png", picture(model), overwrite=True)


def card(model: BundledModel) -> str:
    """The card of one file of weights, as Markdown."""
    stem, header = f"{model.name}-x{model.scale}", model.header
    provenance, config = header.provenance, header.config
    size = (
        f"{config.dim} channels, {config.num_blocks} blocks of {config.num_conv_layers} "
        f"ConvAttention layers, window {config.window_size}"
    )
    cost = f"{config_parameters(config):,} parameters, {output_macs(config) / 1e9:.1f} GMAC"
    recipe = json.loads(provenance.recipe)
    return f"""# {model.name} x{model.scale}

![Bicubic, {model.name}, and the photograph itself]({stem}.png)

*A photograph {_story(model)}, then enlarged: bicubic, `{model.name}`, and the
photograph itself ([source](../sample/README.md)). It is no part of the training.*

- **Network**: ESC, {size};
  {cost} for a result of 1280x720.
- **Licence of the weights**: {provenance.licence}: use, change and sell them and what you make
  with them; keep the notice.
- **Training data**: {provenance.training_data}.
- **Recipe**: `recipes/shipped/{provenance.recipe_name}.toml`, {_steps(model, recipe["steps"])},
  {_start(recipe)}; {provenance.date}; [log](../../src/escsr/weights/bundled/{stem}.log.csv).
- **File**: {model.size_bytes / 1024:.0f} KB, float16, sha256 of the tensors `{header.sha256[:16]}…`
  (`escsr inspect {stem}`).

{_figures_of_real(model) if is_for_real(model) else _figures_of_clean(model)}"""


def is_for_real(model: BundledModel) -> bool:
    """Whether it is judged by NIQE on photographs as they are."""
    return NIQE_KEY in model.header.provenance.quality


def _figures_of_clean(model: BundledModel) -> str:
    rows = "\n".join(_row(name, model) for name in BICUBIC)
    return f"""| | {model.name} | bicubic |
|---|---|---|
{rows}

PSNR-Y in dB / SSIM-Y by the field's protocol:
`escsr evaluate {model.name} bicubic -s {model.scale} --data Set5 --data Set14 --data B100`.

**Limits**: made for clean photographs that were shrunk by bicubic. Noise, JPEG blocks and scratches
are enlarged, not repaired; text and line art were not trained. It adds no detail that the
photograph does not hint at. `Upscaler` keeps tone, colour and flat regions
([fidelity](../fidelity.md), [flat regions](../files.md#borders-and-flat-graphics)).
"""


def _figures_of_real(model: BundledModel) -> str:
    record = json.loads(REAL_WORLD_RECORD.read_text(encoding="utf-8"))
    rows = "\n".join(f"| {name} | {mean:.2f} |" for name, mean in record["mean_niqe"].items())
    return f"""| NIQE, mean of {len(record["niqe_by_image"]["bicubic"])} real pictures | |
|---|---|
{rows}

Lower is better. Ours is fitted on our own photographs, so it compares rows and not papers:
`python benchmarks/measure_real_world.py REALSRSET esc-tiny {model.name} realesr-general-x4v3.pth`
([record](../../benchmarks/{REAL_WORLD_RECORD.name})).

**Limits**: a very small network, trained for less than an hour of one CPU core, without a
discriminator: it removes noise and JPEG blocks of moderate strength and leaves blur where it cannot
know better; fine texture may be smoothed away with the noise. Clean photographs come out softer
than with `esc-tiny`. Faces and text were not trained apart. [Eight real pictures, looked
at](../real-world/realsrset.md), say when to take which.
"""


def _story(model: BundledModel) -> str:
    if is_for_real(model):
        return f"shrunk by {model.scale}, with noise and JPEG blocks added"
    return f"shrunk by {model.scale}"


def picture(model: BundledModel) -> np.ndarray:
    """Bicubic, the network, and the truth beside one another, (SIDE, 3 * SIDE + 2 gaps, 3)."""
    hr_pixels = read_image(SAMPLE).pixels[..., :3]
    height, width = (side // model.scale * model.scale for side in hr_pixels.shape[:2])
    hr_pixels = hr_pixels[:height, :width]
    lr_pixels = resize_bicubic_uint8(np.ascontiguousarray(hr_pixels), scale=1 / model.scale)
    if is_for_real(model):
        lr_pixels = _spoilt(lr_pixels)
    lr_image = to_batch(lr_pixels)
    network = open_network(model.path)
    results = (resize_bicubic(lr_image, scale=model.scale), network(lr_image))
    panels = [_eye(to_pixels(result.clip(0, 1))) for result in results] + [_eye(hr_pixels)]
    gap = np.full((SIDE, 4, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def _spoilt(pixels: np.ndarray) -> np.ndarray:
    """Noise of 8 levels, then JPEG of quality 50."""
    noisy = pixels + np.random.default_rng(0).normal(0, 8, pixels.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoilt.jpg"
        write_image(path, noisy.round().clip(0, 255).astype(np.uint8), quality=50)
        return read_image(path).pixels[..., :3]


def _row(test_set: str, model: BundledModel) -> str:
    quality = model.header.provenance.quality
    psnr_y_db, ssim_y = quality[f"{test_set} PSNR-Y dB"], quality[f"{test_set} SSIM-Y"]
    return f"| {test_set} | {psnr_y_db:.2f} / {ssim_y:.4f} | {BICUBIC[test_set][model.scale - 2]} |"


def _steps(model: BundledModel, planned: int) -> str:
    log = model.path.with_name(f"{model.name}-x{model.scale}.log.csv")
    with log.open(encoding="utf-8", newline="") as file:
        done = max(int(row["step"]) for row in csv.DictReader(file))
    return f"{done:,} steps" if done >= planned else f"{done:,} of {planned:,} steps so far"


def _start(recipe: dict[str, object]) -> str:
    start = recipe.get("starts_from")
    return f"from the weights of `{start}`" if start else "from random weights"


def _eye(pixels: np.ndarray) -> np.ndarray:
    return pixels[TOP : TOP + SIDE, LEFT : LEFT + SIDE]


if __name__ == "__main__":
    main()
