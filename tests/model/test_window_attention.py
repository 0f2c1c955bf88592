"""Windows, the position bias, and attention within windows."""

import pytest
import torch

from escsr.errors import ConfigurationError
from escsr.model import ESC
from escsr.model.attention.backends import attend
from escsr.model.padding import reflect_pad_to_multiple
from escsr.model.position_bias import expand_bias
from escsr.model.window_attention import (
    WindowAttention,
    merge_heads,
    merge_windows,
    partition_windows,
    split_heads,
)
from tests.eager_backends import EAGER_BACKENDS
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, small_config
from tests.oracles.attention import position_bias, position_biases, window_attention
from tests.oracles.convolution import convolve

SIZES = [(1, 1), (1, 10), (3, 2), (6, 9), (5, 3), (12, 6)]


def test_windows_and_tokens_are_row_major():
    """A 4x4 map in windows of 2, by hand."""
    windows = partition_windows(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    assert windows[..., 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_windows_that_overhang_are_filled_by_reflection():
    """A 2x3 map in windows of 2: the column after 2 is column 1 again."""
    windows = partition_windows(torch.arange(6.0).reshape(1, 1, 2, 3), 2)
    assert windows[..., 0].tolist() == [[0, 1, 3, 4], [2, 1, 5, 4]]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_partition_is_padding_and_cutting(height, width):
    """Every window shows its place in the reflected map."""
    w, features = 3, random_image(2, 4, height, width)
    windows = partition_windows(features, w)
    padded = reflect_pad_to_multiple(features, w)
    cut = [
        padded[image, :, top : top + w, left : left + w].flatten(1).T
        for image in range(2)
        for top in range(0, padded.shape[2], w)
        for left in range(0, padded.shape[3], w)
    ]
    assert torch.equal(windows, torch.stack(cut))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_merging_undoes_partitioning(height, width):
    """Cutting and putting back gives the map, without what was added."""
    features = random_image(2, 4, height, width)
    assert torch.equal(merge_windows(partition_windows(features, 3), 3, height, width), features)


def test_heads_are_split_and_merged_head_first():
    """Channel order is (head, channel)."""
    tokens = torch.arange(6.0).reshape(1, 1, 6)
    heads = split_heads(tokens, 2)
    assert heads[0, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(merge_heads(heads), tokens)


@pytest.mark.parametrize("window_size", [1, 2, 3, 5])
def test_the_bias_index_is_the_papers(window_size):
    """Each pair of tokens reads the entry of its offset from an asymmetric table."""
    entries = (2 * window_size - 1) ** 2
    table = torch.arange(2.0 * entries).reshape(2, entries)
    ours = expand_bias(table, window_size)
    for head in range(2):
        right = torch.from_numpy(position_bias(table[head].double().numpy(), window_size))
        assert torch.equal(ours[head].double(), right)


def test_the_bias_sign_is_key_minus_query():
    """In a 2x2 window the first query sees the last key one down and one right: entry (2, 2)."""
    bias = expand_bias(torch.arange(9.0)[None], 2)[0]
    assert bias[0, 3] == 8  # row = query, offset (+1, +1)
    assert bias[3, 0] == 0
    assert bias[0, 1] == 5  # offset (0, +1)
    assert bias[0, 2] == 7  # offset (+1, 0)


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_attention_equals_the_oracle(backend, height, width):
    """Window attention equals the paper's formula computed token by token."""
    attention = WindowAttention(6, window_size=3, num_heads=2, backend=backend).double()
    randomise(attention, seed=0)
    features = random_image(2, 6, height, width, dtype=torch.float64) * 4 - 2
    ours = attention(features)
    state = {name: value.numpy() for name, value in attention.state_dict().items()}
    for image in range(2):
        attended = window_attention(
            features[image].numpy(),
            (state["query_key_value.weight"][:, :, 0, 0], state["query_key_value.bias"]),
            position_biases(state["position_bias.table"], 3),
            window_size=3,
        )
        right = convolve(
            attended, state["output_projection.weight"], state["output_projection.bias"]
        )
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_attention_is_stable_for_large_scores(backend):
    """Scores of a thousand neither overflow nor turn into NaN."""
    q = torch.full((1, 1, 4, 2), 30.0)
    attended = attend(q, q, q, torch.zeros(1, 4, 4), backend=backend)
    assert torch.allclose(attended, q)  # equal values, averaged with weights that sum to one


@pytest.mark.parametrize("backend", EAGER_BACKENDS)
def test_the_bias_takes_the_type_of_the_queries(backend):
    """A float32 bias serves bfloat16 queries, as autocast hands them over."""
    q = torch.randn(2, 1, 4, 2, dtype=torch.bfloat16)
    assert attend(q, q, q, torch.zeros(1, 4, 4), backend=backend).dtype == torch.bfloat16


def test_an_unknown_back_end_is_refused_when_the_network_is_built():
    """The error names the back-ends there are."""
    with pytest.raises(ConfigurationError, match="'flash'; allowed are naive, sdpa"):
        ESC(small_config(), attention_backend="flash")


def test_an_unknown_back_end_is_refused_when_attention_is_computed():
    """Also where somebody changed the attribute."""
    q = torch.zeros(1, 1, 4, 2)
    with pytest.raises(ConfigurationError, match="'flash'"):
        attend(q, q, q, torch.zeros(1, 4, 4), backend="flash")


def test_the_bias_starts_small():
    """The table starts at 0.001 times a normal number."""
    torch.manual_seed(0)
    table = WindowAttention(8, window_size=16, num_heads=2, backend="sdpa").position_bias.table
    assert table.shape == (2, 31**2)
    # 1922 draws: the deviation is known to 1/sqrt(2 * 1922) = 1.6 %; five times that.
    assert table.std().item() == pytest.approx(0.001, rel=0.08)
