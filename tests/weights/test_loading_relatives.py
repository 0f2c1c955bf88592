"""Checkpoints of every class: recognised, loaded, described, stored."""

from pathlib import Path

import pytest
import torch

from escsr.errors import CheckpointError, ConfigurationError
from escsr.model import ESC, ESCConfig
from escsr.model.convolutional_attention import average_over_symmetries
from escsr.model.position_bias import expand_bias
from escsr.weights import (
    Provenance,
    inspect_checkpoint,
    load_model,
    save_reference_weights,
    save_weights,
)
from escsr.weights.arrays import as_tensor
from escsr.weights.checkpoint import open_checkpoint
from escsr.weights.checkpoint_file import read_checkpoint
from golden_files import (
    SMALL_GOLDEN,
    Golden,
    answer,
    read_golden,
    relative_error,
    tolerance,
)

RIB, LTE = "esc_rib_strong_x2", "esc_lte_tiny_x2.5"


def reference_file(folder: Path, golden: Golden) -> Path:
    """A golden file's weights as the reference's training code saves them."""
    path = folder / "net_g_latest.pth"
    torch.save({"params_ema": golden.reference_state}, path)
    return path


def assert_answers(network: ESC, golden: Golden) -> None:
    """As the reference did."""
    with torch.inference_mode():
        assert relative_error(answer(network, golden), golden.output) <= tolerance(golden)


def test_esc_ribs_window_is_64_unless_told(tmp_path: Path) -> None:
    """The golden file has 16; told, its network answers as the reference did."""
    golden = read_golden(RIB)
    path = reference_file(tmp_path, golden)
    assert load_model(path).config.window_size == 64
    network = load_model(path, window_size=16)
    assert network.config == golden.config
    assert_answers(network, golden)


def test_an_assumed_window_is_shown_as_such(tmp_path: Path) -> None:
    """Until it is told, or a header tells it."""
    path = reference_file(tmp_path, read_golden(RIB))
    report = inspect_checkpoint(path)
    assert (report.assumed, report.config.window_size) == (("window_size",), 64)
    assert report.to_dict()["assumed"] == ["window_size"]
    assert open_checkpoint(path, window_size=16).assumed == ()
    ours = tmp_path / "ours.safetensors"
    save_weights(ours, load_model(path, window_size=16), provenance=some_provenance())
    assert (inspect_checkpoint(ours).assumed, load_model(ours).config.window_size) == ((), 16)


def some_provenance() -> Provenance:
    """What must be said."""
    return Provenance(licence="MIT", training_data="none", date="2025-11-20")


@pytest.mark.parametrize("name", [name for name in SMALL_GOLDEN if name != RIB])
def test_a_window_that_a_file_tells_cannot_be_another(tmp_path: Path, name: str) -> None:
    """Its table of relative positions has the shape of one window alone."""
    golden = read_golden(name)
    path = reference_file(tmp_path, golden)
    with pytest.raises(ConfigurationError, match="window_size was asked to be 8, but the file"):
        load_model(path, window_size=8)
    assert open_checkpoint(path, window_size=golden.config.window_size).config == golden.config


def test_the_window_in_our_file_of_esc_rib_cannot_be_another(tmp_path: Path) -> None:
    """The header tells it, though no tensor does."""
    path = tmp_path / "rib.safetensors"
    save_weights(path, ESC(read_golden(RIB).config), provenance=some_provenance())
    with pytest.raises(ConfigurationError, match="window_size was asked to be 64"):
        load_model(path, window_size=64)


@pytest.mark.parametrize("name", SMALL_GOLDEN)
def test_our_file_of_any_class_gives_the_same_network_back(tmp_path: Path, name: str) -> None:
    """Bit for bit, with its whole configuration, whatever its tensors alone would tell."""
    golden = read_golden(name)
    network = ESC(golden.config).eval()
    path = tmp_path / "ours.safetensors"
    save_weights(path, network, provenance=some_provenance())
    loaded, state = load_model(path), network.state_dict()
    assert loaded.config == golden.config
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_our_file_tells_a_dysamples_factor(tmp_path: Path) -> None:
    """x3 with 4 groups has 72 offsets, which could be x2 with 9 or x1 with 36."""
    config = ESCConfig(
        **{**read_golden("esc_real_m_dysample_x4").config.to_dict(), "scale": 3, "num_blocks": 1}
    )
    path = tmp_path / "ours.safetensors"
    save_weights(path, ESC(config), provenance=some_provenance())
    assert load_model(path).config == inspect_checkpoint(path).config == config


def converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict after the reference's convert(): the large kernel is averaged."""
    return {
        name: average_over_symmetries(tensor) if name.endswith("plk_filter") else tensor
        for name, tensor in state.items()
    }


def mobile(state: dict[str, torch.Tensor], window_size: int) -> dict[str, torch.Tensor]:
    """The state dict after the reference's to_mobile(): the bias of every pair of tokens."""
    table, expanded = ".attn.relative_position_bias", ".attn.rpe_bias"
    return {
        name.replace(table, expanded): (
            expand_bias(tensor, window_size)[None] if name.endswith(table) else tensor
        )
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("form", ["converted", "mobile", "both"])
@pytest.mark.parametrize(
    "name",
    ["esc_real_dysample_x4", "esc_real_m_pixelshuffle_x3", "esc_real_m_dysample_x2", LTE],
)
def test_files_after_convert_load_whatever_their_class(
    tmp_path: Path, name: str, form: str
) -> None:
    """Averaging twice is harmless, and the table is read out of the mobile form."""
    golden = read_golden(name)
    state = golden.reference_state
    state = state if form == "mobile" else converted(state)
    state = state if form == "converted" else mobile(state, golden.config.window_size)
    path = tmp_path / "converted.pth"
    torch.save({"params": state}, path)
    network = load_model(path)
    assert network.config == golden.config
    assert_answers(network, golden)


@pytest.mark.parametrize(
    "name",
    [
        *("esc_real_dysample_x4", "esc_real_m_dysample_x2", "esc_real_m_nearest_conv_x1"),
        *("esc_real_m_nearest_conv_x3", "esc_real_m_pixelshuffle_x2"),
        "esc_real_m_pixelshuffledirect_x3",
        *("esc_real_m3_lda_x2", "esc_real_m3_pa_up_x2", "esc_real_m3_transpose_conv_x3"),
    ],
)
def test_what_the_reference_stores_beside_weights_is_written(tmp_path: Path, name: str) -> None:
    """ESC-Real-M's record of its upsampler and DySample's grid, as its own files hold them."""
    golden = read_golden(name)
    network = load_model(reference_file(tmp_path, golden))
    path = tmp_path / "reference.pth"
    save_reference_weights(path, network)
    written = read_checkpoint(path).tensors
    assert written.keys() == golden.reference_state.keys()
    for key in (key for key in written if "MetaUpsample" in key or "init_pos" in key):
        assert as_tensor(written[key]).dtype == golden.reference_state[key].dtype
        assert torch.equal(as_tensor(written[key]), golden.reference_state[key])


def test_esc_lte_takes_any_scale_as_its_own(tmp_path: Path) -> None:
    """The factor of a call without a size; by the reference's file and by ours."""
    golden = read_golden(LTE)
    reference, ours = reference_file(tmp_path, golden), tmp_path / "lte.safetensors"
    save_weights(ours, load_model(reference), provenance=some_provenance())
    for path in (reference, ours):
        network = load_model(path, scale=2)
        assert network.scale == 2
        assert_answers(network, golden)
        with torch.inference_mode():
            assert network(golden.input).shape[-2:] == (48, 56)


def test_a_stack_of_one_step_enlarges_by_3_unless_told(tmp_path: Path) -> None:
    """x2 and x3 of nearest and convolution have the same tensors; the published one is x3."""
    fields = {"num_blocks": 1, "num_conv_layers": 1, "image_skip": "none", "feature_skip": True}
    config = ESCConfig(scale=2, dim=16, pdim=4, upsampler="nearest+conv", **fields)
    path = tmp_path / "bare.pth"
    torch.save(ESC(config).state_dict(), path)
    assert inspect_checkpoint(path).assumed == ("scale",)
    assert load_model(path).scale == 3
    assert load_model(path, scale=2).config.scale == 2


@pytest.mark.parametrize(("kind", "taken", "possible"), [("lda", 4, (2, 3, 5)), ("pa_up", 2, (3,))])
def test_without_a_record_the_usual_factor_is_taken_unless_told(
    tmp_path: Path, kind: str, taken: int, possible: tuple[int, ...]
) -> None:
    """No tensor of "lda" tells its factor, and one step of "pa_up" may be x2 or x3."""
    state = dict(read_golden(f"esc_real_m3_{kind}_x2").reference_state)
    del state["to_img.MetaUpsample"]
    path = tmp_path / "bare.pth"
    torch.save(state, path)
    assert inspect_checkpoint(path).assumed == ("scale",)
    assert load_model(path).scale == taken
    for scale in possible:
        assert load_model(path, scale=scale).config.scale == scale


CLASSES = {
    "esc_tiny_x2": ("pixelshuffledirect", 2),
    "esc_xl_style_x2": ("pixelshuffledirect", 2),
    "esc_real_dysample_x4": ("dysample", 4),
    "esc_real_m_dysample_x2": ("dysample", 2),
    "esc_real_m_nearest_conv_x1": ("conv+nearest", 1),
    "esc_real_m_pixelshuffle_x3": ("pixelshuffle", 3),
    "esc_real_m_pixelshuffledirect_x3": ("pixelshuffledirect", 3),
    "esc_real_m3_lda_x2": ("lda", 2),
    "esc_real_m3_pa_up_x2": ("pa_up", 2),
    "esc_real_m3_transpose_conv_x2_unshuffle": ("transpose+conv", 2),
    "esc_real_m3_transpose_conv_x4": ("transpose+conv", 4),
    RIB: ("pixelshuffledirect", 2),
    LTE: ("lte", 4),
}


def test_inspection_is_right_on_a_folder_of_every_class_and_of_others(tmp_path: Path) -> None:
    """Each class by its upsampler and scale; five files that are none are refused, one by one."""
    for name in CLASSES:
        torch.save({"params": read_golden(name).reference_state}, tmp_path / f"{name}.pth")
    photograph, letter, rival, cut, empty = (tmp_path / f"other-{i}.pth" for i in range(5))
    photograph.write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    letter.write_text("a letter")
    torch.save({"params": {"conv_first.weight": torch.zeros(64, 3, 3, 3)}}, rival)
    cut.write_bytes((tmp_path / "esc_tiny_x2.pth").read_bytes()[:5000])
    empty.touch()
    found = {}
    for path in sorted(tmp_path.iterdir()):
        try:
            report = inspect_checkpoint(path)
        except CheckpointError:
            assert path.name.startswith("other-")
        else:
            found[path.stem] = (report.config.upsampler, report.scale)
    assert found == CLASSES
