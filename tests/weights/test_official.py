"""Reference names <-> ours."""

import pytest
import torch

from escsr.errors import CheckpointError
from escsr.model import ESC
from escsr.model.position_bias import expand_bias
from escsr.weights import to_ours, to_reference
from golden_files import LARGE_GOLDEN, SMALL_GOLDEN, read_golden


def with_expanded_bias(state: dict[str, torch.Tensor], window_size: int) -> dict[str, torch.Tensor]:
    """The state dict after the reference's to_mobile()."""
    table, expanded = ".attn.relative_position_bias", ".attn.rpe_bias"
    return {
        name.replace(table, expanded): expand_bias(tensor, window_size)[None]
        if name.endswith(table)
        else tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("name", [*SMALL_GOLDEN, *LARGE_GOLDEN])
def test_a_reference_checkpoint_survives_the_way_to_our_names_and_back(name: str) -> None:
    """Same names, same memory: no weight is computed, so the round trip is bit-exact.

    Only ESC-Real-M's record of its upsampler and DySample's grid, no weights, are made again.
    """
    reference = read_golden(name).reference_state
    back = to_reference(to_ours(reference), read_golden(name).config)
    assert back.keys() == reference.keys()
    assert all(torch.equal(back[key], reference[key]) for key in reference)
    of_weights = [key for key in reference if "MetaUpsample" not in key and "init_pos" not in key]
    assert all(back[key].data_ptr() == reference[key].data_ptr() for key in of_weights)


@pytest.mark.parametrize(
    "name",
    [
        "esc_tiny_x2",
        "esc_xl_style_x2",
        "esc_fp_x2",
        "esc_real_m_dysample_x2",
        "esc_real_m_nearest_conv_x1",
        "esc_real_m3_lda_x2",
        "esc_real_m3_pa_up_x2",
        "esc_real_m3_transpose_conv_x2_unshuffle",
        "esc_rib_strong_x2",
        "esc_lte_tiny_x2.5",
    ],
)
def test_our_names_survive_the_way_to_the_reference_and_back(name: str) -> None:
    """The other direction, with the names that the network itself gives."""
    ours = ESC(read_golden(name).config).state_dict()
    back = to_ours(to_reference(ours))
    assert list(back) == list(ours)
    assert all(back[key].data_ptr() == ours[key].data_ptr() for key in ours)
    assert all(back[key].shape == ours[key].shape for key in ours)


def test_the_dtype_is_kept() -> None:
    """Conversion changes names, not values."""
    half = {k: v.half() for k, v in read_golden("esc_tiny_x2").reference_state.items()}
    assert {tensor.dtype for tensor in to_ours(half).values()} == {torch.float16}


def test_the_given_state_dict_is_left_as_it_is() -> None:
    """Also where the expanded bias is replaced on the way."""
    golden = read_golden("esc_tiny_x2")
    mobile = with_expanded_bias(golden.reference_state, golden.config.window_size)
    names = list(mobile)
    to_ours(mobile)
    assert list(mobile) == names


def test_an_unknown_name_is_refused_by_name() -> None:
    """In both directions."""
    with pytest.raises(CheckpointError, match=r"1 of 2 names .* body\.0\.weight"):
        to_ours({"proj.weight": torch.zeros(1), "body.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="surprise"):
        to_reference({"surprise": torch.zeros(1)})


def test_the_mobile_form_gives_the_bias_table_back() -> None:
    """The reference's to_mobile() stores the bias of every pair; the table is read out of it."""
    golden = read_golden("esc_tiny_x2")
    mobile = with_expanded_bias(golden.reference_state, golden.config.window_size)
    recovered, expected = to_ours(mobile), to_ours(golden.reference_state)
    assert recovered.keys() == expected.keys()
    assert all(torch.equal(recovered[key], expected[key]) for key in expected)


def test_an_expanded_bias_that_is_no_relative_bias_is_refused() -> None:
    """Pairs at the same offset must agree; the shape must be a window's."""
    with pytest.raises(CheckpointError, match="pairs at the same offset differ"):
        to_ours({"blocks.0.attn.rpe_bias": torch.arange(256.0).reshape(1, 1, 16, 16)})
    with pytest.raises(CheckpointError, match=r"\(1, heads, w\^2, w\^2\)"):
        to_ours({"blocks.0.attn.rpe_bias": torch.zeros(1, 1, 15, 15)})
