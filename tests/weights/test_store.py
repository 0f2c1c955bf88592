"""Our own file of weights."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from escsr.errors import CheckpointError, ConfigurationError
from escsr.model import ESC, ESCConfig
from escsr.version import __version__
from escsr.weights import Provenance, load_model, load_weights, read_header, save_weights
from escsr.weights.header import hash_tensors


def rewrite(path: Path, *, header: dict[str, str] | None = None, **tensors: torch.Tensor) -> None:
    """Change a file's header or tensors, as an accident would."""
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **(header or {})}
        stored = {name: file.get_tensor(name).clone() for name in file.keys()}
    safetensors.torch.save_file({**stored, **tensors}, path, metadata)


def test_a_network_is_read_as_it_was_written(our_file: Path, small_network: ESC) -> None:
    """Every tensor bit for bit, the configuration, evaluation mode, float32."""
    loaded = load_weights(our_file)
    assert loaded.config == small_network.config
    assert not loaded.training
    before = small_network.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


def test_the_header_says_everything(our_file: Path, provenance: Provenance) -> None:
    """Licence, data, recipe, date, quality, hash and version come back, without the tensors."""
    header = read_header(our_file)
    assert header.provenance == provenance
    assert header.package_version == __version__
    with safe_open(our_file, "pt") as file:
        names = list(file.keys())
        assert header.sha256 == hash_tensors({name: file.get_tensor(name) for name in names})
        assert file.metadata()["escsr.format"] == "1"
        assert file.metadata()["escsr.scale"] == "2"


def test_half_precision_halves_the_file_and_is_float32_when_loaded(
    tmp_path: Path, our_file: Path, small_network: ESC, provenance: Provenance
) -> None:
    """The values are those of float16, in float32."""
    path = tmp_path / "half.safetensors"
    save_weights(path, small_network, provenance=provenance, dtype=torch.float16)
    loaded = load_weights(path)
    for name, tensor in small_network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    tensor_bytes = 2 * sum(p.numel() for p in small_network.parameters())
    assert our_file.stat().st_size - path.stat().st_size >= tensor_bytes


def test_a_loaded_network_does_not_hang_on_its_file(our_file: Path) -> None:
    """The file may be overwritten or deleted afterwards."""
    loaded = load_weights(our_file)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    our_file.write_bytes(b"\0" * our_file.stat().st_size)
    our_file.unlink()
    assert all(torch.equal(loaded.state_dict()[name], before[name]) for name in before)


def test_a_changed_tensor_is_noticed(our_file: Path) -> None:
    """One value of one bias: the hash differs, and the message says what to do."""
    name = "shallow.bias"
    with safe_open(our_file, "pt") as file:
        changed = file.get_tensor(name).clone()
    changed[0] += 1
    rewrite(our_file, **{name: changed})
    with pytest.raises(CheckpointError, match="truncated or was changed"):
        load_model(our_file)
    with pytest.raises(CheckpointError, match="truncated or was changed"):
        load_weights(our_file)


def test_the_hash_tells_names_dtypes_and_shapes_apart() -> None:
    """Equal bytes under another name, as another dtype or in another shape are another network."""
    states = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(8, dtype=torch.float16)},
        {"a": torch.zeros(2), "b": torch.zeros(2)},
    ]
    assert len({hash_tensors(state) for state in states}) == len(states)
    assert hash_tensors({"a": torch.ones(2), "b": torch.zeros(2)}) == hash_tensors(
        {"b": torch.zeros(2), "a": torch.ones(2)}
    )


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("format", "2", "format version 2.*pip install --upgrade"),
        ("config", "{", "header .* is damaged"),
        ("config", '{"dims": 16}', "header .* is damaged"),
        ("config", '{"expansion": Infinity}', "header .* is damaged"),
        ("quality", "[]", "header .* is damaged"),
        ("date", "yesterday", "header .* is damaged"),
        ("licence", "", "header .* is damaged"),
    ],
)
def test_a_damaged_header_is_refused(our_file: Path, entry: str, value: str, words: str) -> None:
    """A later version, broken JSON, an unknown field, a missing licence."""
    rewrite(our_file, header={f"escsr.{entry}": value})
    with pytest.raises(CheckpointError, match=words):
        read_header(our_file)


def test_a_header_that_contradicts_its_tensors_is_refused(
    our_file: Path, small_config: ESCConfig
) -> None:
    """Also one that asks for an absurd network, which is not even begun to be built."""
    from json import dumps

    for field, value in (("num_blocks", 10**12), ("dim", 32), ("expansion", 1e200)):
        rewrite(our_file, header={"escsr.config": dumps({**small_config.to_dict(), field: value})})
        with pytest.raises(CheckpointError, match="the tensors say"):
            load_model(our_file)


def test_a_file_without_our_header_is_sent_to_load_model(
    tmp_path: Path, small_network: ESC
) -> None:
    """load_weights reads ours and nothing else; load_model recognises our names alone too."""
    path = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(small_network.state_dict(), path)
    for read in (load_weights, read_header):
        with pytest.raises(CheckpointError, match=r"escsr\.load_model"):
            read(path)
    assert load_model(path).config == small_network.config


def test_nothing_is_left_where_writing_fails(
    tmp_path: Path, small_network: ESC, provenance: Provenance
) -> None:
    """A target that is a folder: an error, and no partial file beside it."""
    target = tmp_path / "taken.safetensors"
    target.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(target, small_network, provenance=provenance)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(tmp_path / "no" / "w.safetensors", small_network, provenance=provenance)
    assert os.listdir(tmp_path) == ["taken.safetensors"]  # noqa: PTH208 - hidden files too


def test_an_old_file_is_replaced_whole(
    our_file: Path, small_network: ESC, provenance: Provenance
) -> None:
    """Only the new content is there, readable as any file is."""
    save_weights(our_file, small_network, provenance=replace(provenance, licence="MIT"))
    assert read_header(our_file).provenance.licence == "MIT"
    assert [path.name for path in our_file.parent.iterdir()] == [our_file.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(our_file.stat().st_mode) == 0o666 & ~umask


def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, small_network: ESC, provenance: Provenance
) -> None:
    """Another dtype, another suffix, NaN, and values that float16 cannot hold."""
    path = tmp_path / "w.safetensors"
    with pytest.raises(ConfigurationError, match=r"torch\.int8"):
        save_weights(path, small_network, provenance=provenance, dtype=torch.int8)
    with pytest.raises(ConfigurationError, match=r"\.safetensors"):
        save_weights(tmp_path / "w.pth", small_network, provenance=provenance)
    bias = small_network.shallow.bias
    assert bias is not None
    with torch.no_grad():
        bias[0] = 1e6
    with pytest.raises(CheckpointError, match=r"shallow\.bias .* float16"):
        save_weights(path, small_network, provenance=provenance, dtype=torch.float16)
    with torch.no_grad():
        bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or Inf"):
        save_weights(path, small_network, provenance=provenance)
    assert not path.exists()


def test_weights_without_a_licence_are_no_weights() -> None:
    """Nobody may use what does not state its licence, its data and its date."""
    for name in ("licence", "training_data"):
        values = {"licence": "MIT", "training_data": "photographs", name: "  "}
        with pytest.raises(ConfigurationError, match=name):
            Provenance(date="2025-11-20", **values)
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        Provenance(licence="MIT", training_data="photographs", date="20 November")
