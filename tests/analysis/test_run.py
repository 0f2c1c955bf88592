"""Every question, asked of every network of the family and of others."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from escsr.analysis.pictures import Patch, Picture
from escsr.analysis.records import PARTS, Skipped
from escsr.analysis.report import analysis_as_dict, as_json, skipped_lines
from escsr.analysis.run import Analysis, Findings, Settings, analyse, num_passes
from escsr.engines.opening import open_any_network
from escsr.evaluation.contenders import Contender
from escsr.family.variants import VARIANTS, variant
from escsr.model import ESC

from .networks import MIDDLE, Rival, random_image

SMALLER = {
    "dim": 16,
    "pdim": 4,
    "num_heads": 2,
    "upsampler_dim": 8,
    "large_kernel_size": 5,
    "num_blocks": 2,
    "num_conv_layers": 1,
    "window_size": 8,
    "texture_dim": 8,
    "texture_mlp_dim": 8,
}
"""Of every variant, what costs time but is no part of its kind."""


def contender(network: nn.Module) -> Contender:
    """A network as a row of the report."""
    return Contender(
        label="network",
        source="test",
        network=open_any_network(network.eval()),
        scale=2,
        architecture="test",
    )


def asked_of(network: nn.Module, *, patch: Patch = MIDDLE, side: int = 32) -> Analysis:
    """Everything, of two random pictures."""
    pictures = [
        Picture(
            path=Path(f"{seed}.png"),
            width=side,
            height=side,
            left=0,
            top=0,
            image=random_image(side, side, seed=seed),
        )
        for seed in (0, 1)
    ]
    settings = Settings(device=torch.device("cpu"), patch=patch, steps=1)
    passes: list[str] = []
    analysis = analyse(
        [contender(network)],
        pictures,
        settings,
        crop_pixels=side,
        on_pass=lambda label, part: passes.append(part),
    )
    assert len(passes) <= num_passes(settings, contenders=1, pictures=2)
    assert set(passes) <= set(PARTS)
    return analysis


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_answers_every_question(name: str) -> None:
    """Nothing is skipped, and the report is plain JSON without infinite numbers."""
    analysis = asked_of(ESC(variant(name, scale=4, **SMALLER)))
    assert skipped_lines(analysis) == []
    (findings,) = analysis.findings
    answers = [getattr(findings, field.name) for field in fields(Findings)]
    assert all(answer is not None for answer in answers)
    assert '"diffusion_index"' in as_json(analysis_as_dict(analysis))


@pytest.mark.parametrize("mixers", [("window", "window"), ("convolution", "convolution")])
def test_the_ablations_answer_what_makes_sense(mixers: tuple[str, str]) -> None:
    """Attention everywhere has no large kernel at work, ConvAttn only has no attention maps."""
    first, other = mixers
    config = variant("esc-tiny", scale=2, first_mixer=first, layer_mixer=other, **SMALLER)
    analysis = asked_of(ESC(config))
    (findings,) = analysis.findings
    assert isinstance(findings.attention, Skipped) == (first == "convolution")
    assert isinstance(findings.dynamic_kernel, Skipped) == (other == "window")
    assert not isinstance(findings.features, Skipped)
    assert not isinstance(findings.attribution, Skipped)


def test_a_restorer_that_folds_pixels_answers_too() -> None:
    """ESC-Real-M at x1 works on a quarter of the side, too small here for a spectrum."""
    analysis = asked_of(ESC(variant("esc-real-m", scale=1, **SMALLER)), side=64)
    lines = skipped_lines(analysis)
    assert [line.split(":")[0] for line in lines] == ["network, spectrum"]


def test_a_rival_answers_what_makes_sense() -> None:
    """It has no kernels of ours."""
    lines = skipped_lines(asked_of(Rival()))
    assert [line.split(":")[0] for line in lines] == [
        "network, large kernel",
        "network, dynamic kernels",
    ]


def test_a_network_that_fails_is_told_and_the_rest_goes_on() -> None:
    """As one that has no gradient with respect to its input."""

    class Detached(Rival):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image.detach())

    lines = skipped_lines(asked_of(Detached()))
    assert sum("failed with RuntimeError" in line for line in lines) == 2


def test_looking_changes_no_weight() -> None:
    """And leaves no gradient behind."""
    network = ESC(variant("esc-tiny", scale=2, **SMALLER))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    asked_of(network)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
