"""load_model: from a name or a file to a network."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

import escsr
from escsr.errors import CheckpointError, ConfigurationError, UnknownModelError
from escsr.model import ESC, count_parameters, variant
from escsr.weights import Provenance, save_reference_weights, save_weights, to_reference
from golden_files import (
    GOLDEN_TOLERANCE,
    LARGE_GOLDEN,
    SMALL_GOLDEN,
    Golden,
    answer,
    read_golden,
    relative_error,
    tolerance,
)


@pytest.fixture
def golden() -> Golden:
    """The smallest recording."""
    return read_golden("esc_tiny_x2")


def not_told(golden: Golden) -> dict[str, int]:
    """What must be said of a recording's file: ESC-RIB's window is in no tensor."""
    is_implicit = golden.config.position_bias == "implicit"
    return {"window_size": golden.config.window_size} if is_implicit else {}


@pytest.mark.parametrize("name", [*SMALL_GOLDEN, *LARGE_GOLDEN])
def test_a_reference_pth_answers_as_the_reference_did(tmp_path: Path, name: str) -> None:
    """Loaded as it is, with nothing said about it; params_ema is preferred to params."""
    golden = read_golden(name)
    wrong = {key: torch.zeros_like(value) for key, value in golden.reference_state.items()}
    path = tmp_path / "net_g_latest.pth"
    torch.save({"params": wrong, "params_ema": golden.reference_state}, path)
    network = escsr.load_model(path, **not_told(golden))
    assert network.config == golden.config
    assert not network.training
    with torch.inference_mode():
        assert relative_error(answer(network, golden), golden.output) <= tolerance(golden)


def assert_holds(path: Path, golden: Golden) -> None:
    """The file loads as the golden's network, bit for bit."""
    network = escsr.load_model(path)
    assert network.config == golden.config
    state = to_reference(network.state_dict())
    assert state.keys() == golden.reference_state.keys()
    assert all(torch.equal(state[key], value) for key, value in golden.reference_state.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize("section", ["params_ema", "params", "state_dict", None])
def test_a_state_dict_is_found_wherever_checkpoints_keep_it(
    tmp_path: Path, golden: Golden, section: str | None, suffix: str
) -> None:
    """In a section, among other things, or bare."""
    state = golden.reference_state
    path = tmp_path / f"checkpoint{suffix}"
    torch.save({section: state, "iter": 500, "epoch": 3} if section else state, path)
    assert_holds(path, golden)


def test_the_old_pickle_format_of_pytorch_loads(tmp_path: Path, golden: Golden) -> None:
    """From before 1.6; it cannot be mapped into memory."""
    path = tmp_path / "old.pth"
    torch.save({"params": golden.reference_state}, path, _use_new_zipfile_serialization=False)
    assert_holds(path, golden)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, golden: Golden, prefix: str) -> None:
    """DistributedDataParallel and torch.compile put theirs before every name."""
    path = tmp_path / "wrapped.pth"
    torch.save({"params": {prefix + k: v for k, v in golden.reference_state.items()}}, path)
    assert_holds(path, golden)


def test_safetensors_with_reference_names_load_whatever_the_suffix(
    tmp_path: Path, golden: Golden
) -> None:
    """The content tells the kind of file, not its name."""
    for name in ("reference.safetensors", "misnamed.pth"):
        path = tmp_path / name
        safetensors.torch.save_file(golden.reference_state, path)
        assert_holds(path, golden)


def test_half_precision_checkpoints_are_float32_when_loaded(tmp_path: Path, golden: Golden) -> None:
    """float16, bfloat16 and float64 alike."""
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        path = tmp_path / "cast.pth"
        torch.save({k: v.to(dtype) for k, v in golden.reference_state.items()}, path)
        parameters = escsr.load_model(path).parameters()
        assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_loading_a_converted_checkpoint_averages_harmlessly_again(
    tmp_path: Path, golden: Golden
) -> None:
    """The reference's convert() stores the averaged large kernel; averaging is idempotent."""
    from escsr.model.convolutional_attention import average_over_symmetries

    state = dict(golden.reference_state)
    state["plk_filter"] = average_over_symmetries(state["plk_filter"])
    path = tmp_path / "converted.pth"
    torch.save({"params": state}, path)
    with torch.inference_mode():
        output = escsr.load_model(path)(golden.input)
    assert relative_error(output, golden.output) <= GOLDEN_TOLERANCE


@pytest.mark.parametrize(
    ("name", "scale", "millions"),
    [
        ("esc", 2, 0.946728),
        ("esc", 3, 0.955383),
        ("esc", 4, 0.967500),
        ("esc-light", 2, 0.603600),
        ("esc-light", 3, 0.612255),
        ("esc-light", 4, 0.624372),
        ("esc-fp", 2, 0.523675),
        ("esc-fp", 3, 0.530170),
        ("esc-fp", 4, 0.539263),
        ("esc-xl", 2, 12.456),
    ],
)
def test_a_variant_survives_the_way_through_a_reference_file(
    tmp_path: Path, name: str, scale: int, millions: float
) -> None:
    """Written by the reference's names, it is recognised, bit-exact, and has the published size."""
    config = variant(name, scale=scale)
    network = ESC(config)
    path = tmp_path / "reference.pth"
    save_reference_weights(path, network)
    loaded = escsr.load_model(path)
    assert loaded.config == config
    # ESC-XL is published in millions with three decimals, the others exactly.
    digits = 3 if name == "esc-xl" else 6
    assert round(count_parameters(loaded) / 1e6, digits) == millions
    before = network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in loaded.state_dict().items())


def test_another_scale_than_the_files_is_an_error_that_names_the_conversion(
    our_file: Path,
) -> None:
    """Never a silent conversion."""
    with pytest.raises(CheckpointError, match=r"x2 network, and x4 .*convert_scale"):
        escsr.load_model(our_file, scale=4)
    assert escsr.load_model(our_file, scale=2).scale == 2


@pytest.mark.parametrize("scale", [0, -2, 65, 2.5, "4", True])
def test_a_scale_that_cannot_be_is_refused(our_file: Path, scale: object) -> None:
    """Before the file is read; the message points at the Upscaler for other factors."""
    with pytest.raises(ConfigurationError, match=r"integer from 1 to 64.*Upscaler"):
        escsr.load_model(our_file, scale=scale)  # type: ignore[arg-type]


def test_the_attention_backend_can_be_chosen(our_file: Path) -> None:
    """Both give the same answer to float32's rounding."""
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        naive = escsr.load_model(our_file, attention_backend="naive")(image)
        assert relative_error(escsr.load_model(our_file)(image), naive) <= GOLDEN_TOLERANCE


def test_only_what_a_file_does_not_tell_can_be_overridden(
    tmp_path: Path, our_file: Path, golden: Golden
) -> None:
    """image_skip of a reference file can; sizes, and anything our header says, cannot."""
    path = tmp_path / "reference.pth"
    torch.save(golden.reference_state, path)
    assert escsr.load_model(path, image_skip="bicubic").config.image_skip == "bicubic"
    with pytest.raises(ConfigurationError, match="dim was asked to be 64"):
        escsr.load_model(path, dim=64)
    with pytest.raises(ConfigurationError, match="image_skip was asked"):
        escsr.load_model(our_file, image_skip="bicubic")
    with pytest.raises(ConfigurationError, match="Unknown option 'windows'"):
        escsr.load_model(path, windows=8)
    with pytest.raises(ConfigurationError, match="allowed are nearest, bicubic"):
        escsr.load_model(path, image_skip="lanczos")


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path: Path, golden: Golden) -> None:
    """By the names of the file, so that they can be looked for in it."""
    state = dict(golden.reference_state)
    del state["blocks.1.ln_out.bias"]
    state["blocks.1.attn.surprise"] = torch.zeros(1)
    state["last.weight"] = torch.zeros(32, 16, 3, 3)
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        escsr.load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "1 missing: blocks.1.ln_out.bias" in message
    assert "1 left over: blocks.1.attn.surprise" in message
    assert "last.weight is 32x16x3x3 instead of 32x32x3x3" in message


def test_weights_that_hold_nan_or_integers_are_refused(tmp_path: Path, golden: Golden) -> None:
    """A run that diverged, and a quantised checkpoint."""
    path = tmp_path / "bad.pth"
    bad = torch.full_like(golden.reference_state["last.bias"], float("nan"))
    for tensor, words in ((bad, "NaN or Inf"), (torch.zeros(32, dtype=torch.int8), "int8")):
        torch.save({**golden.reference_state, "last.bias": tensor}, path)
        with pytest.raises(CheckpointError, match=words):
            escsr.load_model(path)


@pytest.fixture
def box(tmp_path: Path, provenance: Provenance) -> Path:
    """A folder of bundled weights: esc-tiny at x2 and x4."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    for scale in (2, 4):
        network = ESC(variant("esc-tiny", scale=scale))
        save_weights(
            folder / f"esc-tiny-x{scale}.safetensors",
            network,
            provenance=provenance,
            dtype=torch.float16,
        )
    return folder


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("esc-tiny", None, 4),
        ("esc-tiny", 2, 2),
        ("ESC-Tiny", 4, 4),
        ("esc_tiny", 4, 4),
        (" esc tiny ", 4, 4),
        ("esc-tiny-x2", None, 2),
        ("ESC_TINY_X2", 2, 2),
    ],
)
def test_names_are_understood_as_people_write_them(
    box: Path, name: str, scale: int | None, expected: int
) -> None:
    """Case, underscores and the scale behind the name; x4 where nothing is said."""
    assert escsr.load_model(name, scale=scale, bundled_folder=box).scale == expected


def test_contradicting_scales_are_refused(box: Path) -> None:
    """One in the name and another beside it."""
    with pytest.raises(ConfigurationError, match="says x2 and scale says 4"):
        escsr.load_model("esc-tiny-x2", scale=4, bundled_folder=box)


def test_a_scale_that_is_not_in_the_box_lists_those_that_are(box: Path) -> None:
    """And says what to do."""
    with pytest.raises(CheckpointError, match=r"at x8; in the box are x2, x4\. Take one"):
        escsr.load_model("esc-tiny", scale=8, bundled_folder=box)


def test_a_variant_without_weights_asks_for_a_path(box: Path) -> None:
    """The name is right, the weights are not shipped."""
    with pytest.raises(CheckpointError, match=r"esc-xl is a known network.*Give the path"):
        escsr.load_model("esc-xl", bundled_folder=box)


def test_an_unknown_name_gets_the_nearest(box: Path) -> None:
    """As do names with a scale behind them."""
    for name in ("esc-tinny", "esc-tinny-x4"):
        with pytest.raises(UnknownModelError, match=r"'esc-tinny'\. Did you mean esc-tiny"):
            escsr.load_model(name, bundled_folder=box)


def test_a_file_is_found_without_a_known_suffix(
    our_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare file name works; a model's name goes before a file of that name, ./ behind it."""
    monkeypatch.chdir(our_file.parent)
    our_file.rename("esc-tiny")
    (our_file.parent / "weights").write_bytes(Path("esc-tiny").read_bytes())
    assert escsr.load_model("weights").scale == 2
    assert escsr.load_model("./esc-tiny").config.dim == 16
    with pytest.raises(CheckpointError, match="in the box"):
        escsr.load_model("esc-tiny", bundled_folder=our_file.parent)


def test_the_random_state_is_left_alone(our_file: Path) -> None:
    """Loading draws no initial weights: a seeded program stays reproducible."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    escsr.load_model(our_file)
    assert torch.equal(torch.rand(4), expected)


def test_a_loaded_network_can_be_trained_and_copied(our_file: Path) -> None:
    """It is an ordinary module: gradients, deepcopy, another dtype."""
    from copy import deepcopy

    network = deepcopy(escsr.load_model(our_file)).train()
    network(torch.rand(1, 3, 8, 8)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.to(torch.bfloat16)(torch.rand(1, 3, 8, 8).bfloat16()).dtype == torch.bfloat16
