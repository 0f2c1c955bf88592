"""Position biases: ESC-RIB's factors, and what attention makes of factors."""

import pytest
import torch

from escsr.model.attention.backends import attend
from escsr.model.position_bias import (
    ImplicitPositionBias,
    PositionFactors,
    TablePositionBias,
    place_features,
)
from escsr.model.window_attention import WindowAttention
from tests.eager_backends import EAGER_BACKENDS
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles import implicit_bias as oracle
from tests.oracles.attention import position_biases, window_attention
from tests.oracles.convolution import as_full_kernel, convolve

ROUNDING = {
    # Epsilon times a margin for a softmax and two products of up to 16 terms.
    torch.float64: 16 * 2**-52,
    torch.float32: 16 * 2**-23,
    # The sum of score and bias is rounded as a whole or in parts, and the exponential sees it.
    torch.bfloat16: 8 * 2**-7,
}


def small_bias(window_size: int = 4, *, frequencies: int = 10) -> ImplicitPositionBias:
    """Of 2 heads and rank 3, float64, large enough to matter."""
    bias = ImplicitPositionBias(
        2, window_size, rank=3, hidden_dim=5, frequencies=frequencies
    ).double()
    randomise(bias, seed=0)
    return bias


@pytest.mark.parametrize("frequencies", [0, 1, 10])
@pytest.mark.parametrize("window_size", [1, 2, 5])
def test_a_place_is_told_as_the_paper_says(window_size, frequencies):
    """x, y, then sin x, sin y, cos x, cos y of each frequency; 42 numbers of ten."""
    like = torch.empty(0, dtype=torch.float64)
    ours = place_features(window_size, frequencies, like=like)
    right = [
        oracle.place_features(row, column, window_size, frequencies)
        for row in range(window_size)
        for column in range(window_size)
    ]
    assert ours.shape == (window_size**2, 2 + 4 * frequencies)
    # Places round at 1e-16 and the highest frequency makes 512 times as much of it.
    assert torch.allclose(ours, torch.tensor(right, dtype=torch.float64), rtol=0, atol=1e-13)


def test_x_is_the_column_and_y_the_row():
    """The four places of a 2x2 window, by hand."""
    places = place_features(2, 0, like=torch.empty(0))
    assert places.tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_features_and_not_places(dtype):
    """2^9 x in bfloat16 would be off by more than a turn."""
    exact = place_features(8, 10, like=torch.empty(0, dtype=torch.float64))
    ours = place_features(8, 10, like=torch.empty(0, dtype=dtype))
    assert ours.dtype == dtype
    assert (ours.double() - exact).abs().max() <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("window_size", [1, 3, 4])
def test_the_implicit_bias_is_the_papers(window_size):
    """The product of its factors equals the oracle, pair by pair; 1/sqrt(R) is in it once."""
    bias = small_bias(window_size)
    right = oracle.implicit_bias(weights_as_arrays(bias), window_size, 10)
    assert relative_error(bias().product(), torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_the_rank_scales_queries_and_not_keys():
    """Pq / sqrt(R) and Pk, as the reference appends them."""
    bias = small_bias()
    hidden = (place_features(4, 10, like=bias.to_hidden) @ bias.to_hidden + bias.hidden_bias).relu()
    factors = bias()
    assert relative_error(factors.query_NTR, hidden @ bias.to_query / 3**0.5) < ROUNDING_FLOAT64
    assert torch.equal(factors.key_NTR, hidden @ bias.to_key)


def test_the_implicit_bias_starts_small():
    """Matrices from N(0, 0.05), the hidden bias at zero."""
    torch.manual_seed(0)
    bias = ImplicitPositionBias(4, 64, rank=16, hidden_dim=32, frequencies=10)
    assert bias.hidden_bias.count_nonzero() == 0
    for matrix, shape in (
        (bias.to_hidden, (42, 32)),
        (bias.to_query, (4, 32, 16)),
        (bias.to_key, (4, 32, 16)),
    ):
        assert matrix.shape == shape
        # At least 1344 draws: the deviation is known to 2 %; five times that.
        assert matrix.std().item() == pytest.approx(0.05, rel=0.1)


def factors_and_tokens(dtype: torch.dtype) -> tuple[PositionFactors, list[torch.Tensor]]:
    """Of 3 windows, 2 heads, 9 tokens; factors of rank 4, keys of 5 channels."""
    query, key = (
        (random_image(2, 9, 4, seed=seed, dtype=torch.float64) * 2 - 1).to(dtype) for seed in (3, 4)
    )
    tokens = [
        (random_image(3, 2, 9, 5, seed=seed, dtype=torch.float64) * 4 - 2).to(dtype)
        for seed in (5, 6, 7)
    ]
    return PositionFactors(query, key), tokens


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_appended_factors_are_an_additive_bias(backend, dtype):
    """`[q/sqrt(d), Pq] [k, Pk]` with scale 1 attends as `q k / sqrt(d) + Pq Pk` does."""
    factors, (q, k, v) = factors_and_tokens(dtype)
    longer_q, longer_k = factors.appended_to(q, k)
    assert longer_q.shape == longer_k.shape == (3, 2, 9, 9)
    ours = attend(longer_q, longer_k, v, None, backend=backend, scale=1.0)
    exact = PositionFactors(factors.query_NTR.double(), factors.key_NTR.double()).product()
    right = attend(q.double(), k.double(), v.double(), exact, backend="naive")
    assert ours.dtype == dtype
    assert relative_error(ours.double(), right) < ROUNDING[dtype]


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_gradients_pass_through_appended_factors(backend):
    """Those of the factors equal those that the additive bias passes on to them."""
    factors, tokens = factors_and_tokens(torch.float64)
    leaves = [factors.query_NTR, factors.key_NTR, *tokens]
    gradients = []
    for is_appended in (True, False):
        fresh = [leaf.clone().requires_grad_() for leaf in leaves]
        bias, (q, k, v) = PositionFactors(*fresh[:2]), fresh[2:]
        if is_appended:
            q, k = bias.appended_to(q, k)
            attended = attend(q, k, v, None, backend=backend, scale=1.0)
        else:
            attended = attend(q, k, v, bias.product(), backend="naive")
        gradients.append(torch.autograd.grad((attended * tokens[0]).sum(), fresh))
    for ours, right in zip(*gradients, strict=True):
        assert relative_error(ours, right) < ROUNDING_FLOAT64


def with_gate(**arguments: object) -> WindowAttention:
    """Attention in windows of 3, with ESC-RIB's gate."""
    attention = WindowAttention(6, window_size=3, num_heads=2, has_gate=True, **arguments).double()
    randomise(attention, seed=0)
    return attention


@pytest.mark.parametrize("kind", ["table", "implicit"])
@pytest.mark.parametrize("backend", EAGER_BACKENDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (5, 4)])
def test_gated_attention_equals_the_oracle(backend, kind, height, width):
    """Attended, cropped, weighed by sigmoid(1x1(DW3x3(unpadded x))), then the output layer."""
    bias = TablePositionBias(2, 3) if kind == "table" else small_bias(3)
    attention = with_gate(backend=backend, position_bias=bias)
    features = random_image(2, 6, height, width, dtype=torch.float64) * 4 - 2
    ours = attention(features)
    state = weights_as_arrays(attention)
    of_bias = weights_as_arrays(bias)
    biases = (
        position_biases(of_bias["table"], 3)
        if kind == "table"
        else oracle.implicit_bias(of_bias, 3, 10)
    )
    linear = (state["query_key_value.weight"][:, :, 0, 0], state["query_key_value.bias"])
    kernel = as_full_kernel(state["gate.depthwise.weight"][:, 0])
    for image in range(2):
        pixels = features[image].numpy()
        gate = convolve(pixels, kernel, state["gate.depthwise.bias"])
        gate = convolve(gate, state["gate.pointwise.weight"], state["gate.pointwise.bias"])
        weighed = window_attention(pixels, linear, biases, window_size=3) / (
            1 + torch.from_numpy(-gate).exp().numpy()
        )
        right = convolve(
            weighed, state["output_projection.weight"], state["output_projection.bias"]
        )
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_a_gate_can_close():
    """With a very negative bias nothing passes but the output layer's bias."""
    attention = with_gate()
    torch.nn.init.constant_(attention.gate.pointwise.bias, -1e3)
    torch.nn.init.zeros_(attention.gate.pointwise.weight)
    mixed = attention(random_image(1, 6, 4, 4, dtype=torch.float64))
    bias = attention.output_projection.bias
    assert torch.equal(mixed, bias[:, None, None].expand(1, -1, 4, 4))
