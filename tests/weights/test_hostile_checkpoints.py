"""Files that ask for gigabytes, hours or code, and files that are something else."""

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.family_networks import family_network
from tests.mutation import no_more_than_10_seconds, peak_memory_bytes
from torch import Tensor

import escsr
from escsr.errors import CheckpointError
from escsr.model import ESC
from escsr.weights import Provenance, load_weights, save_weights, to_reference

NAME = "blocks.0.proj.proj.weight"


@pytest.fixture
def state(small_network: ESC) -> dict[str, Tensor]:
    """The small network's weights by the reference's names."""
    return dict(to_reference(small_network.state_dict()))


@contextmanager
def refused(path: Path, words: str) -> Generator[None]:
    """Loading the file is refused by name, and takes neither 200 MB nor 10 seconds."""
    yield
    before = peak_memory_bytes()
    with no_more_than_10_seconds(path.name), pytest.raises(CheckpointError, match=words) as caught:
        escsr.load_model(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert peak_memory_bytes() - before < 200_000_000


ODD_TENSORS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "expanded": (lambda: torch.zeros(1).expand(1 << 14, 1 << 14), "claims 268,435,456 values"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "is sparse"),
    "compressed sparse": (lambda: torch.eye(3).to_sparse_csr(), "is sparse"),
    "meta": (lambda: torch.zeros(3, device="meta"), "meta device"),
    "complex": (lambda: torch.zeros(32, 16, 1, 1, dtype=torch.complex64), "complex64"),
    "integer": (lambda: torch.zeros(32, 16, 1, 1, dtype=torch.int8), "int8"),
}


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_odd_tensors_are_named(
    tmp_path: Path, state: dict[str, Tensor], kind: str, is_new: bool
) -> None:
    """Also the one that claims more values than its storage holds, through a stride of 0."""
    make, words = ODD_TENSORS[kind]
    path = tmp_path / "odd.pth"
    with refused(path, words):
        torch.save({**state, NAME: make()}, path, _use_new_zipfile_serialization=is_new)


def test_tensors_that_share_a_storage_cannot_multiply_it(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    """A file of 4 MB, each of whose tensors is all of it."""
    path = tmp_path / "shared.pth"
    with refused(path, "its 38 tensors would take 159 MB, and at most 134 MB are read"):
        torch.save(dict.fromkeys(state, torch.zeros(1 << 20)), path)


def test_a_large_file_may_take_its_own_size(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A network of another kind, with more in it than an ESC, is recognised as no ESC."""
    path = tmp_path / "large.safetensors"
    header = entries(["features.0.weight"], [36 << 20], 36 << 22)
    with path.open("wb") as file:
        file.write(safetensors_of(header))
        file.truncate(8 + len(header) + (36 << 22))  # zeros that take no room on the disk
    with pytest.raises(CheckpointError, match="Not an ESC: 1 tensors"):
        escsr.load_model(path)


def test_windows_that_no_memory_holds_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A table of 4 MB stands for the biases of all pairs of 500 x 500 pixels."""
    path = tmp_path / "window.pth"
    with refused(path, "windows of 500 pixels; up to 128 can be run"):
        table = torch.zeros(2, 999**2)
        torch.save({**state, "blocks.0.attn.relative_position_bias": table}, path)


def test_a_storage_that_claims_more_than_its_record_is_named(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    """Its size is held against the file before memory is asked for."""
    whole, path = tmp_path / "whole.pth", tmp_path / "claims.pth"
    torch.save({NAME: torch.zeros(255)}, whole)
    with refused(path, "claims 8,589,934,588 bytes, of which the file holds"):
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.infolist():
                data = old.read(entry).replace(b"K\xff", b"J\xff\xff\xff\x7f")
                new.writestr(entry.filename, data)


def zip_of(path: Path, sizes: dict[str, int], *, pickled: bytes = b"") -> None:
    """Compressed zeros by the megabyte."""
    megabyte = bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if pickled:
            archive.writestr("a/data.pkl", pickled)
        for name, megabytes in sizes.items():
            with archive.open(name, "w") as entry:
                for _ in range(megabytes):
                    entry.write(megabyte)


def pickle_of_storages(number: int, values: int) -> bytes:
    """A state dict whose tensors have a storage of so many values each."""
    parts = [b"\x80\x02}("]
    for index in range(number):
        name, key = f"blocks.{index}.proj.proj.weight".encode(), str(index).encode()
        parts += [
            *(b"X", struct.pack("<I", len(name)), name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n",
            *(b"X", struct.pack("<I", len(key)), key, b"X\3\0\0\0cpuJ", struct.pack("<i", values)),
            *(b"tQK\0J", struct.pack("<i", values), b"\x85K\1\x85\x89}tR"),
        ]
    return b"".join((*parts, b"u."))


def test_bombs_of_zip_archives_are_refused(tmp_path: Path) -> None:
    """A pickle, a storage, many storages, and a checkpoint within that unpack to too much."""
    values = 36 << 18
    bombs: list[tuple[dict[str, int], bytes, str]] = [
        ({"a/data.pkl": 130}, b"", "data.pkl in it has 136"),
        ({"a.pth": 66}, b"", "archive around a.pth of 69 MB"),
        (
            {f"a/data/{index}": 36 for index in range(4)},
            pickle_of_storages(4, values),
            "its 4 tensors would take 151 MB",
        ),
    ]
    for number, (sizes, pickled, words) in enumerate(bombs):
        path = tmp_path / f"{number}.pth"
        with refused(path, words):
            zip_of(path, sizes, pickled=pickled)


def test_archives_of_countless_entries_are_not_listed(tmp_path: Path) -> None:
    """Their directory alone would take gigabytes."""
    path = tmp_path / "many.pth"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 100 << 20, 0, 0)
    with refused(path, "directory has 105 MB"):
        path.write_bytes(b"PK\3\4" + bytes(1 << 20) + end)


PICKLES: dict[str, tuple[bytes, str]] = {
    "lists in lists": (b"]" * 100_000 + b"a" * 99_999, "holds a list"),
    "tuples in tuples": (b")" + b"\x85" * 200_000, "holds a tuple"),
    "tuples of twice themselves": (b")" + b"2\x86" * 200, "holds a tuple"),
    "a key of such tuples": (b"})" + b"2\x86" * 100 + b"K\1s", "It holds nothing"),
    "a name of such tuples": (b")" + b"2\x86" * 100 + b"2\x93", "imports what is no name"),
    "dictionaries of twice themselves": (
        b"}q\0" + b"0}X\1\0\0\0ah\0sX\1\0\0\0bh\0sq\0" * 60,
        "holds no state dict",
    ),
    "a memo of 4 billion": (b"}r\xff\xff\xff\xff", "holds no state dict"),
    "keys of one hash": (
        b"}("
        + b"".join(
            b"\x8a\x0b" + (number * (2**61 - 1)).to_bytes(11, "little") + b"K\1"
            for number in range(100_000)
        )
        + b"u",
        "holds no state dict",
    ),
    "a string of 1 TB": (b"\x8d" + struct.pack("<Q", 1 << 40), "larger than 128 MiB"),
    "an array of 1 TB": (
        b"cbuiltins\nbytearray\n\x8a\6" + (1 << 40).to_bytes(6, "little") + b"\x85R",
        "holds a builtins.bytearray",
    ),
    "a tensor of 1 TB": (
        b"}X\1\0\0\0actorch\nFloatTensor\n\x8a\6" + (1 << 38).to_bytes(6, "little") + b"\x85Rs",
        "holds no state dict",
    ),
    "a string encoded without end": (
        b"X\0\0\x80\0"
        + b"a" * (1 << 23)
        + b"q\0]("
        + b"c_codecs\nencode\nh\0X\6\0\0\0latin1\x86R" * 20_000
        + b"e",
        "holds a list",
    ),
    "digits without end": (b"I" + b"9" * 1_000_000 + b"\n", "limit"),
    "marks without end": (b"(" * 1_000_001, "more than 1,000,000 steps"),
    "an extension": (b"\x82\1", "EXT1"),
    "nothing": (b"", "not a whole"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_are_refused(tmp_path: Path, name: str) -> None:
    """By themselves and in torch.save's archive."""
    body, words = PICKLES[name]
    with refused(tmp_path / "plain.pth", words):
        (tmp_path / "plain.pth").write_bytes(b"\x80\4" + body + b".")
    if len(body) > 1_000_000:
        return  # the same reader, and long enough
    with refused(tmp_path / "zip.pth", words):
        with zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"\x80\2" + body + b".")


def safetensors_of(header: bytes, body: bytes = b"", *, stated: int | None = None) -> bytes:
    """A file with any header."""
    size = len(header) if stated is None else stated
    return struct.pack("<Q", size) + header + body


def entries(names: list[str], shape: list[int], last: int) -> bytes:
    """A header of tensors that all have the same bytes."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, last]}
    return json.dumps(dict.fromkeys(names, entry)).encode()


HEADERS: dict[str, tuple[bytes, str]] = {
    "a header of 1 TB": (safetensors_of(b"{}", stated=1 << 40), "would have 1,099,511,627,776"),
    "a nested header": (safetensors_of(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "not a whole"),
    "many tensors": (
        safetensors_of(entries([f"blocks.{n}.proj.proj.weight" for n in range(40_000)], [0], 0)),
        "40,000 tensors",
    ),
    "a product beyond 64 bits": (
        safetensors_of(entries([NAME], [1 << 40, 1 << 40], 0)),
        "not a whole",
    ),
    "no values but sides": (safetensors_of(entries([NAME], [0, 1 << 60], 0)), "Not an ESC"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_safetensors_are_refused(tmp_path: Path, name: str) -> None:
    """Before anything is built that a header claims."""
    content, words = HEADERS[name]
    with refused(tmp_path / "a.safetensors", words):
        (tmp_path / "a.safetensors").write_bytes(content)


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path, our_file: Path) -> None:
    """It takes Python's JSON reader to its limit."""
    tensors = safetensors.torch.load_file(our_file)
    with safetensors.safe_open(our_file, "pt") as file:
        header = {**file.metadata(), "escsr.config": "[" * 20_000 + "]" * 20_000}
    path = tmp_path / "deep.safetensors"
    with refused(path, "header of .* is damaged"):
        safetensors.torch.save_file(tensors, path, header)


def test_a_header_cannot_ask_for_layers_without_end(tmp_path: Path) -> None:
    """Of ESC+LTE's decoder, whose depth is not among the sizes of an ESC's body."""
    whole, path = tmp_path / "whole.safetensors", tmp_path / "deep.safetensors"
    provenance = Provenance(licence="MIT", training_data="none", date="2025-11-20")
    save_weights(whole, family_network("esc-lte-x4"), provenance=provenance)
    with safetensors.safe_open(whole, "pt") as file:
        header = file.metadata()
    config = {**json.loads(header["escsr.config"]), "texture_mlp_layers": 10**9}
    with refused(path, "header says texture_mlp_layers 1000000000"):
        tensors = safetensors.torch.load_file(whole)
        safetensors.torch.save_file(tensors, path, {**header, "escsr.config": json.dumps(config)})
    for field in ("texture_mlp_layers", "num_blocks"):
        config = {**json.loads(header["escsr.config"]), field: 10**9}
        safetensors.torch.save_file(tensors, path, {**header, "escsr.config": json.dumps(config)})
        with no_more_than_10_seconds(field), pytest.raises(CheckpointError, match="layers by its"):
            load_weights(path)


def archive_of(path: Path, names: list[str]) -> None:
    """A ZIP archive with these entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")


def tar_of(path: Path) -> None:
    """A tar archive."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"), io.BytesIO())


def script_of(path: Path) -> None:
    """TorchScript."""
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(1, 1, 1)), path)


KINDS: dict[str, tuple[bytes | Callable[[Path], Any], str]] = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "Git LFS.*pull"),
    "html": (b"\n<!DOCTYPE html><html><head>", "HTML page"),
    "html-upper": (b"<HTML><BODY>Access denied", "HTML page"),
    "text": (b"Access denied", "text that begins with 'Access denied'"),
    "json": (b'{"error": "not found"}', "JSON"),
    "yaml": (b"# a recipe\nname: esc\nscale: 4\n", "YAML"),
    "gzip": (gzip.compress(b"weights"), "gzip"),
    "tar": (tar_of, "tar archive"),
    "onnx": (b"\x08\x07\x12\x07pytorch" + bytes(200), "ONNX"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "npy": (b"\x93NUMPY\1\0" + bytes(64), "numpy array"),
    "npz": (lambda path: archive_of(path, ["a.npy", "b.npy"]), "numpy archive"),
    "docx": (lambda path: archive_of(path, ["[Content_Types].xml"]), "office document"),
    "zip": (lambda path: archive_of(path, ["photo.jpg"]), r"ZIP archive .*photo\.jpg"),
    "empty zip": (lambda path: archive_of(path, []), "ZIP archive .*nothing"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(64), "JPEG image"),
    "ncnn": (b"7767517\n10 10\n", "ncnn"),
    "zeros": (bytes(4096), "zeros"),
    "noise": (b"\x97\xe1" + random.Random(1).randbytes(64), "begins with"),
    "pickled": (pickle.dumps({"a": 1}), "no state dict"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_says_what_it_is(tmp_path: Path, kind: str, suffix: str) -> None:
    """Whatever its name, and what to do about it."""
    content, words = KINDS[kind]
    path = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with refused(path, words):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_says_what_it_is(tmp_path: Path) -> None:
    """It holds weights, and a program."""
    with refused(tmp_path / "network.pt", "TorchScript.*exported from"):
        script_of(tmp_path / "network.pt")


def test_a_whole_pickled_network_is_explained(tmp_path: Path, small_network: ESC) -> None:
    """The message names the class, and says to save the state dict."""
    words = r"whole pickled object.*'escsr.model.network.ESC'.*save its state dict alone"
    with refused(tmp_path / "whole.pth", words):
        torch.save(small_network, tmp_path / "whole.pth")


def test_tensors_of_a_plain_pickle_are_explained(tmp_path: Path, small_network: ESC) -> None:
    """pickle.dump writes each tensor as a pickle of its own."""
    path = tmp_path / "dumped.pth"
    with refused(path, r"pickle\.dump.*torch\.save"):
        path.write_bytes(pickle.dumps(small_network.state_dict()))


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    """Nobody may ever write into it."""
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    with refused(tmp_path / "pipe.pth", "is a pipe"):
        os.mkfifo(tmp_path / "pipe.pth")
