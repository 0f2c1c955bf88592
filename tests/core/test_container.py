"""Weights files through the core's C interface: whole ones open, damaged ones are refused."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from escsr.core.library import (
    INVALID_CONFIGURATION,
    INVALID_FILE,
    MISSING_WEIGHTS,
    NOT_FINITE,
    OK,
)
from escsr.family import ESCConfig
from escsr.weights import Provenance
from escsr.weights.store import save_state
from tests.core.c_interface import open_arrays, open_bytes
from tests.core.damaged_weights import damaged_file, whole_parts
from tests.core.weights_files import (
    RELATIVES,
    SMALL,
    Parts,
    assembled,
    entries_of,
    joined,
    metadata_of,
    parts_of,
    random_arrays,
    rounded,
    weights_file,
)
from tests.mutation import no_more_than_10_seconds, number_of_cases, peak_memory_bytes

BUNDLED = Path(__file__).parents[2] / "src" / "escsr" / "weights" / "bundled"
IMAGE = np.random.default_rng(3).random((3, 8, 8), dtype=np.float32)
MOST_MEMORY_BYTES = 500_000_000
REFUSALS = (INVALID_FILE, INVALID_CONFIGURATION, MISSING_WEIGHTS)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
def test_every_type_is_read(kind: str) -> None:
    """The network gives what it gives with the same numbers in float32."""
    arrays = random_arrays(SMALL)
    expected = {name: rounded(array, kind) for name, array in arrays.items()}
    with open_bytes(weights_file(SMALL, arrays, kind)) as network:
        assert network.answer.message == ""
        answer, result = network.run(IMAGE)
    with open_arrays(SMALL, expected) as network:
        same_answer, same_result = network.run(IMAGE)
    assert answer.status == same_answer.status == OK
    np.testing.assert_array_equal(result, same_result)


def test_a_network_describes_itself() -> None:
    """Scale, window, parameters, and the configuration as it was given."""
    arrays = random_arrays(RELATIVES["real-m"])
    with open_bytes(weights_file(RELATIVES["real-m"], arrays)) as network:
        description = network.describe()
        # The network owns this text.
        assert json.loads(description.configuration) == RELATIVES["real-m"]
    assert (description.scale, description.any_size, description.window_pixels) == (2, 0, 16)
    assert description.num_parameters == sum(array.size for array in arrays.values())
    with open_bytes(weights_file(RELATIVES["lte"], random_arrays(RELATIVES["lte"]))) as network:
        assert network.describe().any_size == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", list(RELATIVES))
def test_files_that_python_writes_are_read(
    name: str, dtype: str, tmp_path: Path, provenance: Provenance
) -> None:
    """Of every relative, also in half the size."""
    if dtype == "bfloat16":  # which the safetensors package writes by torch alone
        pytest.importorskip("torch")
    path, config = tmp_path / "ours.safetensors", ESCConfig(**RELATIVES[name])
    save_state(path, config, random_arrays(RELATIVES[name]), provenance=provenance, dtype=dtype)
    with open_bytes(path.read_bytes()) as network:
        assert network.answer.message == ""
        answer, result = network.run(IMAGE)
    assert answer.status == OK
    assert np.isfinite(result).all()


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.safetensors")), ids=lambda path: path.name)
def test_bundled_weights_are_read(path: Path) -> None:
    """The files that the package comes with."""
    with open_bytes(path.read_bytes()) as network:
        assert network.answer.message == ""


def _without(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts[0].__delitem__(name)


def _stating(name: str, value: Any) -> Callable[[Parts], None]:
    return lambda parts: parts[0].__setitem__(name, value)


def _entry(**changes: Any) -> Callable[[Parts], None]:
    return lambda parts: parts[1]["shallow.bias"].update(changes)


DAMAGE: list[tuple[Callable[[Parts], None], str]] = [
    (_without("escsr.format"), "states no configuration of escsr's; .*Python package converts"),
    (_stating("escsr.format", "2"), "format version 2; this library reads version 1. Upgrade"),
    (_without("escsr.config"), "header of the file is damaged: it has no escsr.config"),
    (_without("escsr.sha256"), "header of the file is damaged: it has no escsr.sha256"),
    (_stating("escsr.recipe", 3), "its metadata are not all text"),
    (_entry(dtype="I64"), "shallow.bias holds I64; only F32, F16, BF16 and F64"),
    (_entry(dtype=3), "shallow.bias holds 3; only"),
    (_entry(dtype="F16"), "shallow.bias has 64 bytes, but not by its shape"),
    (_entry(shape=[17]), "shallow.bias has 64 bytes, but not by its shape"),
    (_entry(shape=[-16]), "shape of shallow.bias is damaged: it holds -16"),
    (_entry(shape=[16.0]), "shape of shallow.bias is damaged: it holds 16.0"),
    (_entry(shape=[2**62, 2**62]), "shallow.bias has 64 bytes, but not by its shape"),
    (_entry(shape=[2**63]), "shape of shallow.bias is damaged"),
    (_entry(shape=[1] * 7), "shallow.bias has more than 6 dimensions"),
    (_entry(shape=16), "header of the file is damaged: at byte .* an array is expected"),
    (_entry(data_offsets=[64, 0]), "offsets of shallow.bias are damaged"),
    (_entry(data_offsets=[0]), "offsets of shallow.bias are damaged"),
    (_entry(data_offsets=[0, 64, 128]), "offsets of shallow.bias are damaged"),
    (_entry(data_offsets=[-64, 0]), "offsets of shallow.bias are damaged"),
    (_entry(data_offsets=[0, 2**64]), "offsets of shallow.bias are damaged"),
    (_entry(data_offsets=[0, 64]), "shallow.(weight|bias) and shallow.(weight|bias) overlap"),
    (_entry(data_offsets=[10**9, 10**9 + 64]), "64 bytes before .* belong to no array"),
    (_entry(stride=[1]), "entry of shallow.bias is damaged: stride is unknown"),
    (lambda parts: parts[1]["shallow.bias"].pop("shape"), "shallow.bias lacks its type, shape or"),
    (lambda parts: parts[1].__setitem__("shallow.bias", 3), "an object is expected"),
    (lambda parts: parts[1].clear(), "holds no arrays"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damaged_headers_are_refused(damage: Callable[[Parts], None], message: str) -> None:
    """Each kind of damage by its own words."""
    parts = parts_of(SMALL, random_arrays(SMALL))
    damage(parts)
    with open_bytes(joined(parts)) as network:
        assert network.answer.status == INVALID_FILE
        assert re.search(message, network.answer.message), network.answer.message


def _bytes_with(change: Callable[[bytes], bytes]) -> bytes:
    return change(joined(parts_of(SMALL, random_arrays(SMALL))))


def _with_text(old: str, new: str) -> bytes:
    """A file whose header has another text in one place."""
    content = joined(parts_of(SMALL, random_arrays(SMALL)))
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(old.encode(), new.encode(), 1)
    return assembled(header, content[8 + size :])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes; it is empty or truncated"),
        (b"\x00" * 9, "has 9 bytes; it is empty or truncated"),
        (b"PK\x03\x04" + b"\x00" * 99, "zip file, as PyTorch writes them .*converts such files"),
        (b"\x80\x02" + b"\x00" * 99, "no safetensors file, or its beginning is damaged"),
        (
            b"\xff" * 8 + b"{}" * 9,
            "header is said to have 1[0-9]* bytes, and the whole file has 26",
        ),
        (b"\x13" + b"\x00" * 7 + b"{}" * 9, "header is said to have 19 bytes"),
        (b"\x01\x00\x00\x02" + b"\x00" * 4 + b"{" * 9, "header is said to have 33554433 bytes"),
        (b"\x08" + b"\x00" * 7 + b"{" * 9, "damaged: at byte 9 a name in quotes is expected"),
        (assembled(b"{}x", b""), "damaged: at byte 10 something follows the end"),
        (assembled(b'{"a":' + b"[" * 40, b""), "nested too deeply"),
        (assembled(b'{"a":\xff}', b""), "a value is expected"),
        (assembled(b'{"\xff":1}', b""), "a string is not in UTF-8"),
        (assembled(b"{}", b""), "states no configuration of escsr's"),
        (_bytes_with(lambda content: content[:-1]), "file is truncated: .* ends 1 bytes after"),
        (_bytes_with(lambda content: content + b"\0"), "1 bytes follow the last array"),
        (
            _bytes_with(lambda content: content[:-1] + bytes([content[-1] ^ 1])),
            "sha256 differs",
        ),
        (_with_text('"shallow.bias"', '"shallow.weight"'), "shallow.weight is there twice"),
        (_with_text('"shape"', '"shape": [1], "shape"'), "shape is there twice"),
        (
            _with_text('"__metadata__"', '"__metadata__": {}, "__metadata__"'),
            "metadata are there tw",
        ),
        (_with_text('"escsr.format"', '"escsr.format": "1", "escsr.format"'), "is there twice"),
        (_with_text('"escsr.format"', '"escsr.format"!'), "a colon is expected"),
    ],
)
def test_damaged_bytes_are_refused(content: bytes, message: str) -> None:
    """Each kind of damage by its own words."""
    with open_bytes(content) as network:
        assert network.answer.status == INVALID_FILE
        assert re.search(message, network.answer.message), network.answer.message


def test_every_truncation_is_refused() -> None:
    """Wherever a copy was broken off."""
    content = joined(parts_of(SMALL, random_arrays(SMALL)))
    for length in [*range(0, 4000, 7), *range(4000, len(content), 101)]:
        with open_bytes(content[:length]) as network:
            assert network.answer.status == INVALID_FILE, length


def test_files_of_the_reference_are_told_what_converts_them() -> None:
    """Its names, in a safetensors file without a header of ours."""
    content = safetensors.numpy.save(
        {"proj.weight": np.zeros((16, 3, 3, 3), np.float32)}, {"format": "pt"}
    )
    with open_bytes(content) as network:
        assert network.answer.status == INVALID_FILE
        assert "escsr's Python package converts such files" in network.answer.message


def test_escapes_in_names_are_what_they_stand_for() -> None:
    """JSON may write any letter as an escape."""
    entries, data = entries_of(random_arrays(SMALL))
    header = json.dumps({"__metadata__": metadata_of(SMALL, entries, data), **entries})
    header = header.replace("shallow.bias", "\\u0073hallow\\u002ebias").replace("/", "\\/")
    with open_bytes(assembled(header.encode() + b" \n\t", data)) as network:
        assert network.answer.message == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    """By the array's name."""
    arrays = random_arrays(SMALL)
    arrays["deep.weight"][3, 2, 1, 0] = value
    with open_bytes(weights_file(SMALL, arrays)) as network:
        assert network.answer.status == INVALID_FILE
        assert network.answer.message.startswith("deep.weight holds NaN or infinite values")


def test_arrays_must_be_those_of_the_configuration() -> None:
    """Missing ones, unknown ones, other shapes, and more layers than arrays."""
    arrays = random_arrays(SMALL)
    missing = {name: array for name, array in arrays.items() if name != "deep.bias"}
    reshaped = {**arrays, "deep.bias": arrays["deep.bias"][:8]}
    for given, configuration, message in [
        (missing, SMALL, "deep.bias is missing: a network of this configuration has it, 16."),
        (reshaped, SMALL, "deep.bias is 8 instead of 16."),
        (
            {**arrays, "a": np.zeros(3), "b": np.zeros(3)},
            SMALL,
            "2 arrays that no network of this configuration has: a, b.",
        ),
        (
            arrays,
            {**SMALL, "num_blocks": 300},
            f"The network has 600 layers by its configuration, and only {len(arrays)} arrays are "
            "there.",
        ),
    ]:
        with open_bytes(weights_file(configuration, given)) as network:
            assert (network.answer.status, network.answer.message) == (MISSING_WEIGHTS, message)


def test_messages_show_names_from_files_as_one_line_of_text() -> None:
    """Neither control characters nor half a letter, however long a name is."""
    for name in ("a\nb\x1b[31m\x7f\x85", "é" * 600, "a" + "😀" * 300, "x" * 5000):
        arrays = {**random_arrays(SMALL), name: np.zeros(2)}
        with open_bytes(weights_file(SMALL, arrays)) as network:
            assert network.answer.status == MISSING_WEIGHTS
            assert network.answer.message.isprintable()


@pytest.mark.slow
def test_mutated_files_run_or_are_refused() -> None:
    """No crash, no other status, no more than 500 MB and 10 seconds."""
    wholes = whole_parts()
    before = peak_memory_bytes()
    refused, cases = 0, number_of_cases(1000)
    for case in range(cases):
        content = damaged_file(wholes, random.Random(case))
        with no_more_than_10_seconds(f"case {case}"), open_bytes(content) as network:
            if network.answer.status != OK:
                assert network.answer.status in REFUSALS, f"case {case}: {network.answer}"
                refused += 1
                continue
            answer, result = network.run(IMAGE)
        assert answer.status in (OK, NOT_FINITE), f"case {case}: {answer}"
        assert answer.status != OK or np.isfinite(result).all()
    assert peak_memory_bytes() - before < MOST_MEMORY_BYTES
    assert cases / 2 < refused < cases
