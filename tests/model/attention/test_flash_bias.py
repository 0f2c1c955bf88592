"""A bias as a product of factors: exact at full rank, within its bound below, and never silent."""

import logging
from pathlib import Path

import pytest
import torch

from escsr.engines.folding import fold, position_rank
from escsr.errors import ConfigurationError
from escsr.images.files import read_image
from escsr.model.attention.flash_bias import FactorisedPositionBias, RankRule
from escsr.model.position_bias import expand_bias
from escsr.weights import load_model
from tests.golden_files import GOLDEN_TOLERANCE, relative_error
from tests.model.networks import random_image, small_network

SAMPLE = Path(__file__).parents[3] / "docs" / "sample" / "cat.png"


def learned_bias(window_size: int = 4) -> torch.Tensor:
    """(2, w^2, w^2) from a random table: of full rank, as a trained one is."""
    generator = torch.Generator().manual_seed(0)
    return expand_bias(torch.randn(2, (2 * window_size - 1) ** 2, generator=generator), window_size)


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (13, 9)])
@pytest.mark.parametrize("variant", [{}, {"attention_gate": True}], ids=["plain", "gated"])
def test_full_rank_is_exact(size: tuple[int, int], variant: dict[str, bool]) -> None:
    """All ranks there are: the network's own answer, in float32."""
    network = small_network(**variant)
    image = random_image(2, 3, *size)
    factored = fold(network, attention_backend="flashbias", flash_bias=RankRule(rank=16))
    assert position_rank(factored) == 16
    with torch.no_grad():
        assert relative_error(factored(image), network(image)) < GOLDEN_TOLERANCE


def test_a_rank_beyond_the_tokens_is_all_there_are() -> None:
    """A window of 16 tokens has no more than 16."""
    assert FactorisedPositionBias(learned_bias(), RankRule(rank=99)).rank == 16


@pytest.mark.parametrize("bound", [1.0, 0.1, 1e-3])
def test_a_bound_is_kept_by_the_smallest_rank(bound: float) -> None:
    """One rank less breaks it."""
    chosen = FactorisedPositionBias(learned_bias(), RankRule(largest_bias_error=bound))
    assert chosen.bias_error <= bound
    less = FactorisedPositionBias(learned_bias(), RankRule(rank=chosen.rank - 1))
    assert less.bias_error > bound


def test_a_bias_that_is_a_product_takes_its_own_rank() -> None:
    """Three numbers per token made it; three are found, and nothing is lost but rounding."""
    a, b = torch.randn(2, 2, 16, 3, generator=torch.Generator().manual_seed(0))
    found = FactorisedPositionBias(a @ b.transpose(-2, -1), RankRule(largest_bias_error=1e-4))
    assert found.rank == 3
    assert found.bias_error < 1e-5  # entries of about 5 in float32


def test_the_errors_that_are_told_are_those_made() -> None:
    """Compared with the product and its softmax, written out."""
    bias = learned_bias().double()
    factors = FactorisedPositionBias(bias, RankRule(rank=5))
    made = factors().query_NTR @ factors().key_NTR.transpose(-2, -1)
    assert factors.bias_error == pytest.approx(float((made - bias).abs().max()))
    errors = (made.softmax(-1) - bias.softmax(-1)).abs()
    assert factors.probability_error == pytest.approx(float(errors.max()))
    assert factors.bias_error > 0.1


def test_folding_tells_the_log_of_the_error(caplog: pytest.LogCaptureFixture) -> None:
    """A line per attention layer: rank and both errors."""
    with caplog.at_level(logging.INFO, logger="escsr"):
        fold(small_network(), attention_backend="flashbias", flash_bias=RankRule(rank=3))
    assert len(caplog.messages) == 2
    assert "16 tokens as factors of rank 3: off by" in caplog.messages[0]


def test_by_default_no_pixel_of_the_shipped_network_moves_by_a_level_of_8_bits() -> None:
    """On the sample photograph, x4, where the bias is largest; docs/attention-back-ends.md."""
    network = load_model("esc-tiny", scale=4)
    pixels = read_image(SAMPLE).pixels[:96:2, :128:2].copy()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    factored = fold(network, attention_backend="flashbias")
    with torch.no_grad():
        assert (factored(image) - network(image)).abs().max() < 1 / 255
    assert position_rank(factored) < 256


def test_factors_that_a_network_has_already_are_left_alone() -> None:
    """ESC-RIB under "flashbias": its own rank, its own answer."""
    network = small_network(position_bias="implicit", position_rank=5)
    factored = fold(network, attention_backend="flashbias", flash_bias=RankRule(rank=2))
    assert position_rank(factored) == 5
    image = random_image(1, 3, 9, 7)
    with torch.no_grad():
        assert relative_error(factored(image), network(image)) < GOLDEN_TOLERANCE


def test_half_precision_runs() -> None:
    """Factors take the type of the network, as its weights do."""
    factored = fold(small_network(), attention_backend="flashbias").to(torch.bfloat16)
    with torch.no_grad():
        result = factored(random_image(1, 3, 9, 7, dtype=torch.bfloat16))
    assert result.dtype == torch.bfloat16
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rank": 0}, "0"),
        ({"rank": 2.5}, "2.5"),
        ({"rank": True}, "True"),
        ({"largest_bias_error": -1.0}, "largest_bias_error"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(options: dict[str, float], word: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match=f"{word}.*>= "):
        RankRule(**options)  # pyright: ignore[reportArgumentType]
