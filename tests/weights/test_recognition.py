"""Hyper-parameters from names and shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.errors import CheckpointError
from escsr.family import VARIANTS, ESCConfig, variant
from escsr.family.variants import variant_scales
from escsr.family.weight_shapes import weight_shapes
from escsr.weights import infer_config, open_network, to_reference
from escsr.weights.recognition import recognise
from golden_files import LARGE_GOLDEN, SMALL_GOLDEN, read_golden_arrays


def empty_state(config: ESCConfig) -> dict[str, Any]:
    """Arrays of the names and shapes of a network, which take no memory."""
    nothing = np.float32(0)
    return {name: np.broadcast_to(nothing, shape) for name, shape in weight_shapes(config).items()}


@pytest.mark.parametrize("name", [*SMALL_GOLDEN, *LARGE_GOLDEN])
def test_every_hyper_parameter_of_a_reference_checkpoint_is_found(name: str) -> None:
    """The recorded arguments are found again from the weights alone."""
    golden = read_golden_arrays(name)
    found = recognise(golden.reference_state)
    told = {name: getattr(golden.config, name) for name in found.assumed}
    assert replace(found.config, **told) == golden.config


def test_only_what_no_tensor_tells_is_assumed() -> None:
    """ESC-RIB's window, ESC+LTE's factor, and the factor of ESC-Real's DySample."""
    assumed = {
        name: recognise(read_golden_arrays(name).reference_state).assumed
        for name in SMALL_GOLDEN
        if recognise(read_golden_arrays(name).reference_state).assumed
    }
    assert assumed == {
        "esc_rib_strong_x2": ("window_size",),
        "esc_lte_tiny_x2.5": ("scale",),
        "esc_real_dysample_x4": ("scale", "dysample_groups"),
    }


def unused_fields(config: ESCConfig) -> dict[str, int]:
    """What a kind of upsampler has no use for, no file tells."""
    names = {
        "dysample": (),
        **dict.fromkeys(("pixelshuffle", "lda", "pa_up"), ("dysample_groups",)),
    }.get(config.upsampler, ("upsampler_dim", "dysample_groups"))
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(
    ("name", "scale"),
    [(name, scale) for name in VARIANTS for scale in sorted({*variant_scales(name), 4})],
)
def test_every_variant_is_recognised_at_every_scale(name: str, scale: int) -> None:
    """By our names, with a header, and by the reference's; what neither tells is assumed."""
    config = variant(name, scale=scale)
    state = empty_state(config)
    for named, stated in ((state, config), (to_reference(state, config), None)):
        found = recognise(named, stated=stated)
        told = {name: getattr(config, name) for name in found.assumed}
        assert replace(found.config, **{**told, **unused_fields(config)}) == config


@given(
    scale=st.integers(1, 6),
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 9),
    pdim_share=st.floats(0, 1),
    window_size=st.integers(1, 9),
    large_kernel_size=st.sampled_from([3, 5, 13]),
    num_conv_layers=st.integers(0, 2),
    norms=st.tuples(st.booleans(), st.booleans()),
    decomposed=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_network_is_recognised(
    scale: int,
    num_heads: int,
    head_dim: int,
    pdim_share: float,
    window_size: int,
    large_kernel_size: int,
    num_conv_layers: int,
    norms: tuple[bool, bool],
    decomposed: bool,
) -> None:
    """Whatever the sizes; a norm inside ConvAttn layers needs such a layer to be seen."""
    dim = num_heads * head_dim
    config = ESCConfig(
        scale=scale,
        dim=dim,
        pdim=max(1, int(pdim_share * dim)),
        num_blocks=1,
        num_conv_layers=num_conv_layers,
        window_size=window_size,
        num_heads=num_heads,
        large_kernel_size=large_kernel_size,
        first_expansion=1.25,
        norm_in_conv_layers=norms[0] and num_conv_layers > 0,
        norm_before_last_conv=norms[1],
        large_kernel="decomposed" if decomposed else "dense",
        image_skip="bicubic" if decomposed else "nearest",
    )
    assert infer_config(to_reference(empty_state(config))) == config


@given(dim=st.integers(1, 200), hidden=st.integers(1, 600))
@settings(max_examples=50, deadline=None)
def test_an_expansion_gives_back_the_width_it_was_read_from(dim: int, hidden: int) -> None:
    """Also where no published factor fits and the quotient rounds down."""
    config = ESCConfig(scale=1, dim=dim, pdim=1, num_blocks=1, num_conv_layers=1, num_heads=1)
    state = empty_state(config)
    for name in ("blocks.0", "blocks.0.conv_layers.0"):
        state[f"{name}.feed_forward.expand.weight"] = np.zeros((hidden, dim, 1, 1), np.float32)
    inferred = infer_config(state)
    assert int(inferred.expansion * dim) == int(inferred.first_expansion * dim) == hidden


def test_a_foreign_state_dict_is_described() -> None:
    """What was found, how many, and what an ESC would need."""
    state = {f"body.{i}.weight": np.zeros((64, 3, 3, 3), np.float32) for i in range(5)}
    with pytest.raises(CheckpointError) as caught:
        infer_config(state)
    message = str(caught.value)
    assert "5 tensors were found (body.0.weight 64x3x3x3, " in message
    assert "missing are proj.weight, blocks.0.proj.proj.weight, last.weight and more" in message


def test_a_record_that_contradicts_the_tensors_is_refused() -> None:
    """The reference overwrites ESC-Real-M's stored kind; ours compares it."""
    state = dict(read_golden_arrays("esc_real_m_pixelshuffle_x2").reference_state)
    state["to_img.MetaUpsample"] = np.array([2, 3, 4, 32, 3, 48, 4], np.uint8)
    with pytest.raises(CheckpointError, match=r"says conv\+nearest by 4 .* pixelshuffle by 4"):
        recognise(state)
    for record in ([2, 9], [3, 8, 4, 32, 3, 48, 4]):
        state["to_img.MetaUpsample"] = np.array(record, np.uint8)
        with pytest.raises(CheckpointError, match=r"seven numbers, the second below 8"):
            recognise(state)


@pytest.mark.parametrize(
    ("name", "record", "says"),
    [
        ("esc_real_m3_transpose_conv_x4", [3, 6, 4, 32, 3, 64, 4], "says lda by 4"),
        ("esc_real_m3_transpose_conv_x4", [3, 5, 2, 32, 3, 64, 4], "says transpose.conv by 2"),
        ("esc_real_m3_lda_x2", [3, 6, 2, 32, 3, 64, 4], "with 64 channels, the tensors say lda"),
        ("esc_real_m3_pa_up_x2", [3, 3, 2, 32, 3, 24, 4], r"says conv\+nearest by 2"),
    ],
)
def test_a_record_of_version_3_that_contradicts_is_refused(
    name: str, record: list[int], says: str
) -> None:
    """traiNNer-redux overwrites it, too."""
    state = dict(read_golden_arrays(name).reference_state)
    state["to_img.MetaUpsample"] = np.array(record, np.uint8)
    with pytest.raises(CheckpointError, match=says):
        recognise(state)


def test_a_record_of_version_3_may_name_the_first_five_kinds() -> None:
    """traiNNer-redux writes it whatever the kind; the tensors are the same."""
    golden = read_golden_arrays("esc_real_m_pixelshuffle_x2")
    state = {**golden.reference_state}
    state["to_img.MetaUpsample"] = state["to_img.MetaUpsample"].copy()
    state["to_img.MetaUpsample"][0] = 3
    assert recognise(state).config == golden.config


def test_one_convolution_is_recognised_whatever_kind_was_asked_for() -> None:
    """At x1 traiNNer-redux makes it of every kind, and records the kind."""
    config = variant("esc-real-m-conv", scale=1, num_blocks=1, num_conv_layers=1)
    state = to_reference(empty_state(config))
    for kind in range(8):
        record = np.array([3, kind, 1, 64, 3, 48, 4], np.uint8)
        assert recognise({**state, "to_img.MetaUpsample": record}).config == config


def test_a_dysample_whose_factor_nothing_tells_lists_the_candidates() -> None:
    """Its offsets are 2 * groups * scale^2 channels: more than one pair of numbers fits."""
    state = dict(read_golden_arrays("esc_real_dysample_x4").reference_state)
    state["to_img.offset.weight"] = np.zeros((72, 32, 1, 1), np.float32)
    with pytest.raises(CheckpointError, match="x1 with 36 groups, x2 with 9 groups, x3 with 4"):
        recognise(state)


def test_the_window_of_esc_rib_can_be_said() -> None:
    """No tensor tells it; the published 64 is assumed unless told."""
    golden = read_golden_arrays("esc_rib_strong_x2")
    assert recognise(golden.reference_state).config.window_size == 64


@pytest.mark.parametrize(
    ("tensor", "shape", "words"),
    [
        ("to_img.weight", (13, 32, 3, 3), "3 \\* scale"),
        ("to_img.weight", (15, 32, 3, 3), "square number"),
        ("to_img.weight", (12,), "4 dimensions"),
        ("blocks.0.attn.relative_position_bias", (4, 960), "square number"),
        ("blocks.0.attn.relative_position_bias", (3, 961), "num_heads"),
        ("plk_filter", (8, 8, 12, 12), "odd"),
        ("plk_filter", (0, 8, 13, 13), "none empty"),
    ],
)
def test_a_shape_that_no_esc_has_is_refused(
    tensor: str, shape: tuple[int, ...], words: str
) -> None:
    """Each with the number that cannot be."""
    state = dict(read_golden_arrays("esc_tiny_x2").reference_state)
    state[tensor] = np.zeros(shape, np.float32)
    with pytest.raises(CheckpointError, match=words):
        infer_config(state)


@pytest.mark.parametrize(
    ("name", "tensor", "shape", "words"),
    [
        ("lda_x2", "to_img.2.proj_q.weight", (6,), "4 dimensions"),
        ("lda_x2", "to_img.2.proj_q.weight", (6, 20, 1, 1), "with 24 channels, .* with 20"),
        ("pa_up_x2", "to_img.1.weight", (24,), "4 dimensions"),
        ("transpose_conv_x3", "to_img.0.weight", (), "4 dimensions"),
    ],
)
def test_a_shape_that_no_upsampler_has_is_refused(
    name: str, tensor: str, shape: tuple[int, ...], words: str
) -> None:
    """Before anything is read from it."""
    state = dict(read_golden_arrays(f"esc_real_m3_{name}").reference_state)
    state[tensor] = np.zeros(shape, np.float32)
    with pytest.raises(CheckpointError, match=words):
        recognise(state)


def test_two_rivals_are_refused_as_no_esc(data_folder: Path) -> None:
    """Real checkpoints of other networks, where they are at hand."""
    rivals = sorted((data_folder.parent / "rivals").glob("*.pth"))
    if not rivals:
        pytest.skip("there are no rivals' weights beside the folder of ESCSR_DATA")
    for path in rivals:
        with pytest.raises(CheckpointError, match="Not an ESC"):
            open_network(path)
