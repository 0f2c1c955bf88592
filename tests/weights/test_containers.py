"""Where an ESC's weights stand in a checkpoint, whatever code wrote it."""

import argparse
import collections
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.family_networks import family_network
from torch import Tensor

import escsr
from escsr.errors import CheckpointError
from escsr.model import ESC
from escsr.weights import inspect_checkpoint, to_reference

State = dict[str, Tensor]


@pytest.fixture
def state(small_network: ESC) -> State:
    """The small network's weights by the reference's names."""
    return {name: t.contiguous() for name, t in to_reference(small_network.state_dict()).items()}


@pytest.fixture
def raw(state: State) -> State:
    """Other weights of the same network."""
    return {name: torch.full_like(tensor, 0.5) for name, tensor in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    """The names with a prefix."""
    return {prefix + name: tensor for name, tensor in state.items()}


def without_dots(prefix: str, state: Mapping[str, Tensor]) -> State:
    """As LitEma registers them."""
    return {prefix + name.replace(".", ""): tensor for name, tensor in state.items()}


def assert_loads(path: Path, state: Mapping[str, Tensor]) -> None:
    """The file loads as this state, bit for bit."""
    loaded = to_reference(escsr.load_model(path).state_dict())
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def write(folder: Path, kind: str, content: Any) -> Path:
    """A file of one kind; in safetensors, sections become prefixes."""
    path = folder / {"zip": "a.pth", "old": "a.ckpt", "safetensors": "a.safetensors"}[kind]
    if kind == "safetensors":
        safetensors.torch.save_file(flat(content), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def flat(content: Mapping[str, Any], prefix: str = "") -> State:
    """The tensors of nested sections; each with memory of its own, as safetensors wants it."""
    tensors: State = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value.clone()
        elif isinstance(value, Mapping):
            tensors |= flat(value, f"{prefix}{key}.")
    return tensors


KINDS = ("zip", "old", "safetensors")

SECTIONS = (
    "params params-ema params_ema ema model_ema model net net_g netG generator network "
    "model_state_dict state_dict module weights"
).split()


@pytest.mark.parametrize("section", SECTIONS)
def test_weights_are_found_in_whatever_section(tmp_path: Path, state: State, section: str) -> None:
    """With what training code keeps beside them, in every container."""
    beside = {
        "epoch": 3,
        "iter": 500,
        "best": np.float64(31.5),
        "psnr": [30.5, 31.5],
        "random": np.random.default_rng(0).integers(0, 9, 3),
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "scheduler": None,
        "loss": {"perceptual.features.0.weight": torch.zeros(3, 3)},
    }
    for kind in KINDS:
        path = write(tmp_path, kind, {**beside, section: state})
        assert_loads(path, state)
        assert inspect_checkpoint(path).state_dict == section


PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "net_g.",
    "netG.",
    "generator.",
    "params_ema.",
    "module.net.",
    "net.module.",
    "_orig_mod.module.",
    "module.module._orig_mod.",
    "generator.module.model.net_g.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off_in_any_order(tmp_path: Path, state: State, prefix: str) -> None:
    """Bare, and in a section, beside another network's weights."""
    for kind in KINDS:
        assert_loads(write(tmp_path, kind, under(prefix, state)), state)
        beside = {"loss.weight": torch.zeros(3), "net_d.conv.weight": torch.zeros(3, 3)}
        path = write(tmp_path, kind, {"state_dict": {**beside, **under(prefix, state)}})
        assert_loads(path, state)
        assert inspect_checkpoint(path).state_dict == f"state_dict.{prefix[:-1]}"


def test_wrappers_of_parts_of_a_network_are_taken_off(tmp_path: Path, state: State) -> None:
    """torch.compile or checkpointing of single blocks puts names into the middle."""
    for wrapper in ("_orig_mod", "_checkpoint_wrapped_module", "module"):
        wrapped = {
            name.replace("blocks.0.", f"blocks.0.{wrapper}."): t for name, t in state.items()
        }
        assert_loads(write(tmp_path, "zip", wrapped), state)


AVERAGES: dict[str, Callable[[State, State], dict[str, Any]]] = {
    "params-ema": lambda ema, raw: {"params": raw, "params-ema": ema},
    "params_ema": lambda ema, raw: {"params_ema": ema, "params": raw},
    "ema": lambda ema, raw: {"model": raw, "ema": ema},
    "model_ema": lambda ema, raw: {"model_ema": under("module.", ema), "model": raw},
    "state_dict_ema": lambda ema, raw: {"state_dict": raw, "state_dict_ema": ema},
    "ema.state_dict": lambda ema, raw: {"state_dict": raw, "ema": {"state_dict": ema}},
    "ema.shadow": lambda ema, raw: {"model": raw, "ema": {"shadow": ema, "backup": raw}},
    "g_ema": lambda ema, raw: {"g": raw, "d": {"w": torch.zeros(3)}, "g_ema": ema},
    "emamodel": lambda ema, raw: {"model": raw, "emamodel": ema},
    "netG_EMA": lambda ema, raw: {"netG": raw, "netG_EMA": ema},
    "prefixes": lambda ema, raw: {"state_dict": {**under("net.", raw), **under("net_ema.", ema)}},
    "ema_pytorch": lambda ema, raw: {
        "model": raw,
        "ema": {
            **under("online_model.", raw),
            **under("ema_model.", ema),
            "initted": torch.tensor([True]),
            "step": torch.tensor([3]),
        },
    },
    "LitEma": lambda ema, raw: {
        "state_dict": {
            **under("model.", raw),
            **without_dots("model_ema.", ema),
            "model_ema.decay": torch.tensor(0.999),
            "model_ema.num_updates": torch.tensor(5),
        }
    },
    "LitEma of a module": lambda ema, raw: {
        **under("net.", raw),
        **without_dots("model_ema.net", ema),
        "model_ema.decay": torch.tensor(0.999),
    },
    "AveragedModel": lambda ema, raw: {
        "model": raw,
        "second": {"n_averaged": torch.tensor(3), **under("module.", ema)},
    },
    "callback": lambda ema, raw: {
        "state_dict": under("model.", raw),
        "callbacks": {"EMAWeightAveraging": {"ema_state_dict": under("model.", ema)}},
    },
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_weights_come_before_raw_ones(
    tmp_path: Path, state: State, raw: State, name: str
) -> None:
    """Wherever each stands; the report says which were taken and which not."""
    for kind in KINDS:
        path = write(tmp_path, kind, AVERAGES[name](state, raw))
        assert_loads(path, state)
        report = inspect_checkpoint(path)
        assert report.is_averaged
        assert report.other_state_dicts


def test_an_average_of_esc_with_lte_is_found_without_its_dots(tmp_path: Path) -> None:
    """Whose blocks are in an encoder, with a head beside it."""
    network = family_network("esc-lte-x4")
    state = dict(to_reference(network.state_dict()))
    raw = {name: tensor * 0 for name, tensor in state.items()}
    path = write(tmp_path, "zip", {**under("net.", raw), **without_dots("model_ema.net", state)})
    assert_loads(path, state)


def test_an_average_without_names_is_matched_by_order(
    tmp_path: Path, state: State, raw: State
) -> None:
    """A list of shadow parameters beside the named raw weights."""
    shadow = {"decay": 0.999, "shadow_params": list(state.values()), "collected_params": []}
    path = write(tmp_path, "zip", {"model": raw, "ema": shadow})
    assert_loads(path, state)
    assert inspect_checkpoint(path).state_dict == "ema.shadow_params"


@pytest.mark.parametrize("ema", [None, {}])
def test_an_average_that_is_not_there_is_none(tmp_path: Path, state: State, ema: Any) -> None:
    """The raw weights are taken, and are not called an average."""
    path = write(tmp_path, "zip", {"params": state, "params_ema": ema})
    assert_loads(path, state)
    assert not inspect_checkpoint(path).is_averaged


def test_what_optimisers_and_teachers_keep_is_not_taken(
    tmp_path: Path, state: State, raw: State
) -> None:
    """Though it has the weights' names."""
    for content in (
        {"optimizer": {"exp_avg": raw, "ema": raw}, "model": state},
        {"state_dict": {**under("teacher.", raw), **under("student.", state)}},
    ):
        assert_loads(write(tmp_path, "zip", content), state)


def test_counters_and_other_networks_beside_the_weights_are_left_aside(
    tmp_path: Path, state: State
) -> None:
    """thop's, BatchNorm's, a loss's, a metric's, and None; without any prefix."""
    beside = {
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "total_params": torch.tensor(1),
        "blocks.0.proj.total_ops": torch.zeros(1, dtype=torch.float64),
        "bn.num_batches_tracked": None,
        "global_counter": torch.tensor(12),
        "perceptual.vgg.0.weight": torch.zeros(3, 3),
        "net_d.blocks.weight": torch.zeros(3, 3),
        "loss_fn.weight": torch.zeros(3),
        "psnr.total": torch.tensor(0.5),
    }
    assert_loads(write(tmp_path, "zip", {"params": {**state, **beside}}), state)


def test_a_part_that_no_esc_has_is_not_left_aside(tmp_path: Path, state: State) -> None:
    """Another network would run without it, and give other images."""
    for name in ("blocks.0.extra.weight", "refine.weight", "alpha"):
        path = write(tmp_path, "zip", {"params": {**state, name: torch.zeros(3)}})
        with pytest.raises(CheckpointError, match=f"1 left over: {name}"):
            escsr.load_model(path)


def test_our_names_are_found_in_containers_too(tmp_path: Path, small_network: ESC) -> None:
    """As a training state, or code of one's own, stores them."""
    state = {name: t.contiguous() for name, t in small_network.state_dict().items()}
    for kind in KINDS:
        path = write(tmp_path, kind, {"model": under("module.", state), "epoch": 1})
        loaded = escsr.load_model(path).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_as_numpy_arrays_load(tmp_path: Path, state: State) -> None:
    """In torch.save's container, of either byte order and memory order, and in a plain pickle."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
    assert_loads(write(tmp_path, "zip", arrays), state)
    odd = {name: np.asfortranarray(array.astype(">f4")) for name, array in arrays.items()}
    assert_loads(write(tmp_path, "zip", {"params": odd}), state)
    path = tmp_path / "plain.pt"
    path.write_bytes(pickle.dumps(arrays))
    assert_loads(path, state)


def test_values_that_run_no_code_do_no_harm(tmp_path: Path, state: State) -> None:
    """Paths, sizes, sets, default dictionaries, parameters."""
    content = collections.defaultdict(list)
    content["params"] = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    content["hyper_parameters"] = {"out": tmp_path, "size": torch.Size([1]), "tags": {"a", "b"}}
    assert_loads(write(tmp_path, "zip", content), state)
    content["args"] = argparse.Namespace(lr=1)
    with pytest.raises(CheckpointError, match=r"asks for 'argparse.Namespace'"):
        escsr.load_model(write(tmp_path, "zip", content))


def test_a_checkpoint_that_was_zipped_again_loads(tmp_path: Path, state: State) -> None:
    """The file in an archive, or its own archive compressed, under a checkpoint's name."""
    path = write(tmp_path, "zip", {"params": state})
    around, packed = tmp_path / "around.pth", tmp_path / "packed.pth"
    with zipfile.ZipFile(around, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "weights/a.pth")
        archive.writestr("README.md", "how to use them")
        archive.writestr("__MACOSX/weights/._a.pth", b"\0\5\x16\7")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    for zipped in (around, packed):
        assert_loads(zipped, state)
    with zipfile.ZipFile(around, "a") as archive:
        archive.write(path, "b.pth")
    with pytest.raises(CheckpointError, match=r"ZIP archive of 2 checkpoints .*Unpack it"):
        escsr.load_model(around)


def test_a_flipped_bit_in_a_pth_is_found(tmp_path: Path, state: State) -> None:
    """By the checksum that torch.save writes and torch.load does not look at."""
    path = write(tmp_path, "zip", state)
    whole = bytearray(path.read_bytes())
    whole[whole.index(state["last.weight"].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="CRC-32"):
        escsr.load_model(path)


def test_a_file_without_checksums_loads(tmp_path: Path, state: State) -> None:
    """torch.save can be told to compute none."""
    torch.serialization.set_crc32_options(False)
    try:
        path = write(tmp_path, "zip", state)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_loads(path, state)
